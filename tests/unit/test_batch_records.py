"""CSV cut between its records."""

import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drumd.modelserver.batch import records as module
from drumd.modelserver.batch.errors import BatchError
from drumd.modelserver.batch.records import records
from drumd.modelserver.batch.textpieces import csv_pieces


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a\n1\n2", [b"a\n", b"1\n", b"2"]),
        (b"a,b\r\n1,2\r\n", [b"a,b\r\n", b"1,2\r\n"]),
        (b'"a\nb",c\n1,2\n', [b'"a\nb",c\n', b"1,2\n"]),
        (b'a,"b\n\n"\n1\n', [b'a,"b\n\n"\n', b"1\n"]),
        (b'"x""\ny"\n1\n', [b'"x""\ny"\n', b"1\n"]),
        (b'5" pipe,"x\ny"\n1\n', [b'5" pipe,"x\ny"\n', b"1\n"]),
        (b'"x"y"z,"1\n2"\n', [b'"x"y"z,"1\n2"\n']),
        (b"\na\n  \n\r\n1\n\n", [b"a\n", b"1\n"]),
    ],
)
def test_records_end_where_pandas_ends_them(data: bytes, expected: list[bytes]) -> None:
    """A line end within quotes is text, quotes within a field are text, a blank line is nothing."""
    assert list(records(io.BytesIO(data))) == expected


# Cells that have in them all that a cut could go wrong at.
CELLS = st.text(alphabet='ab",\n 5', max_size=6)
RAW = st.lists(
    st.sampled_from([b'"', b'""', b",", b"\n", b"\r\n", b"a", b"1", b" "]), max_size=25
).map(b"".join)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_the_pieces_of_a_csv_are_its_rows(cells: list[tuple[str, str]], rows: int) -> None:
    """Whatever is quoted in a CSV, its pieces hold the same rows in the same order."""
    data = pd.DataFrame(cells, columns=["x", "y"]).to_csv(index=False).encode()
    whole = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    parts = [
        pd.read_csv(io.BytesIO(piece.payload.data), dtype=str, keep_default_na=False)
        for piece in csv_pieces(io.BytesIO(data), rows)
    ]
    assert pd.concat(parts).to_numpy().tolist() == whole.to_numpy().tolist()
    assert all(len(part) == rows for part in parts[:-1])


@given(RAW)
@settings(max_examples=300, deadline=None)
def test_quotes_anywhere_cut_no_record(raw: bytes) -> None:
    """Of odd bytes, too, each record is one row to pandas, and all of them are all its rows."""

    def rows_of(data: bytes) -> list[list[str]] | None:
        try:
            frame = pd.read_csv(
                io.BytesIO(data), header=None, names=range(30), dtype=str, keep_default_na=False
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError):
            return None
        listed: list[list[str]] = frame.to_numpy().tolist()
        return listed

    whole = rows_of(raw)
    if whole is None:
        return
    assert [rows_of(record) for record in records(io.BytesIO(raw))] == [[row] for row in whole]


def test_a_record_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quote that is never closed does not fill the memory."""
    monkeypatch.setattr(module, "LONGEST", 1000)
    found = records(io.BytesIO(b'a\n"' + b"x\n" * 1000))
    assert next(found) == b"a\n"
    with pytest.raises(BatchError, match="longer than 1000 bytes; is a quote not closed"):
        next(found)
