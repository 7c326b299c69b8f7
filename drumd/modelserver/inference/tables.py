"""Writing what a transform returned: CSV, Matrix Market if it is sparse, Arrow for Arrow."""

import io
from typing import Any

import pandas as pd

from drumd.modelserver import reading
from drumd.modelserver.errors import HookError
from drumd.modelserver.inference.running import cannot
from drumd.modelserver.payload import Table
from drumd.modelserver.shown import kind_of

_HOOK = "transform"


def written(returned: Any, rows: int | None, content_type: str) -> Table:
    """Return the bytes of a table with `rows` rows (None: any number); raise `HookError`."""
    if hasattr(returned, "to_pandas"):
        returned = returned.to_pandas()
    elif isinstance(returned, pd.Series):
        returned = returned.to_frame()
    elif isinstance(returned, pd.DataFrame) and _is_sparse(returned):
        # As text it would be all its zeros: a few bytes of a matrix with names take gigabytes.
        returned = returned.sparse.to_coo()  # type: ignore[attr-defined]  # the stubs lack it
    is_sparse = hasattr(returned, "tocoo")
    if not is_sparse and not isinstance(returned, pd.DataFrame):
        returned = _framed(returned)
    if rows is not None and returned.shape[0] != rows:
        raise HookError(
            _HOOK,
            f"{cannot(_HOOK)} returned {returned.shape[0]} rows for {rows}; expected {rows}",
        )
    if is_sparse:
        return _matrix_market(returned)
    if reading.is_arrow(content_type):
        return _arrow(returned)
    return Table(returned.to_csv(index=False).encode(), f"{reading.CSV}; charset=utf-8")


def _is_sparse(frame: pd.DataFrame) -> bool:
    """Return whether all columns are of numbers that are nearly all 0."""
    return len(frame.columns) > 0 and all(
        isinstance(dtype, pd.SparseDtype) and dtype.kind in "biuf" and dtype.fill_value == 0
        for dtype in frame.dtypes
    )


def _framed(returned: Any) -> pd.DataFrame:
    shape = getattr(returned, "shape", ())
    if isinstance(returned, list) or len(shape) in (1, 2):
        try:
            return pd.DataFrame(returned)
        except (ValueError, TypeError):
            pass
    raise HookError(
        _HOOK,
        f"{cannot(_HOOK)} returned {kind_of(returned)}; "
        "expected a DataFrame, an array or a sparse matrix",
    )


def _matrix_market(matrix: Any) -> Table:
    import scipy.io  # noqa: PLC0415 - only sparse models need it

    stream = io.BytesIO()
    scipy.io.mmwrite(stream, matrix)
    return Table(stream.getvalue(), reading.MATRIX_MARKET)


def _arrow(frame: pd.DataFrame) -> Table:
    import pyarrow as pa  # noqa: PLC0415 - only clients with Arrow need it

    try:
        table = pa.Table.from_pandas(frame.rename(columns=str), preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise HookError(
            _HOOK, f"{cannot(_HOOK)} returned columns that Arrow cannot hold: {error}"
        ) from error
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Table(sink.getvalue().to_pybytes(), reading.ARROW_STREAM)
