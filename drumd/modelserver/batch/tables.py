"""Transformed tables, put together again from those of the chunks."""

import io
from collections.abc import Callable
from typing import Any, Protocol

from drumd.modelserver.batch.errors import BatchError, BatchUsageError
from drumd.modelserver.batch.records import records
from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload, Table
from drumd.modelserver.reading import ARROW_STREAM, CSV, MATRIX_MARKET, read


class Joined(Protocol):
    """One table, of the tables that are added."""

    def add(self, data: bytes) -> bytes:
        """Return what is to be written for one more table."""

    def end(self) -> bytes:
        """Return what is to be written after the last one."""


class TableWriter:
    """Writes tables of one format, which the first one settles."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._kind = ""
        self._joined: Joined | None = None

    def add(self, table: Table) -> bytes:
        """Return what is to be written; raise when the format is not the output's."""
        kind = table.content_type.partition(";")[0].strip().lower()
        if self._joined is None:
            self._kind = kind
            self._joined = self._joined_of(kind)
        if kind != self._kind:
            raise BatchError(f"transform returned {kind}, and for earlier rows {self._kind}")
        return self._joined.add(table.data)

    def end(self) -> bytes:
        """Return what is to be written after the last table."""
        return self._joined.end() if self._joined else b""

    def _joined_of(self, kind: str) -> Joined:
        suffixes, joined = _KINDS.get(kind, ((), None))
        if joined is None:
            raise BatchError(f"cannot join tables of {kind}")
        if self._suffix not in suffixes:
            raise BatchUsageError(
                f"cannot write {kind}, which transform returned, into a file with the "
                f"suffix {self._suffix!r}; let --output end with {' or '.join(suffixes)}"
            )
        return joined()


class _Csv:
    """CSV with the header of the first table, which must be that of all."""

    def __init__(self) -> None:
        self._header: bytes | None = None

    def add(self, data: bytes) -> bytes:
        """Return the table; without its header, unless it is the first."""
        header = next(records(io.BytesIO(data)), b"")
        if self._header is None:
            self._header = header
            return data
        if header != self._header:
            raise BatchError(
                f"transform returned the columns {_text(header)}, and for earlier rows "
                f"{_text(self._header)}; return the same columns for any rows"
            )
        return data[data.index(header) + len(header) :]

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class _Arrow:
    """An Arrow file of all batches."""

    def __init__(self) -> None:
        self._sink = _Sink()
        self._writer: Any = None

    def add(self, data: bytes) -> bytes:
        """Return the batches."""
        import pyarrow as pa  # noqa: PLC0415 - only Arrow tables need it

        with pa.ipc.open_stream(data) as reader:
            if self._writer is None:
                self._writer = pa.ipc.new_file(self._sink, reader.schema)
                self._schema = reader.schema
            if not reader.schema.equals(self._schema):
                raise BatchError(
                    f"transform returned the columns {_columns(reader.schema)}, and for earlier "
                    f"rows {_columns(self._schema)}; return the same columns for any rows"
                )
            for batch in reader:
                self._writer.write_batch(batch)
        return self._sink.take()

    def end(self) -> bytes:
        """Return where the batches are, which is at the end of such a file."""
        self._writer.close()
        return self._sink.take()


class _Matrix:
    """Matrix Market: its head says how many rows there are, so it is written last."""

    def __init__(self) -> None:
        self._tables: list[bytes] = []

    def add(self, data: bytes) -> bytes:
        """Keep the table."""
        self._tables.append(data)
        return b""

    def end(self) -> bytes:
        """Return all tables as one."""
        if len(self._tables) == 1:
            return self._tables[0]
        from scipy.io import mmwrite  # noqa: PLC0415 - only Matrix Market needs it
        from scipy.sparse import vstack  # noqa: PLC0415

        try:
            matrix = vstack([read(Payload(data, MATRIX_MARKET)) for data in self._tables])
        except (RequestError, ValueError) as error:
            raise BatchError(f"transform's tables do not fit together: {error}") from error
        buffer = io.BytesIO()
        mmwrite(buffer, matrix)
        return buffer.getvalue()


class _Sink:
    """A file as pyarrow writes one; what was written is taken out piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def write(self, data: Any) -> int:
        """Keep a copy: pyarrow's buffer is gone afterwards."""
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def tell(self) -> int:
        """Return how much was written from the beginning on."""
        return self._at

    def flush(self) -> None:
        """Do nothing: all of it is here."""

    def close(self) -> None:
        """Do nothing: what is left is still taken."""

    def take(self) -> bytes:
        """Return what was written since the last time."""
        data = b"".join(self._parts)
        self._parts = []
        return data


def _text(header: bytes) -> str:
    return header.decode(errors="replace").strip()


def _columns(schema: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


_KINDS: dict[str, tuple[tuple[str, ...], Callable[[], Joined]]] = {
    CSV: ((".csv",), _Csv),
    ARROW_STREAM: ((".arrow", ".feather", ".ipc"), _Arrow),
    MATRIX_MARKET: ((".mtx",), _Matrix),
}
"""By the media type of a table: suffixes of files, and what makes one table of several."""
