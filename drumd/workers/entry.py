"""A worker from its first line to its last: settle, load, serve, leave."""

import atexit
import contextlib
import importlib
import os
import signal
import socket
import sys
from typing import Literal, NoReturn

from drumd.wire.messages import Interface, Loaded
from drumd.wire.scoreboard import Scoreboard
from drumd.wire.spec import RuntimeName, SpecError, WorkerSpec
from drumd.workers import appmetrics, failures, loader, process
from drumd.workers.control import Control
from drumd.workers.meter import Meter, ThreadedMeter
from drumd.workers.runtime import App, Place, Runtime, gunicorn_worker_class

EXIT_DONE = 0
"""It drained, or was told to stop."""
EXIT_FAILED = 1
"""It could not go on, and has said why."""
EXIT_USAGE = 2
"""It was not started by a supervisor that it understands."""

SettledRuntime = Literal["uvicorn", "gunicorn", "flask"]

_SPOKEN: dict[str, Interface] = {"asgi2": "asgi", "asgi3": "asgi", "wsgi": "wsgi"}
"""What uvicorn's option `interface` says of the app; `auto` says nothing."""
_LOOP_CLASSES = ("asgi", "gevent", "eventlet", "tornado", "uvicorn")
"""What gunicorn's worker classes that serve many connections at once have in their names."""


def main() -> NoReturn:
    """Be one worker; never return."""
    try:
        spec = process.read_spec()
    except (process.ProcessError, SpecError) as error:
        complain(str(error))
        leave(EXIT_USAGE)
    control = Control(socket.socket(fileno=spec.fds.control))
    worker = Worker(spec, control)
    try:
        process.settle(spec)
        worker.serve()
    except BaseException as error:  # noqa: BLE001 - an app may raise SystemExit, or worse
        failure = failures.failed(worker.doing, error)
        control.send(failure)
        complain(failure.error, failure.traceback)
        leave(EXIT_FAILED)
    if control.gone and not control.dismissed:
        # Mostly the supervisor died; but an app that closes all fds makes it look the same.
        complain("cannot reach the supervisor: the control socket is closed")
        leave(EXIT_FAILED)
    leave(EXIT_DONE)


class Worker:
    """Loads the app, chooses the runtime, and knows what it is doing in case that fails."""

    def __init__(self, spec: WorkerSpec, control: Control) -> None:
        self.doing = "start the worker"
        """What goes after "cannot" if it fails."""
        self._spec = spec
        self._control = control
        self._app: App | None = None

    def serve(self) -> None:
        """Serve until drained or stopped; raise what made that impossible."""
        spec = self._spec
        board = Scoreboard.attach(spec.fds.scoreboard)
        os.close(spec.fds.scoreboard)  # the mapping stays
        if spec.metrics_dir is not None:
            appmetrics.install(spec.metrics_dir, spec.lease)
        # `auto` needs the app to choose; the others load it where their server would, in its loop.
        runtime = make_runtime(
            self._settled(self.load()) if spec.runtime == "auto" else spec.runtime, spec
        )

        def make_meter(*, threaded: bool, capacity: int) -> Meter:
            kind = ThreadedMeter if threaded else Meter
            return kind(board, spec.lease, spec.beat_interval, capacity=capacity)

        runtime.serve(Place(spec=spec, control=self._control, load=self.load, meter=make_meter))

    def load(self) -> App:
        """Import the app and tell the supervisor, the first time; return it."""
        if self._app is None:
            spec = self._spec
            options = spec.options.get("uvicorn", {})
            self.doing = f"import {spec.app}"
            app = loader.load(
                spec.app,
                factory=bool(options.get("factory")),
                interface=_SPOKEN.get(options.get("interface", "auto")),
            )
            self.doing = f"serve {spec.app}"
            runtime = self._settled(app)
            self._control.send(
                Loaded(
                    interface=app.interface,
                    runtime=runtime,
                    event_loop=has_event_loop(runtime, spec, app.interface),
                )
            )
            self._app = app
        return self._app

    def _settled(self, app: App) -> SettledRuntime:
        if self._spec.runtime != "auto":
            return self._spec.runtime
        return "uvicorn" if app.interface == "asgi" else "gunicorn"


def make_runtime(name: RuntimeName, spec: WorkerSpec) -> Runtime:
    """Return the runtime called `name`; each imports its server only now."""
    runtime: Runtime = importlib.import_module(f"drumd.workers.{name}_runtime").make(spec)
    return runtime


def has_event_loop(runtime: RuntimeName, spec: WorkerSpec, interface: Interface) -> bool:
    """Return whether one loop serves many connections at once, so that they may be pushed."""
    if runtime == "gunicorn":
        worker_class = gunicorn_worker_class(spec, interface).lower()
        return any(name in worker_class for name in _LOOP_CLASSES)
    return runtime == "uvicorn"


def complain(error: str, traceback: str = "") -> None:
    """Write what is wrong to stderr, if the app has left it open."""
    with contextlib.suppress(OSError):
        os.write(2, f"{traceback}drumd: {error}\n".encode(errors="backslashreplace"))


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
