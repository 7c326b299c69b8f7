"""Input files, cut into chunks that are what a client could have sent."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from drumd.modelserver.batch.columnar import arrow_pieces, matrix_pieces
from drumd.modelserver.batch.errors import BatchError, BatchUsageError
from drumd.modelserver.batch.pieces import Piece
from drumd.modelserver.batch.textpieces import csv_pieces, json_pieces, lines_pieces
from drumd.modelserver.payload import Payload
from drumd.modelserver.reading import ARROW_STREAM, CSV, JSON, MATRIX_MARKET

STREAM = "-"
"""The name of standard input and output; what goes through them is CSV."""

ARROW_SUFFIXES = (".arrow", ".feather", ".ipc")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of an input."""

    first: int
    """The number of its first row, from 1."""
    rows: int | None
    """None where only the model knows."""
    payload: Payload
    share: float | None
    """What part of the input has been read with this chunk, 0 to 1; None where it has no size."""

    @property
    def where(self) -> str:
        """Return its rows, for people."""
        if self.rows is None:
            return "the file"
        if self.rows <= 1:
            return f"row {self.first}"
        return f"rows {self.first} to {self.first + self.rows - 1}"


@dataclass(frozen=True, slots=True)
class Input:
    """A file to be scored."""

    path: Path | None
    """Absolute; None for standard input."""
    columns: Path | None = None
    """Names of the columns of sparse data; by default the file beside it, with .colnames."""

    @property
    def name(self) -> str:
        """Return how it is called in messages."""
        return "standard input" if self.path is None else str(self.path)

    @property
    def suffix(self) -> str:
        """Return the suffix that says what is in it."""
        return ".csv" if self.path is None else self.path.suffix.lower()

    def check(self) -> None:
        """Raise `BatchUsageError` when there is no such file, or none that could be read."""
        if self.columns is not None and self.suffix != ".mtx":
            raise BatchUsageError(
                f"cannot use --columns with {self.name}: it names the columns of a .mtx file"
            )
        for path in filter(None, (self.path, self.columns)):
            if path.is_dir():
                raise BatchUsageError(f"cannot read {path}: it is a directory")
            try:
                # A pipe may be opened only once, and only by the one who reads it.
                if path.is_file() or not path.exists():
                    path.open("rb").close()
            except OSError as error:
                raise BatchUsageError(f"cannot read {path}: {error.strerror}") from None

    def whole(self) -> Payload:
        """Return all of it at once, as a client would send it."""
        suffix = self.suffix
        data = _stdin().read() if self.path is None else self.path.read_bytes()
        columns = self._column_names()
        return Payload(
            data,
            _TYPES.get(suffix, "application/octet-stream"),
            columns.read_bytes() if columns else None,
        )

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Yield chunks of so many rows, in order, and one at least; read no more than is needed.

        JSON and Matrix Market cannot be read in parts. Raise `BatchError` for a file that cannot
        be cut into rows.
        """
        first = 1
        try:
            for piece in self._pieces(rows):
                yield Chunk(first, piece.rows, piece.payload, piece.share)
                first += piece.rows
        except OSError as error:
            raise BatchError(f"cannot read {self.name}: {error.strerror or error}") from error
        except BatchError as error:
            where = f" after row {first - 1}" if first > 1 else ""
            raise BatchError(f"cannot read {self.name}{where}: {error}") from error

    def _pieces(self, rows: int) -> Iterator[Piece]:
        if self.path is None:
            yield from csv_pieces(_stdin(), rows)
            return
        if self.suffix == ".mtx":
            yield from matrix_pieces(self.path, self._column_names(), rows)
        elif self.suffix in ARROW_SUFFIXES:
            yield from arrow_pieces(self.path, rows)
        else:
            with self.path.open("rb") as stream:
                yield from _TEXTS[self.suffix](stream, rows)

    def _column_names(self) -> Path | None:
        if self.path is None or self.suffix != ".mtx":
            return None
        beside = self.path.with_suffix(".colnames")
        return self.columns or (beside if beside.exists() else None)


def known_suffixes() -> list[str]:
    """Return the suffixes of files that can be cut into rows."""
    return sorted([*_TEXTS, *ARROW_SUFFIXES, ".mtx"])


def _stdin() -> BinaryIO:
    return open(0, "rb", closefd=False)


_TEXTS: dict[str, Callable[[BinaryIO, int], Iterator[Piece]]] = {
    ".csv": csv_pieces,
    ".json": json_pieces,
    ".jsonl": lines_pieces,
    ".ndjson": lines_pieces,
}
_TYPES = {
    ".csv": CSV,
    ".json": JSON,
    ".mtx": MATRIX_MARKET,
    ".txt": "text/plain; charset=utf-8",
    **dict.fromkeys(ARROW_SUFFIXES, ARROW_STREAM),
}
"""What a client would call a file that is sent whole; others are bytes."""
