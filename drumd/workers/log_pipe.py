"""Log lines of drumd's own servers, written to a pipe without ever waiting for its reader."""

import contextlib
import logging
import os
import select
import stat
from collections.abc import Callable

ATOMIC_BYTES = 4096
"""PIPE_BUF of Linux, pipe(7): a write up to this size goes in whole or not at all."""


class PipeHandler(logging.Handler):
    """Writes records to `fd`; one that finds the pipe full is dropped and told to `dropped`.

    The fd's flags stay as they are: the app's own prints share its open file description and may
    block. Opening a pipe again by /proc gives a description of its own; where that cannot be
    (no /proc, a socket, a terminal), room is polled for before each write.
    """

    def __init__(self, fd: int, dropped: Callable[[], None]) -> None:
        super().__init__()
        self._dropped = dropped
        self._rest = b""
        self._fd, self._polled = _own_description(fd)

    def emit(self, record: logging.LogRecord) -> None:
        """Format and write one record, or drop it."""
        try:
            data = self.format(record).encode(errors="backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001 - logging's rule: a bad format string ends no request
            self.handleError(record)
            return
        self._put(data)

    def _put(self, data: bytes) -> None:
        # What is left of a longer line goes first, so that lines never run into each other.
        if self._rest:
            self._rest = self._rest[self._written(self._rest) :]
            if self._rest:
                self._dropped()
                return
        written = self._written(data)
        if written:
            self._rest = data[written:]
        elif data:
            self._dropped()

    def _written(self, data: bytes) -> int:
        if self._polled:
            poller = select.poll()
            poller.register(self._fd, select.POLLOUT)
            if not poller.poll(0):
                return 0
            data = data[:ATOMIC_BYTES]
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError:  # the reader is gone, and nobody will ever miss this line
            return len(data)


def _own_description(fd: int) -> tuple[int, bool]:
    """Return an fd for writing to what `fd` is, and whether room must be polled for."""
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{fd}", flags), False
    return fd, True
