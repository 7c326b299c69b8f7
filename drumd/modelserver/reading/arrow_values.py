"""Telling how much an Arrow column becomes when each of its values stands alone, as Python has it.

Nested, shared and repeated values take few bytes, or none: a struct of nulls, a text that thousands
of rows refer to, a list of a billion nulls.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

_OBJECT = 64
"""Bytes of Python's smallest objects, about."""
_NUMBER = 8
"""Bytes of a number, or of a reference to an object that there is already."""
_VIEWS = ("string_view", "binary_view")
_VIEW_INTEGERS = 4
"""32-bit integers that a view is made of; the first is its length."""


def unfolded_size(columns: Iterable[Any]) -> int:
    """Return bytes that those columns become which are no plain arrays; of others, none."""
    return sum(
        _size(chunk) for column in columns for chunk in column.chunks if _is_folded(chunk.type)
    )


def _is_folded(kind: Any) -> bool:
    # A dictionary is kept as it is, but for what its own values are.
    if pa.types.is_dictionary(kind):
        return _is_folded(kind.value_type)
    return _is_nested(kind) or _is_repeated(kind) or str(kind) in _VIEWS


def _is_nested(kind: Any) -> bool:
    # To the first of pyarrow 15 the second is none.
    return bool(pa.types.is_nested(kind) or pa.types.is_fixed_size_list(kind))


def _is_repeated(kind: Any) -> bool:
    return bool(pa.types.is_run_end_encoded(kind))


def _size(array: Any) -> int:
    """Return about how many bytes the values of `array` have, each by itself."""
    kind, count = array.type, len(array)
    if not count:
        return 0
    if isinstance(kind, pa.BaseExtensionType):
        return _size(array.storage)
    if _is_plain(kind):
        return count * _NUMBER
    if pa.types.is_dictionary(kind) or _is_repeated(kind):
        return count * _largest(array.values if _is_repeated(kind) else array.dictionary)
    return count * _OBJECT + _size_of_content(array)


def _size_of_content(array: Any) -> int:
    kind = array.type
    if pa.types.is_struct(kind) or pa.types.is_union(kind):
        return sum(_size(array.field(index)) for index in range(kind.num_fields))
    if _is_nested(kind):
        return _size_of_lists(array)
    return int(_view_lengths(array).sum()) if str(kind) in _VIEWS else int(array.nbytes)


def _size_of_lists(array: Any) -> int:
    values = array.values
    if "view" not in str(array.type):
        return _size(values)
    items = int(array.sizes.to_numpy().astype(np.int64).sum())
    return items * _largest(values)  # rows may share their items


def _largest(array: Any) -> int:
    """Return no less than the bytes of the largest value of `array`."""
    kind = array.type
    if _is_plain(kind) or not len(array):
        return _NUMBER
    if str(kind) in _VIEWS:
        return _OBJECT + int(_view_lengths(array).max())
    if _is_text(kind):
        return _OBJECT + int(pa.compute.max(pa.compute.binary_length(array)).as_py() or 0)
    return _size(array)


def _is_plain(kind: Any) -> bool:
    return bool(pa.types.is_primitive(kind) or pa.types.is_null(kind))


def _is_text(kind: Any) -> bool:
    types = pa.types
    return any(
        is_one(kind)
        for is_one in (
            types.is_string,
            types.is_large_string,
            types.is_binary,
            types.is_large_binary,
        )
    )


def _view_lengths(array: Any) -> Any:
    views = np.frombuffer(array.buffers()[1], dtype="<i4").reshape(-1, _VIEW_INTEGERS)
    return views[array.offset : array.offset + len(array), 0].astype(np.int64)
