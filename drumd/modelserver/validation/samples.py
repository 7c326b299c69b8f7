"""Rows to try a model with: from a file, or made of what the model says of itself."""

import io
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from drumd.modelserver.batch.chunks import Input, known_suffixes
from drumd.modelserver.batch.scoring import is_taken_whole
from drumd.modelserver.batch.textpieces import csv_pieces
from drumd.modelserver.inference.model import Model
from drumd.modelserver.payload import Payload

ROWS = 100
"""Rows of a file that are tried."""
_MADE_ROWS = 10
_ALONE = 3
"""Rows that are tried alone, too."""
_SEED = 20_240_301
"""Of numbers made up: the same in each run, so that a failure can be looked for."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows to try a model with."""

    payload: Payload
    origin: str
    """Where they are from, for people."""
    made: bool = False
    """Whether they were made up."""
    alone: list[Payload] = field(default_factory=list)
    """Its first rows, each as a request of its own."""


def sample_of(source: Input, model: Model) -> Sample:
    """Return the first rows of a file; all of one that only the model can read."""
    if is_taken_whole(model, source) or source.suffix not in known_suffixes():
        return Sample(source.whole(), source.name)
    first = next(source.chunks(ROWS))
    rows = first.rows or 0
    if not rows:  # what is wrong with it is told of the file
        return Sample(first.payload, source.name)
    what = f"the first {rows} rows" if rows == ROWS else f"{rows} row{'' if rows == 1 else 's'}"
    alone: list[Payload] = []
    if source.path is not None and source.path.is_file():
        alone = [chunk.payload for chunk in islice(source.chunks(1), min(_ALONE, rows))]
    return Sample(first.payload, f"{what} of {source.name}", alone=alone)


def made_up(model: Model) -> Sample | None:
    """Return numbers in the columns that the model wants; None when it does not say which."""
    import numpy as np  # noqa: PLC0415 - the model has it loaded

    columns = wanted_columns(model.loaded)
    if not columns or "read_input_data" in model.hooks:
        return None
    numbers = np.random.default_rng(_SEED).normal(size=(_MADE_ROWS, len(columns)))
    lines = [_line(columns), *(_line([f"{number:.4f}" for number in row]) for row in numbers)]
    data = "".join(lines).encode()
    origin = f"{_MADE_ROWS} rows, made up, of {len(columns)} columns that the model names"
    alone = [piece.payload for piece in islice(csv_pieces(io.BytesIO(data), 1), _ALONE)]
    return Sample(Payload(data), origin, made=True, alone=alone)


def wanted_columns(artifact: Any) -> list[str]:
    """Return the columns that a loaded model says it wants, as scikit-learn's and ONNX's do."""
    names = getattr(artifact, "feature_names_in_", None)
    if names is not None:
        return [str(name) for name in names]
    count = getattr(artifact, "n_features_in_", None)
    if isinstance(count, int):
        return [f"column_{number}" for number in range(1, count + 1)]
    inputs = getattr(artifact, "get_inputs", None)
    return _onnx_columns(inputs()) if callable(inputs) else []


def _onnx_columns(inputs: Any) -> list[str]:
    """Return names for what an ONNX session takes: one matrix, or a column an input."""
    if len(inputs) > 1:
        return [str(each.name) for each in inputs]
    width = inputs[0].shape[-1] if inputs and inputs[0].shape else None
    return [f"column_{number}" for number in range(1, width + 1)] if isinstance(width, int) else []


def _line(cells: list[str]) -> str:
    import csv  # noqa: PLC0415 - used here only

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
