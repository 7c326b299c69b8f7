"""Running the daemon: a new one, or one that goes on after a re-exec."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from pydantic import ValidationError

from drumd import __version__
from drumd.config.cpus import resolve_workers
from drumd.config.loading import Loaded
from drumd.exitcodes import DaemonExit
from drumd.supervisor.admin.socket import AdminSocketError
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import OperationState
from drumd.supervisor.daemon import Daemon
from drumd.supervisor.holdings import Holdings
from drumd.supervisor.observe.logging import Logs
from drumd.supervisor.reexec.document import Document, from_memory
from drumd.supervisor.reexec.errors import ReexecError
from drumd.supervisor.reexec.program import Program
from drumd.supervisor.signals import leave_to_main_thread
from drumd.supervisor.sockets.errors import ListenError
from drumd.wire.scoreboard import ScoreboardError


def run_daemon(loaded: Loaded) -> int:
    """Run until asked to stop, or until there is no use; return the exit code."""
    with ExitStack() as stack:
        logs, loop = _begin(loaded, stack)
        try:
            daemon = Daemon(
                loaded,
                logs,
                loop,
                stack,
                program=Program.running(),
                hold=lambda daemon: Holdings.open(loaded.settings, loop, daemon.retired_is_quiet),
            )
        except (ListenError, AdminSocketError, OSError) as refusal:
            logs.write("error", f"drumd: {refusal}")
            return DaemonExit.START_FAILED
        return _run(daemon, logs, loop, _tell_start)


def resume_daemon(state: int, failure: str) -> Callable[[], int]:
    """Build the daemon out of the state on fd `state`; return what runs it.

    `failure`: why the new program could not take over; this is the old one then. Until it runs,
    nothing is read from, written to or closed of what was kept. Raise what stands against it.
    """
    document = from_memory(state)
    kept = document.state
    loaded = kept.config.load()
    stack = ExitStack()
    logs, loop = _begin(loaded, stack)
    try:
        daemon = Daemon(
            loaded,
            logs,
            loop,
            stack,
            program=Program.running().typed_as(document.program),
            hold=lambda daemon: Holdings.resume(kept.holdings, loop, daemon.retired_is_quiet),
            kept=kept,
        )
    except (OSError, ScoreboardError, ValidationError) as error:
        raise ReexecError(f"cannot go on with what was kept: {error}") from error

    def run() -> int:
        with stack:
            for fd in document.fds:
                os.set_inheritable(fd, False)
            os.close(state)
            return _run(daemon, logs, loop, partial(_tell_resumed, document, failure))

    return run


def _begin(loaded: Loaded, stack: ExitStack) -> tuple[Logs, asyncio.AbstractEventLoop]:
    settings = loaded.settings.supervisor
    logs = Logs(level=settings.log_level, form=settings.log_format)
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(initializer=leave_to_main_thread))
    stack.callback(logs.close)
    stack.callback(loop.close)
    return logs, loop


def _run(
    daemon: Daemon,
    logs: Logs,
    loop: asyncio.AbstractEventLoop,
    begin: Callable[[Daemon], None],
) -> int:
    ended = loop.run_until_complete(daemon.run(begin))
    if ended.code is not DaemonExit.STOPPED:
        # By the log's writer: a write of our own would hang where nobody reads.
        words = daemon.last_words() if ended.code is DaemonExit.START_FAILED else []
        logs.write("error", "\n".join([f"drumd: cannot go on: {ended.reason}", *words]))
    return ended.code


def _tell_start(daemon: Daemon) -> None:
    for name, settings in daemon.loaded.settings.pools.items():
        workers, why = resolve_workers(settings)
        binds = ", ".join(daemon.hands[name].listeners.addresses)
        daemon.announcer.tell(
            Fact(
                event=Happened.DAEMON_STARTED,
                reason=f"drumd {__version__} serves {binds}",
                pool=name,
                extra={"pid": os.getpid(), "workers": workers, "workers_reason": why},
            )
        )
    for warning in daemon.loaded.warnings:
        daemon.announcer.tell(Fact(event=Happened.CONFIG_WARNING, reason=str(warning)))
    for text in daemon.notes:
        daemon.notice(text)


def _tell_resumed(document: Document, failure: str, daemon: Daemon) -> None:
    """Tell what became of the re-exec; from here on signals are ours."""
    errand = document.state.errand
    took = time.monotonic() - errand.began
    if failure:
        said = f"drumd {__version__} goes on: the new program could not take over: {failure}"
        daemon.continuity.end_errand(errand, OperationState.FAILED, said)
    else:
        said = f"drumd {__version__} took over from {document.program.version}"
        extra = {"pid": os.getpid(), "took": round(took, 3)}
        fact = Fact(event=Happened.DAEMON_REEXECED, reason=said, extra=extra)
        daemon.announcer.tell(fact)
        daemon.continuity.end_errand(errand, OperationState.DONE, said)
    signal.pthread_sigmask(signal.SIG_SETMASK, document.state.mask)
