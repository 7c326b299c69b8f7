"""Forking a process away: it is no child of this process, but of whoever adopts its orphans."""

import contextlib
import errno
import os
import signal
import threading
import warnings
from collections.abc import Callable

# By name, before gevent may replace them in the module: its own need its loop to turn, which a
# template's never does.
from os import close, fork, waitpid

_MAX_NAMES = 50


class ForkError(Exception):
    """cannot fork a worker."""


def fork_away(in_between: Callable[[], None], in_fork: Callable[[], None]) -> int | None:
    """Fork twice; return the pid of the second fork, and None in that fork.

    `in_between` runs in the process in between, which ends as soon as it has forked. `in_fork`
    runs in the fork before its pid is told here, so whoever learns the pid finds that done; what
    it raises is raised in the fork. All signals are blocked there, until it can take them.
    Raises `ForkError` here when there is no fork.
    """
    try:
        report, reported = os.pipe()
    except OSError as error:
        raise ForkError(_cannot(error)) from error
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        middle = _fork()
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        close(report)
        close(reported)
        raise ForkError(_cannot(error)) from error
    if middle == 0:
        close(report)
        _fork_again(in_between, reported)
        try:
            in_fork()
        finally:
            os.write(reported, b"%d" % os.getpid())
            close(reported)
        return None
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    close(reported)
    with os.fdopen(report, "rb") as reader:
        said = reader.read()
    # Once that has ended the fork has its new parent. An app that ignores SIGCHLD leaves nothing
    # to wait for.
    with contextlib.suppress(ChildProcessError):
        waitpid(middle, 0)
    if not said.isdigit():
        raise ForkError(said.decode(errors="replace") or "cannot fork a worker: it ended at once")
    return int(said)


_FORK_SAFE = ("jemalloc_bg_thd",)
"""Threads that their library itself starts anew in the child: jemalloc(3), background_thread, which
comes with pyarrow, and so with every table of pandas."""


def other_threads() -> tuple[str, ...]:
    """Return the names of this process's threads but the main one, native ones too.

    Those that Python does not know (of BLAS, onnxruntime …) go by what the kernel calls them.
    """
    known = {thread.native_id: thread.name for thread in threading.enumerate()}
    names = []
    for entry in os.listdir("/proc/self/task"):  # noqa: PTH208 - pathlib costs start time here
        thread = int(entry)
        if thread != os.getpid():
            # It may have ended since the listing.
            with contextlib.suppress(OSError):
                names.append(known.get(thread) or _comm(thread))
    return tuple(sorted(name for name in names if name not in _FORK_SAFE)[:_MAX_NAMES])


def _fork_again(in_between: Callable[[], None], reported: int) -> None:
    """Return in the second fork only; the first one tells what went wrong, and ends."""
    status = 1
    try:
        in_between()
        if _fork() == 0:
            return
        status = 0
    except BaseException as error:  # noqa: BLE001 - nothing may go on from here as the template
        os.write(reported, _cannot(error).encode(errors="replace"))
    os._exit(status)


def _fork() -> int:
    with warnings.catch_warnings():
        # CPython 3.12 warns of other threads; they are told of by name.
        warnings.simplefilter("ignore", DeprecationWarning)
        return fork()


def _cannot(error: BaseException) -> str:
    if not isinstance(error, OSError):
        return f"cannot fork a worker: {type(error).__name__}: {error}"
    advice = {
        errno.EAGAIN: "; raise the limit of processes (TasksMax=, ulimit -u)",
        errno.ENOMEM: "; use fewer workers or give the machine more memory",
        errno.EMFILE: "; raise the limit of open files (LimitNOFILE=, ulimit -n)",
    }.get(error.errno or 0, "")
    return f"cannot fork a worker: {error.strerror or error}{advice}"


def _comm(thread: int) -> str:
    with open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - as above
        return file.read().rstrip("\n")
