"""Forking: a worker from a template, and the supervisor's end of it.

    fork = prepare_fork(make_spec, scoreboard=board.fd, hold=exits.hold())
    template.control.send(fork.message, fork.fds)
    … Forked of that attempt:      child = fork.complete(forked.pid); exits.watch(child.pid, …)
    … ForkFailed of it, the template's exit, or impatience:      fork.abandon()

The child is the same as a spawned one, and so is all that it says.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from drumd.supervisor.processes.spawn import Child, Ends, SpawnError, cannot_start, cannot_watch
from drumd.wire.messages import Fork
from drumd.wire.spec import WorkerFds, WorkerSpec

_LATER = WorkerFds(control=-1, scoreboard=-1, stacks=-1)
"""The worker itself finds out which numbers its fds have."""


class PreparedFork:
    """A fork between asking for it and knowing its pid: the ends of its socket and pipes.

    Meanwhile no unknown process is reaped (`Exits.hold`): it may be this worker, which has ended
    already. One of `complete` and `abandon` must come; the first one counts.
    """

    def __init__(
        self, spec: WorkerSpec, ends: Ends, scoreboard: int, hold: AbstractContextManager[None]
    ) -> None:
        self.message = Fork(spec=spec.encode().decode())
        """What to send on the template's control socket, with `fds`."""
        self.fds = (
            ends.their_control.fileno(),
            scoreboard,
            ends.their_stacks,
            ends.their_stdout,
            ends.their_stderr,
        )
        self.notes = ends.notes
        """What could not be had as wanted, in words for the log."""
        self._what = " ".join(spec.title)
        self._ends = ends
        ends.theirs.enter_context(hold)

    def complete(self, pid: int) -> Child:
        """Return the worker, which `Forked` says is `pid`; raise `SpawnError` if it is no child.

        The caller watches it in the same step of the loop, as one that was spawned.
        """
        try:
            pidfd = _open_child(pid)
        except OSError as error:
            self.abandon()
            raise SpawnError(cannot_watch(self._what, error)) from error
        return self._ends.child(pid, pidfd)

    def abandon(self) -> None:
        """Close all ends. A worker that comes nevertheless finds nobody there, and leaves."""
        self._ends.close()


def prepare_fork(
    make_spec: Callable[[WorkerFds], WorkerSpec],
    *,
    scoreboard: int,
    hold: AbstractContextManager[None],
) -> PreparedFork:
    """Make the ends for a worker that a template is to fork; raise `SpawnError`.

    `hold`: `Exits.hold()`, which the fork enters and leaves.
    """
    spec = make_spec(_LATER)
    try:
        ends = Ends()
    except OSError as error:
        raise SpawnError(cannot_start(" ".join(spec.title), error)) from error
    return PreparedFork(spec, ends, scoreboard, hold)


def _open_child(pid: int) -> int:
    """Return a pidfd of a child that lives or waits to be reaped; raise OSError for any other."""
    pidfd = os.pidfd_open(pid)
    try:
        # ECHILD (ChildProcessError) for what is no child of ours.
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        os.close(pidfd)
        raise
    return pidfd
