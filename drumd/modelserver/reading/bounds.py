"""What few bytes may not become: a table that fills the memory."""

from collections.abc import Iterable

from drumd.modelserver.errors import RequestError

FREE_CELLS = 1_000_000
"""Cells that any table may have, however few its bytes are."""
TEXT_CELLS_PER_BYTE = 4
"""More than text comes to unless its rows lack nearly all of their columns."""
_CELLS_PER_BYTE = 64
"""Formats that pack (bits, runs, compression) are meant to; a bomb comes to far more than this."""
_BYTES_PER_CELL = 8
_FREE_ROWS = 10_000
_ROWS_PER_BYTE = 8


def bound_cells(rows: int, columns: int, size: int, per_byte: int = _CELLS_PER_BYTE) -> None:
    """Refuse a table that is out of all proportion to the `size` of its body, in bytes."""
    if rows * columns > FREE_CELLS + per_byte * size:
        raise RequestError(
            f"cannot read the data: {size} bytes would become {rows} rows of {columns} columns, "
            "nearly all of them empty; send each row with all of its columns, or fewer rows at once"
        )


def bound_size(claimed: int, size: int) -> None:
    """Refuse compressed data, of `size` bytes, that claim to become far too many."""
    if claimed > FREE_CELLS * _BYTES_PER_CELL + _CELLS_PER_BYTE * size:
        raise RequestError(
            f"cannot read the data: {size} bytes would become {claimed}; send them uncompressed"
        )


def bound_rows(rows: int, size: int) -> None:
    """Refuse a sparse matrix with far more rows than its body, of `size` bytes, can fill."""
    if rows > _FREE_ROWS + _ROWS_PER_BYTE * size:
        raise RequestError(
            f"cannot read the data: {size} bytes claim to be {rows} rows, nearly all of them "
            "empty; send fewer rows at a time"
        )


def refuse_duplicates(names: Iterable[str]) -> None:
    """Refuse columns of the same name: a model could not tell which is meant."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise RequestError(f"cannot read the data: the column {name!r} is there twice")
        seen.add(name)
