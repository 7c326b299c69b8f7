"""Bars: of slots, a cell for each; or of work, a part of which is done."""

from collections.abc import Sequence

from drumd.supervisor.cli.terminal import DIM, GREEN, RED, YELLOW, Terminal

MOST = 40
"""Cells of the longest bar; where there are more slots, a cell stands for several."""
_SHARE_CELLS = 24
"""Cells of a share's bar: with the numbers beside it, it fits 80 columns."""

_ORDER = ("new", "starting", "old", "empty")
_BLOCKS = {"new": "█", "starting": "▒", "old": "░", "empty": "·"}
_LETTERS = {"new": "#", "starting": "+", "old": "-", "empty": "."}
_COLOURS = {"new": GREEN, "starting": YELLOW, "old": DIM, "empty": RED}


def bar(slots: Sequence[str], terminal: Terminal) -> str:
    """Return `[██▒░] `: new workers that serve, starting ones, old ones; `·` where none serves.

    Nothing for a stream that cannot be written over.
    """
    if not terminal.interactive or not slots:
        return ""
    signs = _BLOCKS if terminal.unicode else _LETTERS
    cells = [
        terminal.paint(signs.get(cell, "?"), _COLOURS.get(cell, "")) for cell in _fitting(slots)
    ]
    return f"[{''.join(cells)}] "


def share(done: float, terminal: Terminal) -> str:
    """Return `[███░░░] ` for a part that is done, 0 to 1; nothing as `bar` does."""
    full = round(min(1.0, max(0.0, done)) * _SHARE_CELLS)
    return bar(["new"] * full + ["old"] * (_SHARE_CELLS - full), terminal)


def _fitting(slots: Sequence[str]) -> Sequence[str]:
    """Return at most `MOST` cells: of many slots the shares, sorted by how far they are."""
    if len(slots) <= MOST:
        return slots
    ordered = sorted(slots, key=lambda cell: _ORDER.index(cell) if cell in _ORDER else 0)
    return [ordered[number * len(slots) // MOST] for number in range(MOST)]
