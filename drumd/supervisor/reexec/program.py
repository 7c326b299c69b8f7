"""The program: which command started drumd, and where its code was when it did."""

import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import drumd
from drumd import __version__
from drumd.supervisor.reexec.errors import ReexecError

_HEAD = 512
"""Bytes of a script in which its interpreter is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is executed by a re-exec, and what is in case that this fails."""

    command: tuple[str, ...]
    """As typed, so that a link such as `current` leads to the release that it points to by then."""
    arguments: tuple[str, ...]
    """Those of `drumd` itself, which stand at the end of `command`."""
    version: str
    interpreter: str
    """The old program's interpreter, links in its directory resolved."""
    package: str
    """The directory in which the old program's package is, links resolved."""

    @classmethod
    def running(cls) -> "Program":
        """Return the program of this process."""
        return cls(
            command=typed_command(sys.orig_argv),
            arguments=tuple(sys.argv[1:]),
            version=__version__,
            interpreter=_real_interpreter(sys.executable),
            package=str(Path(drumd.__file__).resolve().parents[1]),
        )

    def typed_as(self, other: "Program") -> "Program":
        """Return this program with the command line of `other`, which it took over from."""
        return replace(self, command=other.command, arguments=other.arguments)

    def resolve(self) -> str:
        """Return the path of the file to execute; raise `ReexecError` when it is not there."""
        name = self.command[0]
        found = shutil.which(name)
        if found is None:
            raise ReexecError(
                f"cannot re-exec: {name} is not there, or not executable; "
                "put the new version in its place, or restart drumd"
            )
        return found


def typed_command(argv: list[str]) -> tuple[str, ...]:
    """Return the command that was typed, from the interpreter's own arguments.

    A script's first line names an interpreter, which the kernel puts before it: that line may
    be another one by the time of the re-exec, so the script itself is executed.
    """
    interpreter, *rest = argv
    if rest and _is_script_of(rest[0], interpreter):
        return tuple(rest)
    return tuple(argv)


def _is_script_of(path: str, interpreter: str) -> bool:
    # Long paths are written in the second line, below a `#!/bin/sh` (as pip does).
    try:
        if not os.access(path, os.X_OK):
            return False
        with Path(path).open("rb") as script:
            head = script.read(_HEAD)
    except OSError:
        return False
    return head.startswith(b"#!") and os.fsencode(interpreter) in head


def _real_interpreter(executable: str) -> str:
    # Not the last link: a virtual environment's `python` is one, and it is found by its place.
    path = Path(executable)
    return str(path.parent.resolve() / path.name)
