"""Making plain values, which JSON can tell, of a column of anything."""

import math
from typing import Any

import pandas as pd

_AS_THEY_ARE = (str, bool, int, list, dict)


def plain_column(column: pd.Series) -> list[Any]:
    """Return the values of a column: missing and infinite ones as None, odd ones as text."""
    values: list[Any] = column.tolist()
    if column.dtype.kind in "iub":
        return values
    return [plain(value) for value in values]


def plain(value: Any) -> Any:
    """Return a value that JSON can tell."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a scalar of numpy's
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, _AS_THEY_ARE):
        return value
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
