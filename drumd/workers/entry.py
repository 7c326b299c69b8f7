"""A worker's process from its first line to its last, and a template's."""

import atexit
import contextlib
import os
import signal
import socket
import sys
from typing import NoReturn, Protocol

from drumd.wire.spec import SpecError, WorkerSpec
from drumd.workers import failures, process
from drumd.workers.control import Control
from drumd.workers.failures import complain
from drumd.workers.worker import Worker

EXIT_DONE = 0
"""It drained, or was told to stop."""
EXIT_FAILED = 1
"""It could not go on, and has said why."""
EXIT_USAGE = 2
"""It was not started by a supervisor that it understands."""


class Role(Protocol):
    """What a process is: a worker or a template."""

    doing: str
    """What goes after "cannot" if it fails."""
    control: Control

    def settle(self) -> None:
        """Become the process that the spec describes."""

    def serve(self) -> "Role | None":
        """Do its work to the end; in a fork of a template: return what the fork is."""


def main() -> NoReturn:
    """Be one worker, or one template; never return."""
    try:
        spec = process.read_spec()
    except (process.ProcessError, SpecError) as error:
        complain(str(error))
        leave(EXIT_USAGE)
    role = _role(spec, Control(socket.socket(fileno=spec.fds.control)))
    while (forked := _play(role)) is not None:
        role = forked
    if role.control.gone and not role.control.dismissed:
        # Mostly the supervisor died; but an app that closes all fds makes it look the same.
        complain("cannot reach the supervisor: the control socket is closed")
        leave(EXIT_FAILED)
    leave(EXIT_DONE)


def _role(spec: WorkerSpec, control: Control) -> Role:
    if spec.role == "worker":
        return Worker(spec, control)
    from drumd.workers.template import Template  # noqa: PLC0415 - workers don't pay for it

    return Template(spec, control)


def _play(role: Role) -> Role | None:
    """Do what `role` does; leave with its reason if it fails."""
    try:
        role.settle()
        return role.serve()
    except BaseException as error:  # noqa: BLE001 - an app may raise SystemExit, or worse
        failure = failures.failed(role.doing, error)
        # In this order, so that in the log, too, the traceback comes before what follows from it.
        complain(failure.error, failure.traceback)
        role.control.send(failure)
        leave(EXIT_FAILED)


def leave(code: int) -> NoReturn:
    """End the process now: run what the app registered for its exit, flush, and go.

    Python's own end would first join every thread that is not a daemon, also a stuck one.
    """
    # What asked it to leave has been done, so a signal from now on may end it anywhere.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        # Like the interpreter's end it runs them all, and prints what they raise.
        atexit._run_exitfuncs()  # noqa: SLF001 - the only way to run them without joining threads
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or its reader is gone
                stream.flush()
        os._exit(code)
