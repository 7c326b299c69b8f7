"""Pipes: lines from a worker's stdout, stderr and stacks."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from drumd.supervisor.fds import Fd

MAX_LINE = 65_536
"""Bytes of a line; a longer one is passed on in parts."""
PER_WAKE_UP = 262_144
"""Bytes read before other things in the loop get their turn."""
_CHUNK = 65_536
_AT_EXIT = 1 << 21
"""Bytes read at once after an exit: more than a pipe holds."""
_CONTINUATION = range(0x80, 0xC0)
_LONGEST_CHARACTER = 4


@dataclass(frozen=True, slots=True)
class KeptPipe:
    """A pipe over a re-exec; what is unread stays in it."""

    fd: Fd
    rest: str = ""
    """The unfinished line: each character is one byte (ISO 8859-1)."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end; bytes that are no UTF-8 are replaced."""

    text: str
    cut: bool = False
    """True for a part of a longer line that goes on in the next `Line`."""


class LinePipe:
    """Reads a pipe in the loop and passes on its lines; holds less than two lines in memory.

    Never waits, so a writer is stopped only as long as the loop itself is busy.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        on_lines: Callable[[list[Line]], None],
        on_end: Callable[[], None] = lambda: None,
        *,
        rest: str = "",
    ) -> None:
        """Take over `fd`. `on_end` is called once, after the last lines, when it is closed.

        `rest` is the unfinished line of `KeptPipe`.
        """
        self._loop = loop
        self._fd = fd
        self._on_lines = on_lines
        self._on_end = on_end
        self._rest = bytearray(rest, "latin-1")
        self._linger: asyncio.TimerHandle | None = None
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._read, PER_WAKE_UP)

    def keep(self) -> KeptPipe | None:
        """Return what a new program needs to read on; None when it is closed."""
        return None if self.closed else KeptPipe(Fd(self._fd), self._rest.decode("latin-1"))

    @property
    def closed(self) -> bool:
        """Whether the end was reached, or `close` called."""
        return self._fd < 0

    def drain(self, linger: float = 1.0) -> None:
        """Read what is there; then close at the end, after `linger` seconds at the latest.

        For after the worker's exit: its forked children may hold the other end for ever.
        """
        if not self.closed:
            self._read(_AT_EXIT)
        if not self.closed and self._linger is None:
            self._linger = self._loop.call_later(linger, self.close)

    def close(self) -> None:
        """Pass on the unfinished last line and close."""
        if self.closed:
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        if self._linger is not None:
            self._linger.cancel()
        rest, self._rest = self._rest, bytearray()
        try:
            if rest:
                self._on_lines([_line(rest)])
        finally:
            self._on_end()

    def _read(self, limit: int) -> None:
        lines: list[Line] = []
        ended = False
        while limit > 0:
            try:
                chunk = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            if not chunk:
                ended = True
                break
            limit -= len(chunk)
            self._split(chunk, lines)
        try:
            if lines:
                self._on_lines(lines)
        finally:
            if ended:
                self.close()

    def _split(self, chunk: bytes, lines: list[Line]) -> None:
        *finished, rest = chunk.split(b"\n")
        for part in finished:
            self._rest += part
            self._cut(lines)
            lines.append(_line(self._rest))
            self._rest.clear()
        self._rest += rest
        self._cut(lines)

    def _cut(self, lines: list[Line]) -> None:
        """Pass on parts of a line that is too long, never half a character."""
        while len(self._rest) > MAX_LINE:
            end = MAX_LINE
            while end > MAX_LINE - _LONGEST_CHARACTER and self._rest[end] in _CONTINUATION:
                end -= 1
            lines.append(Line(self._rest[:end].decode(errors="replace"), cut=True))
            del self._rest[:end]


def _line(content: bytearray) -> Line:
    return Line(content.removesuffix(b"\r").decode(errors="replace"))
