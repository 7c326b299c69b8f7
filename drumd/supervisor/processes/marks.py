"""Marked processes: those that carry one supervisor's mark in their environment.

What counts is the environment that a process was started with (/proc/PID/environ, proc(5)): forks
have it too, in whatever session and group they are. A program that was started with a cleaned
environment has it not; such strays become this process's children when their parent dies (the
supervisor is a subreaper), see `kill_strays`.
"""

import asyncio
import os
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from drumd.wire.spec import INSTANCE_VARIABLE

PASSES = 50
"""Looks at the whole of /proc before giving up on a process that forks faster than it is killed."""


def kill_marked(mark: str) -> list[int]:
    """SIGKILL all processes marked `mark` or `mark/…`; return their pids.

    Reads the environment of every process that this user may read, again and again until no new
    one shows up: some ms per thousand processes, so not for the loop (see `sweep`).
    """
    killed: dict[int, None] = {}
    for _ in range(PASSES):
        found = [pid for pid in _pids() if pid != os.getpid() and _kill_if_marked(pid, mark)]
        if not set(found) - set(killed):
            break
        killed.update(dict.fromkeys(found))
    return list(killed)


async def sweep(instance: str, pool: str, attempt: int) -> list[int]:
    """SIGKILL what one worker left behind in other sessions; return the pids. For after its exit.

    Works in a thread, since /proc can be large.
    """
    return await asyncio.to_thread(kill_marked, f"{instance}/{pool}/{attempt}")


def is_marked(environment: bytes, mark: str) -> bool:
    """Say whether an environment (as in /proc/PID/environ) carries `mark` or `mark/…`."""
    entry = f"{INSTANCE_VARIABLE}={mark}".encode()
    return any(
        variable == entry or variable.startswith(entry + b"/")
        for variable in environment.split(b"\0")
    )


def kill_strays(known: Collection[int]) -> list[int]:
    """SIGKILL unknown children and all their descendants; return the pids.

    One look; repeat until it returns none, since a process may have forked meanwhile. Some ms.
    """
    parents = dict(_parents())
    me = os.getpid()
    doomed = {pid for pid, parent in parents.items() if parent == me and pid not in known}
    growing = True
    while growing:
        more = {pid for pid, parent in parents.items() if parent in doomed} - doomed
        doomed |= more
        growing = bool(more)
    for pid in doomed:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return sorted(doomed)


def _pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _kill_if_marked(pid: int, mark: str) -> bool:
    """Look, then open the pidfd and look again: the pid may be another's by now."""
    with suppress(OSError):
        if not is_marked(_environment(pid), mark):
            return False
        pidfd = os.pidfd_open(pid)
        try:
            if is_marked(_environment(pid), mark):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False


def _environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def _parents() -> Iterator[tuple[int, int]]:
    """Yield (pid, parent) of each process that lives: zombies are the reaper's business."""
    for pid in _pids():
        with suppress(OSError):
            # The name is in parentheses and may itself hold some (proc_pid_stat(5)).
            state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                yield pid, int(parent)
