"""Telling how much an Arrow stream becomes when it is decompressed, before that is done.

A kilobyte of it may be a gigabyte of zeros, and pyarrow has no bound for that. The layout is that
of Message.fbs (github.com/apache/arrow, format/), in FlatBuffers (flatbuffers.dev/internals).
"""

import struct
from typing import Any

import pyarrow as pa
import pyarrow.ipc

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
# Numbers of fields: of a message, of a dictionary's batch, and of a batch.
_HEADER_TYPE, _HEADER = 1, 2
_DATA = 1
_BUFFERS, _COMPRESSION = 2, 3
_BUFFER_SIZE = 16
_LENGTH_SIZE = 8


def decompressed_size(stream: Any) -> int:
    """Return how many bytes the compressed buffers of an Arrow stream claim to become.

    Raises what pyarrow does, or ValueError.
    """
    size = 0
    reader = pa.ipc.MessageReader.open_stream(stream)
    try:
        for message in reader:
            size += _message_size(memoryview(message.metadata), message.body)
    except struct.error as error:
        raise ValueError(f"a message is damaged: {error}") from None
    return size


def _message_size(metadata: memoryview, body: Any) -> int:
    message = _Table(metadata, _unsigned(metadata, 0))
    header_type = message.place(_HEADER_TYPE)
    kind = metadata[header_type] if header_type else 0
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return 0
    batch = message.table(_HEADER)
    if batch is not None and kind == _DICTIONARY_BATCH:
        batch = batch.table(_DATA)
    if batch is None or body is None or batch.table(_COMPRESSION) is None:
        return 0
    content = memoryview(body)
    return sum(_buffer_size(content, offset, length) for offset, length in batch.pairs(_BUFFERS))


def _buffer_size(body: memoryview, offset: int, length: int) -> int:
    """Return the length that a compressed buffer begins with; -1 is of one that is not."""
    if length < _LENGTH_SIZE or not 0 <= offset <= len(body) - _LENGTH_SIZE:
        return 0  # empty, or for pyarrow to refuse
    return max(0, int(struct.unpack_from("<q", body, offset)[0]))


class _Table:
    """A table of FlatBuffers: where each of its fields is, if it has it."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self._at = at
        self._fields = at - int(struct.unpack_from("<i", data, at)[0])
        if self._fields < 0:
            raise struct.error("a table lies outside of it")
        self._size = int(struct.unpack_from("<H", data, self._fields)[0])

    def place(self, field: int) -> int:
        """Return where a field is; 0 if it is not there."""
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return 0
        offset = int(struct.unpack_from("<H", self._data, self._fields + entry)[0])
        if self._at + offset >= len(self._data):
            raise struct.error("a field lies outside of it")
        return self._at + offset if offset else 0

    def table(self, field: int) -> "_Table | None":
        """Return the table that a field refers to."""
        place = self.place(field)
        return _Table(self._data, place + _unsigned(self._data, place)) if place else None

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """Return the structs of two 64-bit integers in the vector that a field refers to."""
        place = self.place(field)
        if not place:
            return []
        vector = place + _unsigned(self._data, place)
        count = _unsigned(self._data, vector)
        if vector + 4 + count * _BUFFER_SIZE > len(self._data):
            raise struct.error("a vector lies outside of it")
        start = vector + 4
        end = start + count * _BUFFER_SIZE
        return list(struct.iter_unpack("<qq", self._data[start:end]))


def _unsigned(data: memoryview, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])
