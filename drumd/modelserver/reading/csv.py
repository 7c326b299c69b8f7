"""Reading comma-separated values with a header."""

import csv
import io
import itertools
import re
from typing import Any

import pandas as pd

from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload
from drumd.modelserver.reading.bounds import bound_cells, refuse_duplicates
from drumd.modelserver.reading.mediatype import MediaType, codec_of, decode

_LINE_END = re.compile(r"[\r\n]")
_PARSER = "Error tokenizing data. C error: "


def read(payload: Payload, media_type: MediaType) -> pd.DataFrame:
    """Return the rows as a DataFrame with the types that pandas finds; raise `RequestError`."""
    text = decode(payload.data, media_type.charset)
    if "\0" in text:
        raise RequestError(
            f"cannot read the data as CSV: character {text.index(chr(0))} is NUL; "
            "send text, or the content type that the data have"
        )
    _bound(text)
    frame = _parse(payload.data if codec_of(media_type.charset) == "utf-8" else text)
    _check_header(frame, text)
    if frame.iloc[:, -1].hasnans:
        _refuse_short_rows(text, len(frame.columns))
    return frame


def _parse(data: bytes | str) -> pd.DataFrame:
    try:
        # In one piece: a column's type must not depend on where a piece ends.
        return pd.read_csv(
            io.BytesIO(data) if isinstance(data, bytes) else io.StringIO(data),
            low_memory=False,
            encoding="utf-8-sig" if isinstance(data, bytes) else None,
        )
    # ParserError and EmptyDataError are ValueErrors; OverflowError is of numbers out of all range.
    except (ValueError, OverflowError, MemoryError) as error:
        told = str(error).removeprefix(_PARSER).strip() or type(error).__name__
        raise RequestError(f"cannot read the data as CSV: {told}") from None


def _bound(text: str) -> None:
    """Refuse a long header over many short rows: pandas fills all that is missing."""
    header = _LINE_END.search(text)
    columns = text.count(",", 0, header.start() if header else len(text)) + 1
    lines = max(text.count("\n"), text.count("\r")) + 1
    bound_cells(lines, columns, len(text))


def _check_header(frame: pd.DataFrame, text: str) -> None:
    if not isinstance(frame.index, pd.RangeIndex):
        # pandas takes what is too much for names of the rows.
        raise RequestError(
            "cannot read the data as CSV: the rows have more fields than the header, "
            f"which has {len(frame.columns)}"
        )
    if not len(frame):
        raise RequestError(
            "cannot read the data as CSV: there is a header but no row; "
            "send the names of the columns in the first line, and a row in each of the next"
        )
    if any(str(name).rpartition(".")[2].isdigit() for name in frame.columns):
        # pandas renames the second `a` to `a.1`: the text tells whether the client did.
        refuse_duplicates(name for name in next(_rows(text), []) if name)


def _refuse_short_rows(text: str, columns: int) -> None:
    rows = _rows(text)
    try:
        for row in itertools.islice(rows, 1, None):
            if len(row) < columns:
                raise RequestError(
                    f"cannot read the data as CSV: the row that ends in line {rows.line_num} has "
                    f"{len(row)} fields, the header {columns}"
                )
    except csv.Error:  # a field too long for this module: pandas has read it
        return


class _rows:  # noqa: N801 - it is used as a function
    """Rows of the text that have fields, as pandas counts them."""

    def __init__(self, text: str) -> None:
        self._reader: Any = csv.reader(io.StringIO(text, newline=""))

    def __iter__(self) -> "_rows":
        return self

    def __next__(self) -> list[str]:
        for row in self._reader:
            if row and not (len(row) == 1 and not row[0].strip()):
                return list(row)
        raise StopIteration

    @property
    def line_num(self) -> int:
        return int(self._reader.line_num)
