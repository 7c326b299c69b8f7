"""Reading comma-separated values with a header."""

import csv
import io
import re
from typing import Any, Self

import pandas as pd

from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload
from drumd.modelserver.reading.bounds import (
    FREE_CELLS,
    TEXT_CELLS_PER_BYTE,
    bound_cells,
    refuse_duplicates,
)
from drumd.modelserver.reading.mediatype import MediaType, codec_of, decode
from drumd.modelserver.shown import other_separator

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
    is_complete = _checked(text)
    frame = _parse(payload.data if codec_of(media_type.charset) == "utf-8" else text)
    if not len(frame):
        raise RequestError(
            "cannot read the data as CSV: there is a header but no row; "
            "send the names of the columns in the first line, and a row in each of the next"
        )
    if not is_complete and frame[frame.columns[-1]].hasnans:
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


def _checked(text: str) -> bool:
    """Refuse what pandas takes minutes or gigabytes for; return whether all rows are complete.

    It renames columns of one name, each by comparing it with all of them; takes what a row has too
    much for names of the rows; and fills all that is missing in short ones.
    """
    rows = _Rows(text)
    header, first = next(rows, []), next(rows, [])
    if rows.is_lost and not header:
        raise RequestError("cannot read the data as CSV: the name of a column is too long")
    refuse_duplicates(name for name in header if name)
    if len(first) > len(header):
        raise _unequal(rows, first, header)
    lines = max(text.count("\n"), text.count("\r")) + 1
    bound_cells(lines, len(header), len(text))
    # Each field of a complete row takes a byte at least: its comma, or the end of the line. But
    # texts of many lines have more lines than rows.
    if lines * len(header) <= max(TEXT_CELLS_PER_BYTE * len(text), FREE_CELLS):
        return False
    if not _refuse_short_rows(text):
        raise RequestError(
            "cannot read the data as CSV: it has so many short lines, and so long a field, that "
            "its rows may not be complete; send fewer rows at once"
        )
    return True


def _refuse_short_rows(text: str) -> bool:
    """Return whether all rows could be looked at."""
    rows = _Rows(text)
    header = next(rows, [])
    for row in rows:
        if len(row) < len(header):
            raise _unequal(rows, row, header)
    return not rows.is_lost


def _unequal(rows: "_Rows", row: list[str], header: list[str]) -> RequestError:
    return RequestError(
        f"cannot read the data as CSV: the row that ends in line {rows.line} has {len(row)} "
        f"fields, the header {len(header)}{other_separator(header)}"
    )


class _Rows:
    """Rows of the text that have fields, as pandas counts them."""

    def __init__(self, text: str) -> None:
        # Line by line: most of the time, only the first ones are looked at.
        self._reader: Any = csv.reader(line[0] for line in _LINE.finditer(text))
        self.is_lost = False
        """Whether a field was too long for the reader; pandas reads on."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[str]:
        try:
            for row in self._reader:
                if row and not (len(row) == 1 and not row[0].strip()):
                    return list(row)
        except csv.Error:
            self.is_lost = True
        raise StopIteration

    @property
    def line(self) -> int:
        """The number of the line, from 1, in which the last row ended."""
        return int(self._reader.line_num)
