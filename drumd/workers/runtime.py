"""The one small interface between a worker's entry and what serves inside it."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from drumd.errors import PlainError
from drumd.wire.messages import Interface
from drumd.wire.spec import WorkerSpec
from drumd.workers.control import Control
from drumd.workers.meter import Meter


class AppError(PlainError):
    """cannot load the app."""


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

    One that can hand over idle connections gives its `Orders` a `Handover(take)`, which makes it
    say so with `Ready`. `Orders.read` then also gets connections: `take(fd, note)` begins to serve
    one that nobody asked on just now, as if it had accepted it (client and server address are the
    socket's own), with `keepalive` counted from `note.idle_since` (not at all while `note.new`); it
    returns False for what it cannot serve.
    That may be at any time after `Ready`, before the first `Accept` and in a drain too.
    In a drain it looks at `handover.heirs` each turn, since they come, go, and come again:
    * while there are any, it answers without `Connection: close`, and does
      `heirs.give(sock.fileno(), note)` with each connection that is at rest: no byte of a request
      was read, no answer is outstanding or still to be written. After True
      it drops its own fd without reading, writing or shutdown; after False it goes on serving the
      connection and tries again (ask `heirs.have_room` before what costs something);
    * when there are none (any more), it drains as above;
    * it is not empty before `heirs.unsettled` is 0: what an heir refuses, or had not confirmed when
      it died, comes back by `take`;
    * then `handover.leavers.close()`, if it does anything else before `Orders.drained`, which
      reports what was handed over.
    What cannot be handed over (TLS, HTTP/2, websockets, a last request) ends as it would without.
    """

    def serve(self, place: Place) -> None:
        """Block until drained or stopped; raise what made serving impossible."""


def gunicorn_worker_class(spec: WorkerSpec, interface: Interface) -> str:
    """Return gunicorn's `worker_class` for an app: the one asked for, else by its interface."""
    asked = spec.options.get("gunicorn", {}).get("worker_class")
    if asked:
        return str(asked)
    return "asgi" if interface == "asgi" else "gthread"
