"""A worker: it loads the app, chooses the runtime, and serves."""

import importlib
import os
from typing import Literal

from drumd.wire.messages import Interface, Loaded
from drumd.wire.scoreboard import Scoreboard
from drumd.wire.spec import RuntimeName, WorkerSpec
from drumd.workers import appmetrics, loader, process
from drumd.workers.control import Control
from drumd.workers.meter import Meter, ThreadedMeter
from drumd.workers.runtime import App, Place, Runtime, gunicorn_worker_class

SettledRuntime = Literal["uvicorn", "gunicorn", "flask"]

_SPOKEN: dict[str, Interface] = {"asgi2": "asgi", "asgi3": "asgi", "wsgi": "wsgi"}
"""What uvicorn's option `interface` says of the app; `auto` says nothing."""
_LOOP_CLASSES = ("asgi", "gevent", "eventlet", "tornado", "uvicorn")
"""What gunicorn's worker classes that serve many connections at once have in their names."""


class Worker:
    """Knows what it is doing, in case that fails."""

    def __init__(self, spec: WorkerSpec, control: Control) -> None:
        self.spec = spec
        self.control = control
        self.doing = "start the worker"
        """What goes after "cannot" if it fails."""
        self._app: App | None = None
        self._told = False

    def settle(self) -> None:
        """Become the process that the spec describes; before any code of the app runs."""
        process.settle(self.spec)
        if self.spec.metrics_dir is not None:
            appmetrics.install(self.spec.metrics_dir, self.spec.lease)

    def serve(self) -> None:
        """Serve until drained or stopped; raise what made that impossible."""
        spec = self.spec
        board = Scoreboard.attach(spec.fds.scoreboard)
        os.close(spec.fds.scoreboard)  # the mapping stays
        # `auto` needs the app to choose; the others load it where their server would, in its loop.
        runtime = make_runtime(
            settled(self.load(), spec) if spec.runtime == "auto" else spec.runtime, spec
        )

        def make_meter(*, threaded: bool, capacity: int) -> Meter:
            kind = ThreadedMeter if threaded else Meter
            return kind(board, spec.lease, spec.beat_interval, capacity=capacity)

        runtime.serve(Place(spec=spec, control=self.control, load=self.load, meter=make_meter))

    def load(self) -> App:
        """Import the app and tell the supervisor, the first time; return it."""
        if self._app is None:
            self.doing = f"import {self.spec.app}"
            self._app = load(self.spec)
        if not self._told:
            self._told = True
            self.doing = f"serve {self.spec.app}"
            self.control.send(loaded(self._app, self.spec))
        return self._app


def load(spec: WorkerSpec) -> App:
    """Import the app; raise `AppError`, or whatever its own code raises."""
    options = spec.options.get("uvicorn", {})
    return loader.load(
        spec.app,
        factory=bool(options.get("factory")),
        interface=_SPOKEN.get(options.get("interface", "auto")),
    )


def loaded(app: App, spec: WorkerSpec) -> Loaded:
    """Return what is told of a loaded app."""
    runtime = settled(app, spec)
    return Loaded(
        interface=app.interface,
        runtime=runtime,
        event_loop=has_event_loop(runtime, spec, app.interface),
    )


def settled(app: App, spec: WorkerSpec) -> SettledRuntime:
    """Return the runtime that serves `app`: the one asked for, else by its interface."""
    if spec.runtime != "auto":
        return spec.runtime
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
