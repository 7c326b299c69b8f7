"""What a builder returns: a model directory, its target, and data that it can predict from."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from drumd.config.modelserver.settings import ModelSettings
from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.payload import Payload

CSV = "text/csv"
JSON = "application/json"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
ARROW_FILE = "application/vnd.apache.arrow.file"
MATRIX_MARKET = "text/mtx"


@dataclass(frozen=True, slots=True)
class Built:
    """A model directory."""

    directory: Path
    target: Target
    payload: Payload
    """What the model can answer."""
    rows: int = 0
    """How many rows the payload has."""
    frame: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The payload as a table, where it is one."""

    @property
    def settings(self) -> ModelSettings:
        """What a worker that serves the model is told."""
        return ModelSettings(code_dir=self.directory.resolve(), target=self.target)

    @property
    def environ(self) -> dict[str, str]:
        """The same in variables of the environment."""
        environ = {"TARGET_TYPE": str(self.target.type), "TARGET_NAME": self.target.name}
        labels = self.target.labels
        if self.target.type is TargetType.BINARY:
            environ |= {"POSITIVE_CLASS_LABEL": labels[0], "NEGATIVE_CLASS_LABEL": labels[1]}
        elif labels:
            environ["CLASS_LABELS"] = json.dumps(labels)
        return environ


def tabular(directory: Path, target: Target, frame: pd.DataFrame) -> Built:
    """Return a model that answers rows of a table."""
    return Built(directory, target, csv_of(frame), len(frame), frame)


def csv_of(frame: pd.DataFrame) -> Payload:
    return Payload(frame.to_csv(index=False).encode(), CSV)


def json_of(frame: pd.DataFrame) -> Payload:
    return Payload(
        frame.to_json(orient="records", double_precision=15, date_format="iso").encode(), JSON
    )


def arrow_of(frame: pd.DataFrame, content_type: str = ARROW_STREAM) -> Payload:
    import pyarrow as pa  # noqa: PLC0415 - few tests need it

    table = pa.Table.from_pandas(frame)
    sink = pa.BufferOutputStream()
    new = pa.ipc.new_file if content_type == ARROW_FILE else pa.ipc.new_stream
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return Payload(sink.getvalue().to_pybytes(), content_type)


def matrix_market_of(matrix: object, names: list[str] | None = None) -> Payload:
    import scipy.io  # noqa: PLC0415 - as above

    stream = io.BytesIO()
    scipy.io.mmwrite(stream, matrix)
    columns = None if names is None else "\n".join(names).encode()
    return Payload(stream.getvalue(), MATRIX_MARKET, columns)
