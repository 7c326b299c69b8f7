"""Processes in tests: started without `subprocess`, which would wait for them, and looked at."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def start(
    *command: str, environ: Mapping[str, str] | None = None, stdout: int = 1, session: bool = True
) -> int:
    """Start a program as a child whose exit somebody else waits for; return its pid."""
    return os.posix_spawn(
        command[0],
        command,
        os.environ if environ is None else environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, stdout, 1)],
        setsid=session,
    )


def start_shell(script: str, *, stdout: int = 1, session: bool = True) -> int:
    """Start a shell script likewise."""
    return start("/bin/sh", "-c", script, stdout=stdout, session=session)


def state(pid: int) -> str:
    """Return a process's state as ps shows it (R, S, T, Z …); X when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def alive(pid: int) -> bool:
    return state(pid) not in "ZX"


def children() -> Sequence[int]:
    """Return this process's children, zombies too."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(pid) for pid in listed.split()]


def count_open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
