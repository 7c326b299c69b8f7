"""Files through real models, in this process: what is written is what a client would be told."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import scipy.io
import scipy.sparse

from drumd.config.modelserver.settings import ModelSettings
from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.batch.chunks import Input
from drumd.modelserver.batch.errors import BatchError, BatchUsageError
from drumd.modelserver.batch.resultfile import ResultFile
from drumd.modelserver.batch.scoring import Scoring
from drumd.modelserver.inference.model import Model
from drumd.modelserver.payload import Payload

FRAME = pd.DataFrame({"a": [float(row) / 3 for row in range(25)], "b": list(range(25))})

SUM = """
import pandas as pd
def score(data, model, **kwargs):
    return pd.DataFrame({"Predictions": data["a"] + data["b"]})
"""
CLASSES = """
import pandas as pd
def score(data, model, **kwargs):
    yes = (data["a"] / 10).clip(0, 1)
    return pd.DataFrame({"yes": yes, "no": 1 - yes, "why": ["since, well"] * len(data)})
"""
TEXTS = """
import pandas as pd
def score(data, model, **kwargs):
    return pd.DataFrame({"answer": [f'say "{a}",\\ntwice' for a in data["a"]]})
"""
TRANSFORM = "def transform(data, model):\n    return data.assign(c=data['a'] * 2)\n"
SPARSE = (
    "import scipy.sparse\n"
    "def transform(data, model):\n    return scipy.sparse.csr_matrix(data.to_numpy())\n"
)
BROKEN = """
import pandas as pd
def score(data, model, **kwargs):
    if (data["b"] > 20).any():
        raise ValueError("b is too much")
    return pd.DataFrame({"Predictions": data["a"]})
"""
UNEVEN = """
import pandas as pd
def score(data, model, **kwargs):
    frame = pd.DataFrame({"Predictions": data["a"].to_numpy()})
    return frame if data["b"].min() < 20 else frame.assign(more=1)
"""
READS = """
import io
import pandas as pd
def read_input_data(data):
    return pd.read_csv(io.BytesIO(data), sep=";", skiprows=1)
def score(data, model, **kwargs):
    return pd.DataFrame({"Predictions": data["a"] * 0 + len(data)})
"""
UNSTRUCTURED = "def score_unstructured(model, data, **kwargs):\n    return data.upper()\n"
CHAT = "def chat(completion_create_params, model):\n    return {}\n"

REGRESSION = Target(TargetType.REGRESSION)
BINARY = Target(TargetType.BINARY, ("yes", "no"))
TRANSFORMING = Target(TargetType.TRANSFORM)

Make = Callable[..., Model]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(code: str, target: Target = REGRESSION) -> Model:
        directory = tmp_path / "model"
        directory.mkdir(exist_ok=True)
        (directory / "custom.py").write_text(code)
        return Model.load(ModelSettings(code_dir=directory, target=target))

    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    FRAME.to_csv(path, index=False)
    return path


def score(model: Model, source: Path, output: Path, rows: int | None = None) -> int:
    """Score, and return the rows."""
    with ResultFile(output) as result:
        scoring = Scoring(model, Input(source), result.suffix, rows)
        return [progress.rows for progress in scoring.run(result)][-1]


@pytest.mark.parametrize("rows", [1, 7, 25, None])
def test_predictions_are_those_of_a_request(
    make: Make, data: Path, tmp_path: Path, rows: int | None
) -> None:
    """In chunks of any size each row gets, to the last digit, what a client would get for it."""
    model = make(SUM)
    assert score(model, data, tmp_path / "out.csv", rows) == len(FRAME)
    head, *lines = (tmp_path / "out.csv").read_text().splitlines()
    assert head == "Predictions"
    told = model.predict(Payload(data.read_bytes()))
    assert [float(line) for line in lines] == told.values  # noqa: PD011 - no pandas


def test_labels_have_a_column_each_and_more_columns_follow(
    make: Make, data: Path, tmp_path: Path
) -> None:
    """The columns are the labels, then what else the model returned."""
    model = make(CLASSES, BINARY)
    score(model, data, tmp_path / "out.csv", 10)
    told = model.predict(Payload(data.read_bytes()))
    frame = pd.read_csv(tmp_path / "out.csv")
    assert list(frame.columns) == ["yes", "no", "why"]
    assert frame[["yes", "no"]].to_dict("records") == told.values  # noqa: PD011 - no pandas
    assert frame["why"].tolist() == told.extra["why"]


@pytest.mark.parametrize("rows", [10, 1000])
def test_json_has_the_same_rows(make: Make, data: Path, tmp_path: Path, rows: int) -> None:
    """JSON is a list of objects, JSON Lines has one a line; the columns are those of the CSV."""
    model = make(CLASSES, BINARY)
    for name in ("out.csv", "out.json", "out.jsonl"):
        score(model, data, tmp_path / name, rows)
    frame = pd.read_csv(tmp_path / "out.csv")
    expected = frame.to_dict("records")
    assert json.loads((tmp_path / "out.json").read_text()) == expected
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected


def test_texts_are_quoted(make: Make, data: Path, tmp_path: Path) -> None:
    """Generated text is in the column of the target's name, with line ends and quotes in it."""
    target = Target(TargetType.TEXT_GENERATION, name="answer")
    score(make(TEXTS, target), data, tmp_path / "out.csv", 10)
    frame = pd.read_csv(tmp_path / "out.csv")
    assert frame["answer"][0] == 'say "0.0",\ntwice'
    assert len(frame) == len(FRAME)


@pytest.mark.parametrize("rows", [10, 1000])
def test_a_transformed_csv_is_one_table(make: Make, data: Path, tmp_path: Path, rows: int) -> None:
    """The tables of the chunks become one, with one header."""
    model = make(TRANSFORM, TRANSFORMING)
    assert score(model, data, tmp_path / "out.csv", rows) == len(FRAME)
    assert (tmp_path / "out.csv").read_bytes() == model.transform(Payload(data.read_bytes())).data


@pytest.mark.parametrize("rows", [10, 1000])
def test_a_transformed_arrow_file_is_one_file(make: Make, tmp_path: Path, rows: int) -> None:
    """Arrow in is Arrow out, which other programs can read."""
    FRAME.to_feather(tmp_path / "in.feather")
    score(make(TRANSFORM, TRANSFORMING), tmp_path / "in.feather", tmp_path / "out.arrow", rows)
    frame = pd.read_feather(tmp_path / "out.arrow")
    pd.testing.assert_frame_equal(frame, FRAME.assign(c=FRAME["a"] * 2))
    with pa.memory_map(str(tmp_path / "out.arrow")) as file:
        assert pa.ipc.open_file(file).num_record_batches == -(-len(FRAME) // rows)


@pytest.mark.parametrize("rows", [10, 1000])
def test_transformed_sparse_data_are_one_matrix(
    make: Make, data: Path, tmp_path: Path, rows: int
) -> None:
    """What a transform makes sparse is one Matrix Market file."""
    score(make(SPARSE, TRANSFORMING), data, tmp_path / "out.mtx", rows)
    matrix = scipy.sparse.csr_matrix(scipy.io.mmread(tmp_path / "out.mtx"))
    assert matrix.toarray().tolist() == FRAME.to_numpy().tolist()


def test_a_suffix_that_does_not_fit_a_transform_is_told(
    make: Make, data: Path, tmp_path: Path
) -> None:
    """CSV is not written into a file that says Arrow."""
    with pytest.raises(BatchUsageError, match=r"let --output end with \.csv"):
        score(make(TRANSFORM, TRANSFORMING), data, tmp_path / "out.arrow")


def test_an_unstructured_model_gets_the_file(make: Make, tmp_path: Path) -> None:
    """An unstructured model gets the whole file, whatever it is, and its answer is the output."""
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    model = make(UNSTRUCTURED, Target(TargetType.UNSTRUCTURED))
    score(model, tmp_path / "in.txt", tmp_path / "out.bin", 1)
    assert (tmp_path / "out.bin").read_text() == "ONE\nTWO\n"


def test_who_reads_the_data_himself_gets_them_whole(make: Make, tmp_path: Path) -> None:
    """read_input_data gets the file as it is: where it may be cut, nobody else knows."""
    for name in ("data.csv", "data.own"):
        path = tmp_path / name
        path.write_text("a title\na;b\n" + "1;2\n" * 12)
        assert score(make(READS), path, tmp_path / "out.csv") == 12
        assert (tmp_path / "out.csv").read_text().splitlines()[1:] == ["12.0"] * 12


def test_rows_of_a_csv_that_a_hook_reads_can_be_asked_for(make: Make, tmp_path: Path) -> None:
    """--chunk-rows says that the CSV may be cut, whoever reads it."""
    code = READS.replace(', sep=";", skiprows=1', "")
    path = tmp_path / "data.csv"
    path.write_text("a\n" + "1\n" * 12)
    score(make(code), path, tmp_path / "out.csv", 8)
    assert (tmp_path / "out.csv").read_text().split() == ["Predictions", *["8.0"] * 8, *["4.0"] * 4]


def test_rows_that_fail_are_named(make: Make, data: Path, tmp_path: Path) -> None:
    """A hook that raises is told with the rows, the exception, and its own traceback."""
    with pytest.raises(BatchError) as caught:
        score(make(BROKEN), data, tmp_path / "out.csv", 10)
    assert str(caught.value) == (
        f"cannot score rows 21 to 25 of {data}: cannot predict: score in custom.py raised "
        "ValueError: b is too much"
    )
    assert 'custom.py", line 5, in score' in caught.value.traceback
    assert "drumd/modelserver" not in caught.value.traceback
    assert list(tmp_path.glob("*out.csv*")) == []


def test_columns_that_change_are_told(make: Make, data: Path, tmp_path: Path) -> None:
    """A model that has other columns for later rows ends the run: they would not fit the header."""
    with pytest.raises(BatchError, match=r"rows 21 to 25 .* return the same columns for any rows"):
        score(make(UNEVEN), data, tmp_path / "out.csv", 10)


@pytest.mark.parametrize(
    ("code", "target", "name", "output", "message"),
    [
        (CHAT, Target(TargetType.TEXT_GENERATION), "data.csv", "o.csv", "a chat is no table"),
        (SUM, REGRESSION, "data.xls", "o.csv", "its suffix '.xls' is none of .arrow"),
        (SUM, REGRESSION, "data.csv", "o.xls", "let --output end with .csv, .json"),
    ],
)
def test_what_no_row_could_change_is_told_first(
    make: Make, tmp_path: Path, code: str, target: Target, name: str, output: str, message: str
) -> None:
    """A chat model, and formats that nobody knows, are told before anything is read."""
    with pytest.raises(BatchUsageError) as caught:
        score(make(code, target), tmp_path / name, tmp_path / output)
    assert message in str(caught.value)


# --- the output -----------------------------------------------------------------------------------


def test_the_output_takes_its_place_at_the_end(tmp_path: Path) -> None:
    """Until all is written, the old file is there; its mode stays."""
    path = tmp_path / "out.csv"
    path.write_text("old")
    path.chmod(0o640)
    with ResultFile(path) as result:
        result.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    """A run that fails leaves the old file, and nothing beside it."""
    path = tmp_path / "out.csv"
    path.write_text("old")

    def fail() -> None:
        with ResultFile(path) as result:
            result.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """A link to the output leads to the new file afterwards."""
    (tmp_path / "far").mkdir()
    link = tmp_path / "out.csv"
    link.symlink_to(tmp_path / "far" / "real.csv")
    with ResultFile(link) as result:
        result.write(b"new")
    assert link.is_symlink()
    assert (tmp_path / "far" / "real.csv").read_text() == "new"


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    """A pipe is written to, not replaced by a file."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with ResultFile(path) as result:
        result.write(b"new")
    assert os.read(reading, 100) == b"new"
    os.close(reading)
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("place", ["gone/out.csv", ".", "file/out.csv"])
def test_a_place_where_no_file_can_be_is_told(tmp_path: Path, place: str) -> None:
    """A missing directory is a mistake in the flags, told before the model is loaded."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BatchUsageError, match="cannot write"):
        ResultFile(tmp_path / place)


def test_a_full_disk_is_told() -> None:
    """No room for the results is an error with the file's name."""

    def fill() -> Any:
        with ResultFile(Path("/dev/full")) as result:
            result.write(b"x" * 1_000_000)

    with pytest.raises(BatchError, match="cannot write /dev/full: No space left on device"):
        fill()
