"""Reading sparse data in the Matrix Market exchange format (math.nist.gov/MatrixMarket).

Not by scipy.io.mmread: bytes that are cut off in the midst of a number make it crash the process
(scipy 1.17). pandas reads the numbers instead.
"""

import io
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse

from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload
from drumd.modelserver.reading.bounds import bound_cells, bound_rows, refuse_duplicates
from drumd.modelserver.reading.mediatype import MediaType, decode

_BANNER = "%%matrixmarket"
_BANNER_WORDS = 5
_FIELDS = ("real", "integer", "pattern", "unsigned-integer", "double")
_SYMMETRIES = ("general", "symmetric", "skew-symmetric")
_SIZES = {"coordinate": 3, "array": 2}
_MAX_COLUMNS = 2**31 - 1
_MAX_LINE = 1000
_BEYOND = "beyond"
"""What is too much in a line: without a column for it, pandas makes it the names of the rows."""
_EXPECTED = "begin with %%MatrixMarket matrix coordinate real general, then rows columns entries"


def read(payload: Payload, media_type: MediaType) -> Any:
    """Return a CSR matrix, or with names for its columns a DataFrame of sparse columns."""
    del media_type  # the format is ASCII
    stream = io.BytesIO(payload.data)
    header = _Header.read(stream)
    header.check(len(payload.data))
    names = None if payload.columns is None else _names(payload.columns, header.columns)
    try:
        matrix = _coordinates(header, stream) if header.is_sparse else _array(header, stream)
    except (ValueError, OverflowError, MemoryError) as error:
        told = str(error) or type(error).__name__
        raise _unreadable(told, "write each entry as row column value") from None
    if names is None:
        return matrix
    return pd.DataFrame.sparse.from_spmatrix(matrix, columns=names)  # type: ignore[attr-defined]  # the stubs lack it


@dataclass(frozen=True, slots=True)
class _Header:
    """The banner, and the line of sizes."""

    is_sparse: bool
    has_values: bool
    symmetry: str
    rows: int
    columns: int
    entries: int

    @classmethod
    def read(cls, stream: io.BytesIO) -> Self:
        banner = stream.readline(_MAX_LINE).decode("ascii", "replace").lower().split()
        if len(banner) != _BANNER_WORDS or banner[0] != _BANNER or banner[2] not in _SIZES:
            raise _unreadable("it has no header", _EXPECTED)
        _, _, layout, field, symmetry = banner
        if field not in _FIELDS or symmetry not in _SYMMETRIES:
            raise _unreadable(
                f"it is {field} {symmetry}", f"send {', '.join(_FIELDS)}; {', '.join(_SYMMETRIES)}"
            )
        sizes = _sizes(stream)
        if len(sizes) != _SIZES[layout]:
            raise _unreadable("its line of sizes does not fit its header", _EXPECTED)
        rows, columns, *rest = sizes
        if symmetry != "general" and rows != columns:
            raise _unreadable(f"it is {symmetry}, but not square", "send it as general")
        return cls(
            layout == "coordinate",
            field != "pattern",
            symmetry,
            rows,
            columns,
            rest[0] if rest else _cells(rows, columns, symmetry),
        )

    def check(self, size: int) -> None:
        """Refuse a matrix that does not fit into `size` bytes."""
        if not self.rows or not 0 < self.columns <= _MAX_COLUMNS:
            raise _unreadable(
                f"it has {self.rows} rows and {self.columns} columns", "send one of each at least"
            )
        bound_rows(self.rows, size)
        if not self.is_sparse:
            bound_cells(self.rows, self.columns, size)
        if self.entries > size:
            raise _unreadable(f"it claims {self.entries} entries in {size} bytes", "send them all")


def _sizes(stream: io.BytesIO) -> list[int]:
    for line in stream:
        if line.strip() and not line.startswith(b"%"):
            words = line[:_MAX_LINE].split()
            return [int(word) for word in words] if all(map(bytes.isdigit, words)) else []
    return []


def _cells(rows: int, columns: int, symmetry: str) -> int:
    """Return how many values an array has: of a symmetric one, only those below the diagonal."""
    if symmetry == "general":
        return rows * columns
    return rows * (rows + (1 if symmetry == "symmetric" else -1)) // 2


def _coordinates(header: _Header, stream: io.BytesIO) -> Any:
    types: dict[str, Any] = {"row": np.int64, "column": np.int64}
    if header.has_values:
        types["value"] = np.float64
    entries = _columns(stream, types, header.entries)
    rows, columns = entries["row"] - 1, entries["column"] - 1
    values = entries.get("value", np.ones(header.entries))
    for name, found, bound in (("row", rows, header.rows), ("column", columns, header.columns)):
        outside = (found < 0) | (found >= bound)
        if outside.any():
            raise ValueError(f"an entry has the {name} {found[outside][0] + 1} of {bound}")
    if header.symmetry != "general":
        beside = rows != columns
        mirrored = values[beside] if header.symmetry == "symmetric" else -values[beside]
        rows, columns, values = (
            np.concatenate([rows, columns[beside]]),
            np.concatenate([columns, rows[beside]]),
            np.concatenate([values, mirrored]),
        )
    return scipy.sparse.csr_matrix((values, (rows, columns)), (header.rows, header.columns))


def _array(header: _Header, stream: io.BytesIO) -> Any:
    values = _columns(stream, {"value": np.float64}, header.entries)["value"]
    if header.symmetry == "general":
        return scipy.sparse.csr_matrix(values.reshape(header.columns, header.rows).T)
    # Column by column from the diagonal down, or from below it: row by row of the upper half.
    is_symmetric = header.symmetry == "symmetric"
    above = np.triu_indices(header.rows, 0 if is_symmetric else 1)
    matrix = np.zeros((header.rows, header.columns))
    matrix[above] = values if is_symmetric else -values
    matrix.T[above] = values
    return scipy.sparse.csr_matrix(matrix)


def _columns(stream: io.BytesIO, types: dict[str, Any], entries: int) -> dict[str, Any]:
    """Return the numbers in the lines that are left, column by column; raise ValueError."""
    if not entries:
        if stream.read().strip():
            raise ValueError("it claims no entries, but has some")
        return {name: np.zeros(0, kind) for name, kind in types.items()}
    with np.errstate(invalid="ignore"):  # 1e999 for a row's number: pandas refuses it by itself
        frame = pd.read_csv(
            stream,
            sep=r"\s+",
            header=None,
            names=[*types, _BEYOND],
            dtype=types | {_BEYOND: np.float64},
            keep_default_na=False,
            na_values={"value": ["nan", "NaN"], _BEYOND: [""]},
            comment="%",
            low_memory=False,
        )
    if frame[_BEYOND].notna().any():
        raise ValueError(f"its lines have more than {len(types)} numbers")
    if len(frame) != entries:
        raise ValueError(f"it claims {entries} entries, but has {len(frame)}")
    return {name: frame[name].to_numpy() for name in types}


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
