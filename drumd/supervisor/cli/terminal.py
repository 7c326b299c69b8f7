"""What the terminal can do: width, colours, one line that is written over."""

import os
from collections.abc import Mapping
from typing import TextIO

RESET = "\x1b[0m"
BOLD = "\x1b[1m"
DIM = "\x1b[2m"
RED = "\x1b[31m"
GREEN = "\x1b[32m"
YELLOW = "\x1b[33m"

_BAR = 20
_DEFAULT_WIDTH = 80


class Terminal:
    """A stream for people; pipes and files have no colours and no width."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self.interactive = stream.isatty()
        self.colours = (
            self.interactive and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        )
        self._columns = environ.get("COLUMNS", "")
        self._overwriting = False

    @property
    def width(self) -> int | None:
        """Columns; None where lines may have any length."""
        if not self.interactive:
            return None
        if self._columns.isdigit() and int(self._columns) > 0:
            return int(self._columns)
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or _DEFAULT_WIDTH
        except OSError:
            return _DEFAULT_WIDTH

    def paint(self, text: str, *colours: str) -> str:
        """Return `text` coloured, where there are colours."""
        return f"{''.join(colours)}{text}{RESET}" if self.colours and any(colours) else text

    def line(self, text: str) -> None:
        """Write a line that stays."""
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def progress(self, text: str) -> None:
        """Show how far something is: in one line that is written over, or a new one each time."""
        if not self.interactive:
            self.line(text)
            return
        # A line that wraps could not be written over.
        text = text[: (self.width or _DEFAULT_WIDTH) - 1]
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()
        self._overwriting = True

    def clear(self) -> None:
        """Take the line that is written over away."""
        if self._overwriting:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._overwriting = False

    def bar(self, done: int, total: int) -> str:
        """Return a bar that shows `done` of `total`; nothing where it could not be written over."""
        if not self.interactive or total <= 0:
            return ""
        full, empty = ("█", "░") if "utf" in (self._stream.encoding or "").lower() else ("#", ".")
        cells = min(_BAR, _BAR * done // total)
        return f"[{full * cells}{empty * (_BAR - cells)}] "
