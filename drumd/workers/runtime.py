"""The one small interface between a worker's entry and what serves inside it."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from drumd.wire.messages import Interface
from drumd.wire.spec import WorkerSpec
from drumd.workers.control import Control
from drumd.workers.meter import Meter


class AppError(Exception):
    """cannot load the app.

    The message says all that the user needs, so no traceback is shown but the one given here: the
    app's own, where there is one.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class App(NamedTuple):
    """A loaded app and what it speaks."""

    call: Any
    interface: Interface


class Place(NamedTuple):
    """A runtime's place in its worker: all that it is given."""

    spec: WorkerSpec
    control: Control
    load: Callable[[], App]
    """Import the app (once; later calls return the same) and tell the supervisor `Loaded`.

    Raises `AppError`, or whatever the app's module raises.
    """
    meter: Callable[..., Meter]
    """Make this lease's meter: `meter(threaded=…, capacity=…)`."""


class Runtime(Protocol):
    """What serves: uvicorn's Server, one of gunicorn's worker classes, or Werkzeug's server.

    A runtime owns the process's main thread until it returns. In that time it
    * loads the app at the moment that its server would, says `Ready` when it could serve;
    * polls `place.control` in the very loop that must make progress, and there beats every
      `spec.beat_interval` seconds;
    * on `Accept`: accepts from exactly those listeners (a listener is never `shutdown()`, and no
      connection that was accepted is lost on release), then says `Accepting`;
    * on `Drain`, and on a SIGTERM or SIGINT from elsewhere (it says `Leaving` first): releases all
      listeners, answers what is in flight with `Connection: close`, keeps idle keep-alive
      connections for `linger` seconds, says `Drained` and returns;
    * on `Stop`, or when `control.gone`: returns at once.
    """

    def serve(self, place: Place) -> None:
        """Block until drained or stopped; raise what made serving impossible."""


def gunicorn_worker_class(spec: WorkerSpec, interface: Interface) -> str:
    """Return gunicorn's `worker_class` for an app: the one asked for, else by its interface."""
    asked = spec.options.get("gunicorn", {}).get("worker_class")
    if asked:
        return str(asked)
    return "asgi" if interface == "asgi" else "gthread"
