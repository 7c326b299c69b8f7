"""What a worker's process must be before any code of the app runs in it."""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
from pathlib import Path

# By name, since gevent may have replaced what the module has when a template forks.
from time import sleep

from drumd.wire.spec import SPEC_FD_VARIABLE, STACKS_SIGNAL, SpecError, WorkerSpec

PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h; see prctl(2)."""

_PYTHON_IGNORES = {signal.SIGPIPE, signal.SIGXFSZ}
"""CPython ignores these in every process, so that errors arrive as OSError."""


_ADOPTION_TURN = 0.0005
"""Seconds between two looks at the parent; it changes once the one in between has ended."""


class ProcessError(Exception):
    """cannot make this process a worker."""


def read_spec() -> WorkerSpec:
    """Read the spec from the fd that the environment names, and take both away.

    Raises `ProcessError` when there is none, `SpecError` when it cannot be read.
    """
    number = os.environ.pop(SPEC_FD_VARIABLE, None)
    if number is None:
        raise ProcessError(
            f"cannot start a worker: {SPEC_FD_VARIABLE} is not set; workers are started by "
            "the supervisor, use `drumd serve APP`"
        )
    try:
        with os.fdopen(int(number), "rb") as document:
            return WorkerSpec.decode(document.read())
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot read the worker spec from fd {number!r}: {error}") from error


def settle(spec: WorkerSpec) -> None:
    """Make this process the worker that `spec` describes; raise `ProcessError` if it cannot be."""
    # First of all: until it is registered, the signal that asks for stacks would end the process.
    faulthandler.register(STACKS_SIGNAL, file=spec.fds.stacks, all_threads=True, chain=False)
    faulthandler.enable(file=2, all_threads=True)
    reset_signals()
    die_with_parent(spec.supervisor_pid)
    keep_fds_from_children()
    join_cgroup(spec)
    _enter(spec.app_dir)


def settle_fork(spec: WorkerSpec, forker: int) -> None:
    """Make a template's fork a child of the supervisor, and its signals a fresh worker's.

    `forker`: the pid of the process that forked it, which is about to end; then the supervisor
    adopts it, as the nearest subreaper or as PID 1. faulthandler needs nothing: it writes to the
    same fd, which leads elsewhere by now. Raises `ProcessError`.
    """
    while os.getppid() == forker:
        sleep(_ADOPTION_TURN)
    # Not before: it would fire when the forker ends.
    die_with_parent(spec.supervisor_pid)
    reset_signals()


def reset_signals() -> None:
    """Give every signal its default and unblock all.

    Ignored signals are inherited (shells ignore SIGINT and SIGQUIT in background jobs). SIGTERM
    and SIGINT stay at the default, which the kernel carries out, until the worker can drain: so
    they end an import at once, wherever it is stuck.
    """
    for number in signal.valid_signals() - _PYTHON_IGNORES:
        if signal.getsignal(number) is signal.SIG_IGN:
            # The threading library's own signals (32, 33) are valid, and cannot be set.
            with contextlib.suppress(OSError):
                signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGKILL when `parent` dies; exit now if that has happened already.

    Raises `ProcessError` where prctl fails. A setuid or setgid clears the setting (prctl(2)).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise ProcessError(f"cannot tie this worker to its supervisor: {os.strerror(number)}")
    if os.getppid() != parent:
        # It died before the line above: nobody is left to tell.
        os._exit(1)


def keep_fds_from_children() -> None:
    """Mark all inherited fds close-on-exec, but the standard ones.

    A program that the app starts would hold the control socket and pipes open otherwise.
    """
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib costs start time here
        fd = int(name)
        if fd > 2:  # noqa: PLR2004 - the standard streams
            with contextlib.suppress(OSError):  # the listing's own fd is closed by now
                os.set_inheritable(fd, False)


def join_cgroup(spec: WorkerSpec) -> None:
    """Join the cgroup that `spec` names, if it does; raise `ProcessError`."""
    if spec.cgroup_procs is None:
        return
    try:
        Path(spec.cgroup_procs).write_text("0")
    except OSError as error:
        raise ProcessError(
            f"cannot join the worker's cgroup by {spec.cgroup_procs}: {error.strerror}; "
            "is the cgroup delegated to this user?"
        ) from error


def _enter(app_dir: str) -> None:
    try:
        os.chdir(app_dir)
    except OSError as error:
        raise ProcessError(
            f"cannot enter the app's directory {app_dir}: {error.strerror}; check app-dir"
        ) from error
    sys.path.insert(0, app_dir)
    # What follows the program's name is for `ps`; an app that parses sys.argv must not meet it.
    del sys.argv[1:]
