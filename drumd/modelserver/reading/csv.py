"""Reading comma-separated values with a header."""

import csv
import io
import re
from typing import Any, Self

import pandas as pd

from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload
from drumd.modelserver.reading.bounds import bound_cells, refuse_duplicates
from drumd.modelserver.reading.mediatype import MediaType, codec_of, decode

_LINE_END = re.compile(r"[\r\n]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
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
    if frame[frame.columns[-1]].hasnans:
        _refuse_short_rows(text)
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
    rows = _Rows(text)
    header, first = next(rows, []), next(rows, [])
    if len(first) > len(header):  # pandas takes what is too much for names of the rows
        raise _unequal(rows, first, header)
    if not len(frame):
        raise RequestError(
            "cannot read the data as CSV: there is a header but no row; "
            "send the names of the columns in the first line, and a row in each of the next"
        )
    refuse_duplicates(name for name in header if name)  # pandas renames the second `a` to `a.1`


def _refuse_short_rows(text: str) -> None:
    rows = _Rows(text)
    header = next(rows, [])
    for row in rows:
        if len(row) < len(header):
            raise _unequal(rows, row, header)


def _unequal(rows: "_Rows", row: list[str], header: list[str]) -> RequestError:
    return RequestError(
        f"cannot read the data as CSV: the row that ends in line {rows.line} has {len(row)} "
        f"fields, the header {len(header)}"
    )


class _Rows:
    """Rows of the text that have fields, as pandas counts them."""

    def __init__(self, text: str) -> None:
        # Line by line: most of the time, only the first ones are looked at.
        self._reader: Any = csv.reader(line[0] for line in _LINE.finditer(text))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[str]:
        try:
            for row in self._reader:
                if row and not (len(row) == 1 and not row[0].strip()):
                    return list(row)
        except csv.Error:  # a field too long for this module: pandas has read it
            pass
        raise StopIteration

    @property
    def line(self) -> int:
        """The number of the line, from 1, in which the last row ended."""
        return int(self._reader.line_num)
