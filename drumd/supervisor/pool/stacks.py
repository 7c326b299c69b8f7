"""Stacks that a worker has written: the one place in them that a reader looks for first."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath

_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)')
"""A line of faulthandler's; the most recent call is the first one below its thread."""
_THREAD = re.compile(r"(Current )?[Tt]hread ")
_CURRENT = "Current thread "
_LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120 - frames' file names are texts
_FOREIGN = (f"{_LIBRARY}{os.sep}", "<frozen ")


def place(lines: Iterable[str]) -> str:
    """Return `load (model.py, line 12)`: where the thread that was asked is in the app's code.

    Where none of that is on its stack, the latest call; "" without any.
    """
    frames = list(_frames(lines))
    own = (frame for frame in frames if not frame["file"].startswith(_FOREIGN))
    found = next(own, frames[0] if frames else None)
    if found is None:
        return ""
    return f"{found['name']} ({PurePath(found['file']).name}, line {found['line']})"


def _frames(lines: Iterable[str]) -> Iterator[re.Match[str]]:
    asked = True
    for line in lines:
        if _THREAD.match(line):
            asked = line.startswith(_CURRENT)
        elif asked and (frame := _FRAME.fullmatch(line)):
            yield frame
