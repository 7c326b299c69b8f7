"""What the terminal can do: size, colours, lines that are written over."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import TextIO

RESET = "\x1b[0m"
BOLD = "\x1b[1m"
DIM = "\x1b[2m"
RED = "\x1b[31m"
GREEN = "\x1b[32m"
YELLOW = "\x1b[33m"

_DEFAULT_SIZE = (80, 24)
_CODE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A stream for people; pipes and files have no colours and no size."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self.interactive = stream.isatty()
        self.colours = (
            self.interactive and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        )
        self.unicode = "utf" in (stream.encoding or "").lower()
        self._columns = environ.get("COLUMNS", "")
        self._shown = 0
        """Lines below which the next ones are written over them."""

    @property
    def width(self) -> int | None:
        """Columns; None where lines may have any length."""
        if not self.interactive:
            return None
        if self._columns.isdigit() and int(self._columns) > 0:
            return int(self._columns)
        return self._size()[0]

    def paint(self, text: str, *colours: str) -> str:
        """Return `text` coloured, where there are colours."""
        return f"{''.join(colours)}{text}{RESET}" if self.colours and any(colours) else text

    def line(self, text: str) -> None:
        """Write a line that stays."""
        self.clear()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def show(self, lines: Sequence[str]) -> None:
        """Show how far things are, in lines that are written over; elsewhere in new ones."""
        if not self.interactive:
            for text in lines:
                self.line(text)
            return
        columns, rows = self.width or _DEFAULT_SIZE[0], self._size()[1]
        room = max(1, rows - 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… and {len(lines) - room + 1} more"]
        # A line that wraps could not be written over.
        text = "\n".join(_cut(line, columns - 1) for line in lines)
        self._stream.write(f"{self._back()}{text}")
        self._stream.flush()
        self._shown = len(lines)

    def clear(self) -> None:
        """Take the lines that are written over away."""
        if self._shown:
            self._stream.write(self._back())
            self._stream.flush()
            self._shown = 0

    def _back(self) -> str:
        """Return what clears the lines shown and goes to where they began."""
        up = f"\x1b[{self._shown - 1}A" if self._shown > 1 else ""
        return f"\r{up}\x1b[J"

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except OSError:
            return _DEFAULT_SIZE
        return size.columns or _DEFAULT_SIZE[0], size.lines or _DEFAULT_SIZE[1]


def _cut(text: str, columns: int) -> str:
    """Return `text` cut to so many columns; colours take none."""
    room, kept, at = columns, [], 0
    for code in _CODE.finditer(text):
        piece = text[at : code.start()][:room]
        room -= len(piece)
        kept += [piece, code[0]]
        at = code.end()
    return "".join([*kept, text[at:][:room]])
