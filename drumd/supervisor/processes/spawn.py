"""Spawning: a fresh interpreter for each worker, and the supervisor's end of it."""

import errno
import fcntl
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from drumd.wire.spec import INSTANCE_VARIABLE, SPEC_FD_VARIABLE, WorkerFds, WorkerSpec

PIPE_SIZE = 1 << 20
"""Bytes that a worker may log ahead of the supervisor before a print blocks it."""

_ARGUMENTS = (sys.executable, "-P", "-m", "drumd.workers")
"""-P: what lies in the working directory must not stand in for drumd's own modules."""

# Where the worker finds its fds. Fixed, so that a look into /proc/PID/fd reads alike for all.
_CONTROL, _SCOREBOARD, _STACKS, _SPEC = 3, 4, 5, 6
_FIRST_FREE = 10
_STDERR = 2

_OURS_ALONE = ("LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET", "SYSTEMD_EXEC_PID", "MAINPID")
"""Variables that tell the supervisor something; an app that speaks to systemd would
believe them."""


class SpawnError(Exception):
    """cannot start a worker."""


@dataclass(slots=True, kw_only=True)
class Child:
    """A worker process, and the supervisor's ends of its socket and pipes.

    The caller watches `pid` (`Exits.watch`) in the same step of the loop, and owns the rest: give
    `control` to a `ControlEnd`, the pipes to their readers (`detach_pipes`), `close` it at the end.
    """

    pid: int
    pidfd: int
    control: socket.socket
    stdout: int
    stderr: int
    stacks: int
    notes: list[str] = field(default_factory=list)
    """What could not be had as wanted, in words for the log."""

    def signal(self, number: int) -> bool:
        """Signal the worker; return False when it is gone. Never another process's pid."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except OSError:
            return False
        return True

    def signal_group(self, number: int) -> bool:
        """Signal the worker's group; return False when its leader was reaped already."""
        try:
            signal.pidfd_send_signal(self.pidfd, 0)  # fails once reaped: then the number is free
            os.killpg(self.pid, number)
        except OSError:
            return False
        return True

    def detach_pipes(self) -> tuple[int, int, int]:
        """Hand over stdout, stderr and stacks to the caller, who closes them."""
        pipes = (self.stdout, self.stderr, self.stacks)
        self.stdout = self.stderr = self.stacks = -1
        return pipes

    def close(self) -> None:
        """Close the socket, the pidfd, and the pipes unless they are detached."""
        self.control.close()
        for fd in (self.pidfd, self.stdout, self.stderr, self.stacks):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)
        self.pidfd = self.stdout = self.stderr = self.stacks = -1


def seal_inherited_fds() -> None:
    """Mark every fd but the standard three close-on-exec. Call once, at start.

    What a shell or systemd left open without that mark would else reach every worker.
    """
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > _STDERR:
            with suppress(OSError):
                os.set_inheritable(int(entry.name), False)


def worker_environment(
    environ: Mapping[str, str], instance: str, pool: str, attempt: int
) -> dict[str, str]:
    """Return a worker's environment: the supervisor's, less what is its alone, with the mark."""
    kept = {k: v for k, v in environ.items() if not k.startswith(_OURS_ALONE)}
    kept[INSTANCE_VARIABLE] = f"{instance}/{pool}/{attempt}"
    kept[SPEC_FD_VARIABLE] = str(_SPEC)
    # A print must reach the log when it happens, not when 8 KiB are full.
    kept.setdefault("PYTHONUNBUFFERED", "1")
    return kept


def spawn(
    make_spec: Callable[[WorkerFds], WorkerSpec],
    *,
    instance: str,
    scoreboard: int,
    environ: Mapping[str, str],
    arguments: Sequence[str] = _ARGUMENTS,
) -> Child:
    """Start a worker in a session of its own; raise `SpawnError`, and then nothing is left open.

    It inherits the fds of `WorkerFds`, its spec and two pipes, and no other, provided that all fds
    of this process are close-on-exec. Signals are unblocked and at their defaults there. Takes a
    few ms (posix_spawn, which doesn't copy this process). Main thread only: the worker's
    PR_SET_PDEATHSIG fires when the *thread* that started it ends.
    """
    if threading.current_thread() is not threading.main_thread():
        raise SpawnError("cannot start a worker: not in the main thread")
    spec = make_spec(WorkerFds(control=_CONTROL, scoreboard=_SCOREBOARD, stacks=_STACKS))
    what = f"pool={spec.pool} slot={spec.slot} gen={spec.generation}"
    with ExitStack() as on_failure, ExitStack() as theirs:
        try:
            ours, their_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            on_failure.callback(ours.close)
            theirs.callback(their_control.close)
            ours.setblocking(False)
            notes: list[str] = []
            pipes = [_pipe(on_failure, theirs, notes, PIPE_SIZE) for _ in range(2)]
            pipes.append(_pipe(on_failure, theirs, notes, None))
            inherited = {
                1: pipes[0][1],
                _STDERR: pipes[1][1],
                _CONTROL: their_control.fileno(),
                _SCOREBOARD: scoreboard,
                _STACKS: pipes[2][1],
                _SPEC: _document(spec.encode(), theirs),
            }
            pid = _start(
                [*arguments, *what.split()],
                worker_environment(environ, instance, spec.pool, spec.attempt),
                inherited,
            )
        except OSError as error:
            raise SpawnError(
                f"cannot start a worker of {what}: {error.strerror or error}{_advice(error)}"
            ) from error
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so still this process
            raise SpawnError(
                f"cannot watch the worker of {what}: {error.strerror}{_advice(error)}"
            ) from error
        on_failure.pop_all()
        return Child(
            pid=pid,
            pidfd=pidfd,
            control=ours,
            stdout=pipes[0][0],
            stderr=pipes[1][0],
            stacks=pipes[2][0],
            notes=notes,
        )


def _start(arguments: list[str], environment: dict[str, str], fds: Mapping[int, int]) -> int:
    """Start a program whose fd `n` is our `fds[n]`; stdin is /dev/null."""
    with ExitStack() as copies:
        # Copies above all targets, so that no target overwrites a source that is still needed.
        actions: list[tuple[int, int, int]] = []
        for target, source in fds.items():
            copy = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
            copies.callback(os.close, copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, target))
        # Ours: an inherited SIG_IGN or a blocked signal would make a worker deaf.
        signals = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
        return os.posix_spawn(
            arguments[0],
            arguments,
            environment,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), *actions],
            setsid=True,
            setsigmask=(),
            setsigdef=signals,
        )


def _pipe(
    ours: ExitStack, theirs: ExitStack, notes: list[str], size: int | None
) -> tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, reader)
    theirs.callback(os.close, writer)
    os.set_blocking(reader, False)
    if size is not None:
        try:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
        except OSError as error:
            # EPERM: above fs.pipe-max-size, or the user's budget fs.pipe-user-pages-soft is spent
            smaller = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
            notes.append(
                f"a log pipe holds {smaller} bytes instead of {size} ({error.strerror}): "
                "raise fs.pipe-max-size or fs.pipe-user-pages-soft if output blocks workers"
            )
    return reader, writer


def _document(content: bytes, theirs: ExitStack) -> int:
    fd = os.memfd_create("drumd-spec", os.MFD_CLOEXEC)
    theirs.callback(os.close, fd)
    if os.write(fd, content) != len(content):
        raise OSError("the spec could not be written")
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EMFILE | errno.ENFILE:
            return "; raise the limit of open files (LimitNOFILE=, ulimit -n)"
        case errno.EAGAIN:
            return "; raise the limit of processes (TasksMax=, ulimit -u)"
        case errno.ENOMEM:
            return "; use fewer workers or give the machine more memory"
        case errno.ENOENT:
            return f"; is {sys.executable} still there? Restart drumd after moving its environment"
        case _:
            return ""
