"""The file that takes the results: there as a whole, or not at all."""

import errno
import os
import stat
import sys
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import BinaryIO, Self

from drumd.modelserver.batch.errors import BatchError, BatchUsageError


class ResultFile:
    """A file that is written beside its place, and takes that place when all of it is written.

    What is no file (a terminal, a pipe, /dev/null) is written directly. `path` is absolute; None is
    the stream `standard`, which is left open.
    """

    def __init__(self, path: Path | None, standard: BinaryIO | None = None) -> None:
        self.path = path
        # A link stays one, and leads to the new file.
        self._place = path and Path(os.path.realpath(path))
        self._direct = self._place is None or (
            self._place.exists() and not self._place.is_file() and not self._place.is_dir()
        )
        self._beside: Path | None = None
        self.stream = self._open(standard)

    @property
    def name(self) -> str:
        """Return how it is called in messages."""
        return "standard output" if self.path is None else str(self.path)

    @property
    def suffix(self) -> str:
        """Return the suffix that says what is written; of a stream it is CSV."""
        return ".csv" if self.path is None else self.path.suffix.lower()

    def _open(self, standard: BinaryIO | None) -> BinaryIO:
        if self._place is None:
            return standard or sys.stdout.buffer
        try:
            if self._direct:
                return self._place.open("wb")
            if self._place.is_dir():
                raise BatchUsageError(f"cannot write {self.name}: it is a directory; name a file")
            mode = self._mode_of_old()
            beside = self._place.with_name(f".{self._place.name}.{token_hex(4)}.tmp")
            stream = beside.open("xb")
            self._beside = beside
            if mode is not None:
                beside.chmod(mode)
        except OSError as error:
            raise BatchUsageError(f"cannot write {self.name}: {error.strerror}") from None
        return stream

    def _mode_of_old(self) -> int | None:
        """Return the mode of the file that is to be replaced; raise `OSError` if none may."""
        if self._place is None or not self._place.exists():
            return None
        if not os.access(self._place, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return stat.S_IMODE(self._place.stat().st_mode)

    def write(self, data: bytes) -> None:
        """Write; raise `BatchError` when there is no room."""
        try:
            self.stream.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._beside is not None:
                self._beside.unlink(missing_ok=True)

    def _finish(self) -> None:
        try:
            self.stream.flush()
            if self._beside is not None and self._place is not None:
                # Else a power cut could leave the name with nothing behind it.
                os.fsync(self.stream.fileno())
                self.stream.close()
                self._beside.rename(self._place)
                self._beside = None
            elif self._place is not None:
                self.stream.close()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> BatchError:
        return BatchError(f"cannot write {self.name}: {error.strerror or error}")
