"""Input files of every format, cut into chunks that a model can read."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.io
import scipy.sparse

from drumd.modelserver import reading
from drumd.modelserver.batch.chunks import Chunk, Input
from drumd.modelserver.batch.errors import BatchError, BatchUsageError
from drumd.modelserver.errors import RequestError

ROWS = 25
FRAME = pd.DataFrame(
    {
        "number": np.arange(ROWS) / 4,
        "text": [f'line {row}\n"quoted", and more' for row in range(ROWS)],
        "count": np.arange(ROWS),
    }
)


def written(directory: Path, name: str) -> Path:
    """Write FRAME in the format of the name."""
    path = directory / name
    table = pa.Table.from_pandas(FRAME)
    match name:
        case "all.csv":
            FRAME.to_csv(path, index=False)
        case "all.json":
            FRAME.to_json(path, orient="records")
        case "all.jsonl" | "all.ndjson":
            FRAME.to_json(path, orient="records", lines=True)
        case "all.feather":
            FRAME.to_feather(path, compression="zstd")
        case "all.arrow":
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=7)
        case "all.ipc":
            with pa.ipc.new_stream(path, table.schema) as stream:
                stream.write_table(table, max_chunksize=4)
    return path


def chunks(path: Path, rows: int, columns: Path | None = None) -> list[Chunk]:
    return list(Input(path, columns).chunks(rows))


def read(chunk: Chunk) -> Any:
    return reading.read(chunk.payload)


NAMES = ("all.csv", "all.json", "all.jsonl", "all.ndjson", "all.feather", "all.arrow", "all.ipc")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 10, 25, 1000])
def test_chunks_have_all_rows_in_order(tmp_path: Path, name: str, rows: int) -> None:
    """Of each format the chunks are, one after the other, what the whole file is."""
    found = chunks(written(tmp_path, name), rows)
    assert [chunk.rows for chunk in found[:-1]] == [rows] * (len(found) - 1)
    assert [chunk.first for chunk in found] == list(range(1, ROWS + 1, rows))
    frame = pd.concat([read(chunk) for chunk in found], ignore_index=True)
    pd.testing.assert_frame_equal(frame, FRAME, check_dtype=False)
    shares = [chunk.share for chunk in found]
    assert shares == sorted(shares)  # type: ignore[type-var]
    assert shares[-1] == pytest.approx(1.0, abs=0.01)  # a stream has a mark at its end


def test_marks_and_line_ends_of_other_systems_stay_out_of_the_data(tmp_path: Path) -> None:
    """A byte order mark is part of no chunk's columns, and CRLF of no value."""
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,x\r\n2,y\r\n\r\n3,z\r\n")
    frames = [read(chunk) for chunk in chunks(path, 2)]
    assert [frame.to_dict("list") for frame in frames] == [
        {"a": [1, 2], "b": ["x", "y"]},
        {"a": [3], "b": ["z"]},
    ]


def test_a_chunk_says_which_rows_it_has(tmp_path: Path) -> None:
    """Rows are counted from 1, as in an editor without the header."""
    path = written(tmp_path, "all.csv")
    assert [chunk.where for chunk in chunks(path, 12)] == [
        "rows 1 to 12",
        "rows 13 to 24",
        "row 25",
    ]


@pytest.fixture
def matrix(tmp_path: Path) -> scipy.sparse.csr_matrix:
    made = scipy.sparse.random(ROWS, 6, density=0.3, format="csr", random_state=1)
    scipy.io.mmwrite(tmp_path / "all.mtx", scipy.sparse.csc_matrix(made))
    return made


@pytest.mark.parametrize("rows", [1, 10, 25, 1000])
def test_matrix_market_is_cut_by_rows(
    tmp_path: Path, matrix: scipy.sparse.csr_matrix, rows: int
) -> None:
    """A sparse file in any order is cut by rows, and no number loses a digit."""
    found = chunks(tmp_path / "all.mtx", rows)
    stacked = scipy.sparse.vstack([read(chunk) for chunk in found])
    assert (stacked != matrix).nnz == 0
    assert sum(chunk.rows or 0 for chunk in found) == ROWS


@pytest.mark.usefixtures("matrix")
def test_names_of_sparse_columns_are_beside_the_file(tmp_path: Path) -> None:
    """X.colnames beside X.mtx names its columns; another file can be named."""
    (tmp_path / "all.colnames").write_text("a\nb\nc\nd\ne\nf\n")
    other = tmp_path / "other"
    other.write_text("u\nv\nw\nx\ny\nz\n")
    assert [list(read(each).columns) for each in chunks(tmp_path / "all.mtx", 20)] == [
        list("abcdef")
    ] * 2
    assert list(read(chunks(tmp_path / "all.mtx", 100, other)[0]).columns) == list("uvwxyz")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", b""),
        ("x.csv", b"a,b\n"),
        ("x.jsonl", b""),
        ("x.json", b"[]"),
        ("x.json", b"{"),
        ("x.json", b"[" * 100_000),
        ("x.mtx", b"no matrix"),
    ],
)
def test_a_file_without_rows_is_one_chunk_that_the_reader_refuses(
    tmp_path: Path, name: str, content: bytes
) -> None:
    """What is wrong with a file is said by whom says it to a client."""
    path = tmp_path / name
    path.write_bytes(content)
    [chunk] = chunks(path, 10)
    with pytest.raises(RequestError, match="cannot read the"):
        read(chunk)


def test_what_is_no_arrow_is_refused(tmp_path: Path) -> None:
    """A file that is not what its suffix says is refused with its name."""
    path = tmp_path / "x.arrow"
    path.write_bytes(b"no arrow")
    with pytest.raises(BatchError, match=r"cannot read .*x\.arrow: it is no Arrow file"):
        chunks(path, 10)
    path.write_bytes(b"")
    with pytest.raises(BatchError, match=r"cannot read .*x\.arrow: it is no Arrow file"):
        chunks(path, 10)


def test_what_cannot_be_opened_is_a_mistake_in_the_flags(tmp_path: Path) -> None:
    """A missing file, a directory and a pointless --columns are told before a model is loaded."""
    with pytest.raises(BatchUsageError, match=r"cannot read .*gone\.csv: No such file"):
        Input(tmp_path / "gone.csv").check()
    with pytest.raises(BatchUsageError, match="it is a directory"):
        Input(tmp_path).check()
    path = written(tmp_path, "all.csv")
    with pytest.raises(BatchUsageError, match=r"it names the columns of a \.mtx file"):
        Input(path, path).check()
