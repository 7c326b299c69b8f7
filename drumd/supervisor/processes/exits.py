"""Exits: the one owner of waiting for processes."""

import asyncio
import ctypes
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from drumd.supervisor.processes.status import ExitStatus

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
BATCH = 100
"""Zombies reaped in one go of the loop."""

OnExit = Callable[[int, ExitStatus], None]


def become_subreaper() -> None:
    """Make orphaned descendants children of this process (PR_SET_CHILD_SUBREAPER, prctl(2)).

    Survives exec; raise OSError when the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper")


@dataclass(frozen=True, slots=True)
class _Watched:
    pidfd: int
    on_exit: OnExit
    group: bool


class Exits:
    """Waits for children: the watched ones by pidfd, adopted orphans by SIGCHLD.

    Nothing else in this process may wait: no `subprocess`, no asyncio subprocess, or an exit goes
    to the wrong one. A child must be watched in the same step of the loop in which it was started.
    Main thread only, since it installs a handler for SIGCHLD.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[int, _Watched] = {}
        self._reaped: deque[tuple[OnExit, int, ExitStatus]] = deque()
        """Exits that nobody has been told of yet."""
        self._holds = 0
        self._scan_pending = False
        self._closed = False
        self.orphans_reaped = 0
        """Processes reaped that nobody watched."""
        # An inherited SIG_IGN makes the kernel reap by itself: statuses would be lost.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        loop.add_signal_handler(signal.SIGCHLD, self._scan)
        self._scan_soon()  # what died before the handler stood

    @property
    def watched(self) -> frozenset[int]:
        """The pids that are watched and not reaped yet."""
        return frozenset(self._watched)

    def watch(self, pid: int, on_exit: OnExit, *, group: bool = True) -> None:
        """Call `on_exit(pid, status)` once in the loop, after the child was reaped.

        With `group`, what is left of the process group that the child leads is killed before: as
        long as the leader is not reaped its number is nobody else's. Raise OSError when `pid` is
        no child that lives or waits to be reaped.
        """
        pidfd = os.pidfd_open(pid)
        self._watched[pid] = _Watched(pidfd, on_exit, group)
        self._loop.add_reader(pidfd, self._look_at, pid)

    def forget(self, pid: int) -> None:
        """Watch `pid` no more; its exit is an orphan's from here on."""
        watched = self._watched.pop(pid, None)
        if watched is not None:
            self._loop.remove_reader(watched.pidfd)
            os.close(watched.pidfd)

    def settle(self) -> bool:
        """Tell of every exit that was reaped, now; say whether there was one.

        An exec would forget them, and nobody could ever learn of them again.
        """
        told = bool(self._reaped)
        while self._reaped:
            self._tell_next()
        return told

    def _tell_next(self) -> None:
        if self._reaped:
            on_exit, pid, status = self._reaped.popleft()
            on_exit(pid, status)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Reap no unknown process meanwhile: one of them may turn out to be a worker.

        For the time between asking a template for a fork and knowing the pid. The watched ones are
        reaped as ever.
        """
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._scan_soon()

    def close(self) -> None:
        """Watch nothing any more, reap nothing any more."""
        self._closed = True
        self._loop.remove_signal_handler(signal.SIGCHLD)
        for pid in list(self._watched):
            self.forget(pid)

    def _scan_soon(self) -> None:
        if not self._scan_pending:
            self._scan_pending = True
            self._loop.call_soon(self._scan_again)

    def _scan_again(self) -> None:
        self._scan_pending = False
        if not self._closed:
            self._scan()

    def _scan(self) -> None:
        """Reap zombies, some now and the rest in the next go of the loop.

        Peeking (WNOWAIT) shows the same zombie until it is reaped, so a watched one that comes up
        is dealt with here and now.
        """
        for _ in range(BATCH):
            try:
                zombie = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if zombie is None:
                return
            if zombie.si_pid in self._watched:
                self._reap(zombie.si_pid)
            elif self._holds:
                return
            else:
                os.waitpid(zombie.si_pid, 0)
                self.orphans_reaped += 1
        self._scan_soon()

    def _look_at(self, pid: int) -> None:
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if os.waitid(os.P_PIDFD, self._watched[pid].pidfd, flags) is not None:
            self._reap(pid)

    def _reap(self, pid: int) -> None:
        watched = self._watched[pid]
        self.forget(pid)
        if watched.group:
            # PermissionError: the rest of the group changed its user; the warden's mark is left
            with suppress(ProcessLookupError, PermissionError):
                if os.getpgid(pid) == pid:
                    os.killpg(pid, signal.SIGKILL)
        _, wait_status, usage = os.wait4(pid, 0)
        status = ExitStatus.of(wait_status, usage)
        # Not called here: an exception of theirs must not end the scan.
        self._reaped.append((watched.on_exit, pid, status))
        self._loop.call_soon(self._tell_next)
