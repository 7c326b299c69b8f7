"""Reading the names of a classifier's classes out of an ONNX file.

onnxruntime does not tell them, and without them the columns of the probabilities have no names. The
numbers of the fields are those of onnx.proto (github.com/onnx/onnx), the encoding is protobuf's
(protobuf.dev/programming-guides/encoding).
"""

import struct
from collections.abc import Iterator

_GRAPH, _NODE, _ATTRIBUTE = 7, 1, 5
_NAME, _INTS, _STRINGS = 1, 8, 9
_INITIALIZER = 5
_DIMS, _DATA_TYPE, _INT32_DATA, _STRING_DATA, _INT64_DATA, _TENSOR_NAME, _RAW = 1, 2, 5, 6, 7, 8, 9
_INT32, _INT64, _STRING = 6, 7, 8
_MOST = 10_000
"""Classes that a constant may have; those of weights are more."""
_ATTRIBUTES = (b"classlabels_strings", b"classlabels_int64s", b"classlabels_ints")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def class_labels(model: memoryview) -> Iterator[list[str]]:
    """Yield the classes of each classifier in a model's file; none if it cannot be read."""
    try:
        for attribute in _below(model, _GRAPH, _NODE, _ATTRIBUTE):
            yield from _labels(attribute)
    except (IndexError, ValueError):
        return


def constants(model: memoryview) -> Iterator[tuple[str, list[str]]]:
    """Yield the names and the values of lists of texts or whole numbers in a model's file.

    One of them has the classes where the graph chooses by itself, as for neighbors and networks.
    """
    try:
        for tensor in _below(model, _GRAPH, _INITIALIZER):
            yield from _constant(list(_fields(tensor)))
    except (IndexError, ValueError, struct.error):
        return


def _constant(fields: list[tuple[int, memoryview | int]]) -> Iterator[tuple[str, list[str]]]:
    dims = [each for number, value in fields if number == _DIMS for each in _integers(value)]
    kind = next((value for number, value in fields if number == _DATA_TYPE), None)
    if len(dims) != 1 or not 0 < dims[0] <= _MOST or kind not in (_INT32, _INT64, _STRING):
        return
    name = ""
    values: list[str] = []
    for number, value in fields:
        if number == _TENSOR_NAME and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == _STRING_DATA and isinstance(value, memoryview):
            values.append(bytes(value).decode())
        elif number in (_INT32_DATA, _INT64_DATA):
            values += map(str, _integers(value))
        elif number == _RAW and isinstance(value, memoryview):
            values += map(str, struct.unpack(f"<{dims[0]}{'q' if kind == _INT64 else 'i'}", value))
    if len(values) == dims[0]:
        yield name, values


def _labels(attribute: memoryview) -> Iterator[list[str]]:
    name = b""
    labels: list[str] = []
    for number, value in _fields(attribute):
        if number == _NAME and isinstance(value, memoryview):
            name = bytes(value)
        elif number == _STRINGS and isinstance(value, memoryview):
            labels.append(bytes(value).decode())
        elif number == _INTS:
            labels += map(str, _integers(value))
    if name in _ATTRIBUTES and labels:
        yield labels


def _below(message: memoryview, *path: int) -> Iterator[memoryview]:
    """Yield the messages that are found by following fields with these numbers."""
    if not path:
        yield message
        return
    for number, value in _fields(message):
        if number == path[0] and isinstance(value, memoryview):
            yield from _below(value, *path[1:])


def _integers(value: memoryview | int) -> Iterator[int]:
    """Yield the integers of a repeated field, packed or one by one."""
    if isinstance(value, int):
        yield _signed(value)
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield _signed(number)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if kind == _BYTES:
            size, at = _varint(message, at)
        if size is None:
            raise ValueError("groups are not used by ONNX")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return number, at
        shift += 7
