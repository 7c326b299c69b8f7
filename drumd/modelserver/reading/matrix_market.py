"""Reading sparse data in the Matrix Market exchange format (math.nist.gov/MatrixMarket)."""

import io
from typing import Any

import pandas as pd
import scipy.io
import scipy.sparse

from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload
from drumd.modelserver.reading.bounds import bound_cells, bound_rows, refuse_duplicates
from drumd.modelserver.reading.mediatype import MediaType, decode

_BANNER = "%%matrixmarket"
_BANNER_WORDS = 5
_ARRAY_SIZES = 2
_COORDINATE_SIZES = 3
_FIELDS = ("real", "integer", "pattern", "unsigned-integer", "double")
_MAX_COLUMNS = 2**31 - 1
_EXPECTED = "begin with %%MatrixMarket matrix coordinate real general, then rows columns entries"


def read(payload: Payload, media_type: MediaType) -> Any:
    """Return a CSR matrix, or with names for its columns a DataFrame of sparse columns."""
    del media_type  # the format is ASCII
    rows, columns = _size(payload.data)
    names = None if payload.columns is None else _names(payload.columns, columns)
    try:
        matrix = scipy.sparse.csr_matrix(scipy.io.mmread(io.BytesIO(payload.data)))
    # What scipy's reader, which is C++, makes of lines that it cannot read.
    except (ValueError, TypeError, OverflowError, IndexError, RuntimeError, MemoryError) as error:
        told = str(error) or type(error).__name__
        raise RequestError(f"cannot read the data as Matrix Market: {told}") from None
    if matrix.shape != (rows, columns):
        raise RequestError(
            f"cannot read the data as Matrix Market: it claims {rows} rows and {columns} columns, "
            f"but has {matrix.shape[0]} and {matrix.shape[1]}"
        )
    if names is None:
        return matrix
    return pd.DataFrame.sparse.from_spmatrix(matrix, columns=names)  # type: ignore[attr-defined]  # the stubs lack it


def _size(data: bytes) -> tuple[int, int]:
    """Return rows and columns as the header claims them, if they are in proportion to the data."""
    stream = io.BytesIO(data)
    banner = stream.readline(200).decode("ascii", "replace").lower().split()
    if len(banner) != _BANNER_WORDS or banner[0] != _BANNER:
        raise _unreadable("it has no header", _EXPECTED)
    _, _, layout, field, _ = banner
    if field not in _FIELDS:
        raise _unreadable(f"its entries are {field!r}", f"send {', '.join(_FIELDS)}")
    numbers = _numbers(stream)
    if layout == "array" and len(numbers) == _ARRAY_SIZES:
        rows, columns = numbers
        bound_cells(rows, columns, len(data) // 64)
    elif layout == "coordinate" and len(numbers) == _COORDINATE_SIZES:
        rows, columns, entries = numbers
        if entries > len(data):
            raise _unreadable(f"it claims {entries} entries in {len(data)} bytes", "send them all")
    else:
        raise _unreadable("its line of sizes does not fit its header", _EXPECTED)
    bound_rows(rows, len(data))
    if not rows or not 0 < columns <= _MAX_COLUMNS:
        raise _unreadable(f"it has {rows} rows and {columns} columns", "send at least one of each")
    return rows, columns


def _numbers(stream: io.BytesIO) -> list[int]:
    for line in stream:
        if line.strip() and not line.startswith(b"%"):
            words = line[:200].split()
            if all(word.isdigit() for word in words):
                return [int(word) for word in words]
            break
    return []


def _names(data: bytes, columns: int) -> list[str]:
    names = [name for line in decode(data).splitlines() if (name := line.strip())]
    if len(names) != columns:
        raise RequestError(
            f"cannot read the data: X.colnames names {len(names)} columns, X has {columns}; "
            "write one name a line"
        )
    refuse_duplicates(names)
    return names


def _unreadable(what: str, advice: str) -> RequestError:
    return RequestError(f"cannot read the data as Matrix Market: {what}; {advice}")
