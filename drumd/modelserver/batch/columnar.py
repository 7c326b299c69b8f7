"""Pieces of Arrow and Matrix Market files."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drumd.modelserver.batch.errors import BatchError
from drumd.modelserver.batch.pieces import Piece
from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload
from drumd.modelserver.reading import ARROW_STREAM, MATRIX_MARKET, read

_FILE_MAGIC = b"ARROW1"
"""What an Arrow file begins with, and a stream does not (Arrow columnar format, IPC)."""


def arrow_pieces(path: Path, rows: int) -> Iterator[Piece]:
    """Yield pieces of an Arrow file or stream, read batch by batch."""
    import pyarrow as pa  # noqa: PLC0415 - only Arrow files need it

    try:
        with path.open("rb") as file:
            is_file = file.read(len(_FILE_MAGIC)) == _FILE_MAGIC
        with pa.memory_map(str(path)) as source:
            size = source.size()
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            total = reader.num_record_batches if is_file else 0
            kept: list[Any] = []
            found = 0
            pieces = 0
            for number, batch in enumerate(_batches(reader, total), 1):
                share = number / total if is_file else source.tell() / size
                for part in _parts(batch, rows, found):
                    kept.append(part)
                    found = (found + len(part)) % rows
                    if not found:
                        yield _arrow_piece(reader.schema, kept, share)
                        pieces += 1
                        kept = []
            if kept or not pieces:
                yield _arrow_piece(reader.schema, kept, 1.0)
    except pa.ArrowException as error:
        raise BatchError(f"it is no Arrow file or stream: {error}") from error


def _batches(reader: Any, total: int) -> Iterator[Any]:
    if total:
        yield from (reader.get_batch(number) for number in range(total))
    elif not hasattr(reader, "get_batch"):
        yield from reader


def _parts(batch: Any, rows: int, found: int) -> Iterator[Any]:
    """Cut a batch: first what is missing to `rows`, then as often as it goes."""
    begin, end = 0, rows - found
    while begin < len(batch):
        yield batch.slice(begin, end - begin)
        begin, end = end, end + rows


def _arrow_piece(schema: Any, batches: list[Any], share: float) -> Piece:
    import pyarrow as pa  # noqa: PLC0415 - as above

    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return Piece(sum(map(len, batches)), Payload(buffer.getvalue(), ARROW_STREAM), share)


def matrix_pieces(path: Path, columns: Path | None, rows: int) -> Iterator[Piece]:
    """Yield pieces of a Matrix Market file, which is read as a whole: its order is anyone's."""
    from scipy.io import mmwrite  # noqa: PLC0415 - only Matrix Market files need it

    data = path.read_bytes()
    names = columns.read_bytes() if columns else None
    try:
        matrix = read(Payload(data, MATRIX_MARKET))
    except RequestError:
        # What is wrong with it is said by whom reads it again.
        yield Piece(0, Payload(data, MATRIX_MARKET, names), 1.0)
        return
    total = matrix.shape[0]
    if total <= rows:
        yield Piece(total, Payload(data, MATRIX_MARKET, names), 1.0)
        return
    del data
    for begin in range(0, total, rows):
        part = matrix[begin : begin + rows]
        buffer = io.BytesIO()
        mmwrite(buffer, part)
        share = (begin + part.shape[0]) / total
        yield Piece(part.shape[0], Payload(buffer.getvalue(), MATRIX_MARKET, names), share)
