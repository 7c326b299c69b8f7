"""What /proc shows of this process: the command line and environment that it was started with.

A process that was forked shows its template's. Both stand in the memory of the process itself, at
addresses that /proc/self/stat tells (proc_pid_stat(5)), and what is written there is shown; that
is all that a process without privileges can do about it, so the new text must fit into the old.
"""

import ctypes
from typing import NamedTuple

_FIRST_FIELD = 3
"""Number of the field behind the name, which is in parentheses and may hold anything."""


class Area(NamedTuple):
    """Where a text begins and ends: numbers of fields of /proc/self/stat."""

    start: int
    end: int


ARGUMENTS = Area(48, 49)
ENVIRONMENT = Area(50, 51)


def rewrite(area: Area, old: str, new: str, *, filler: str) -> bool:
    """Write `new` over the strings `old` in place, filled up to their length.

    Strings are separated by NUL. Returns False, and changes nothing, when `new` is longer or `old`
    is not there: a program that sets its own title (setproctitle) uses the same memory.
    """
    before = old.encode(errors="surrogateescape")
    after = new.encode(errors="surrogateescape").ljust(len(before), filler.encode())
    start, end = _limits(area)
    place = (b"\0" + ctypes.string_at(start, end - start)).find(b"\0" + before + b"\0")
    if place < 0 or len(after) > len(before):
        return False
    ctypes.memmove(start + place, after, len(after))
    return True


def _limits(area: Area) -> tuple[int, int]:
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - pathlib costs start time here
        fields = file.read().rpartition(")")[2].split()
    return int(fields[area.start - _FIRST_FIELD]), int(fields[area.end - _FIRST_FIELD])
