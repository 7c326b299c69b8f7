"""Spawning: a fresh interpreter for a worker or a template, and the supervisor's end of it."""

import errno
import fcntl
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from drumd.wire.spec import INSTANCE_VARIABLE, SPEC_FD_VARIABLE, WorkerFds, WorkerSpec, mark

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
    environ: Mapping[str, str], instance: str, spec: WorkerSpec
) -> dict[str, str]:
    """Return a worker's environment: the supervisor's, less what is its alone, with the mark."""
    kept = {k: v for k, v in environ.items() if not k.startswith(_OURS_ALONE)}
    # A template's forks have its environment, as /proc shows it, and put their own mark there.
    room = spec.role == "template"
    kept[INSTANCE_VARIABLE] = mark(instance, spec.pool, spec.attempt, room=room)
    kept[SPEC_FD_VARIABLE] = str(_SPEC)
    # A print must reach the log when it happens, not when 8 KiB are full.
    kept.setdefault("PYTHONUNBUFFERED", "1")
    return kept


class Ends:
    """The ends of a socket pair and three pipes: ours, and those for the process to come.

    Ours are non-blocking, all are close-on-exec. Raises OSError, and then none is left open.
    """

    def __init__(self) -> None:
        self.theirs = ExitStack()
        """Closes those for the process to come."""
        self.notes: list[str] = []
        self._ours = ExitStack()
        try:
            self._control, self.their_control = socket.socketpair(
                socket.AF_UNIX, socket.SOCK_SEQPACKET
            )
            self._ours.callback(self._control.close)
            self.theirs.callback(self.their_control.close)
            self._control.setblocking(False)
            self._stdout, self.their_stdout = self._pipe(PIPE_SIZE)
            self._stderr, self.their_stderr = self._pipe(PIPE_SIZE)
            self._stacks, self.their_stacks = self._pipe(None)
        except BaseException:
            self.close()
            raise

    def child(self, pid: int, pidfd: int) -> Child:
        """Give our ends to the process that has the others; theirs are closed here."""
        self.theirs.close()
        self._ours.pop_all()
        return Child(
            pid=pid,
            pidfd=pidfd,
            control=self._control,
            stdout=self._stdout,
            stderr=self._stderr,
            stacks=self._stacks,
            notes=self.notes,
        )

    def close(self) -> None:
        """Close all that is not a child's by now."""
        self._ours.close()
        self.theirs.close()

    def _pipe(self, size: int | None) -> tuple[int, int]:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._ours.callback(os.close, reader)
        self.theirs.callback(os.close, writer)
        os.set_blocking(reader, False)
        if size is not None:
            try:
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
            except OSError as error:
                # EPERM: above fs.pipe-max-size, or the user's budget fs.pipe-user-pages-soft spent
                smaller = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
                self.notes.append(
                    f"a log pipe holds {smaller} bytes instead of {size} ({error.strerror}): "
                    "raise fs.pipe-max-size or fs.pipe-user-pages-soft if output blocks workers"
                )
        return reader, writer


def spawn(
    make_spec: Callable[[WorkerFds], WorkerSpec],
    *,
    instance: str,
    scoreboard: int,
    environ: Mapping[str, str],
    arguments: Sequence[str] = _ARGUMENTS,
) -> Child:
    """Start a worker, or a template, in a session of its own.

    It inherits the fds of `WorkerFds`, its spec and two pipes, and no other, provided that all fds
    of this process are close-on-exec; a template gets no scoreboard. Signals are unblocked and at
    their defaults there. Takes a few ms (posix_spawn, which doesn't copy this process). Main thread
    only: the worker's PR_SET_PDEATHSIG fires when the *thread* that started it ends. Raises
    `SpawnError`, and then nothing is left open.
    """
    if threading.current_thread() is not threading.main_thread():
        raise SpawnError("cannot start a worker: not in the main thread")
    spec = make_spec(WorkerFds(control=_CONTROL, scoreboard=_SCOREBOARD, stacks=_STACKS))
    what = " ".join(spec.title)
    try:
        ends = Ends()
    except OSError as error:
        raise SpawnError(cannot_start(what, error)) from error
    with closing(ends):
        try:
            inherited = {
                1: ends.their_stdout,
                _STDERR: ends.their_stderr,
                _CONTROL: ends.their_control.fileno(),
                _STACKS: ends.their_stacks,
                _SPEC: _document(spec.encode(), ends.theirs),
            }
            if spec.role == "worker":
                inherited[_SCOREBOARD] = scoreboard
            pid = _start(
                [*arguments, *spec.title], worker_environment(environ, instance, spec), inherited
            )
        except OSError as error:
            raise SpawnError(cannot_start(what, error)) from error
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so still this process
            raise SpawnError(cannot_watch(what, error)) from error
        return ends.child(pid, pidfd)


def cannot_start(what: str, error: OSError) -> str:
    """Say that a worker (`pool=web slot=2 gen=3`) cannot be started, and what to do."""
    return f"cannot start a worker of {what}: {error.strerror or error}{_advice(error)}"


def cannot_watch(what: str, error: OSError) -> str:
    """Say that a worker's exit could not be learnt, and what to do."""
    return f"cannot watch the worker of {what}: {error.strerror or error}{_advice(error)}"


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
