"""What gunicorn's worker classes have in common when drumd runs them, without an Arbiter."""

import os
import signal
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from drumd.wire.messages import Interface
from drumd.workers.meter import Meter
from drumd.workers.orders import Orders, Pulse, handle_signals
from drumd.workers.runtime import AppError, Place

if TYPE_CHECKING:
    from drumd.workers.handover import Handover  # needs an epoll, which gevent's patch takes away


class NoHeartbeatFile:
    """Stands in for gunicorn's temporary file, whose times its Arbiter reads; drumd has none.

    So nothing is written to a disk, and a read-only root file system is no error.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Return some fd that is open: gunicorn marks it close-on-exec."""
        return self._fd

    def notify(self) -> None:
        """Do nothing: the beats come from the loops of the subclasses."""

    def last_update(self) -> float:
        """Return no time; only an Arbiter asks."""
        return 0.0

    def close(self) -> None:
        """Leave the fd to its owner."""


class BoundName(NamedTuple):
    """Stands in for a listener that may be closed before its last connection is served.

    gunicorn asks it for nothing but its name, for each request; a closed socket has none, and the
    connection would be lost.
    """

    name: Any

    def getsockname(self) -> Any:
        """Return the address that the listener is bound to."""
        return self.name


class PlacedApp(NamedTuple):
    """What gunicorn takes for an application: it asks for the callable when it would load it."""

    place: Place
    interface: Interface
    """What the worker class speaks."""

    def wsgi(self) -> Any:
        """Load the app; raise `AppError` when it does not speak what the class does."""
        app = self.place.load()
        if app.interface == self.interface:
            return app.call
        spec = self.place.spec
        if app.interface == "asgi":
            advice = "use runtime uvicorn, or gunicorn's worker_class asgi"
        else:
            advice = "use gunicorn's worker_class gthread, sync or gevent"
        raise AppError(
            f"cannot serve {spec.app}: the app speaks {app.interface.upper()}, the worker class "
            f"of pool {spec.pool} {self.interface.upper()}; {advice}"
        )


class Supervised:
    """A mixin, put before one of gunicorn's worker classes (written against gunicorn 27.0.1).

    A subclass has a `run` that turns the loop: it beats, reads its orders, accepts and drains.
    """

    interface: Interface = "wsgi"
    capacity = 0
    threaded = False

    place: Place
    meter: Meter
    orders: Orders
    pulse: Pulse
    handover: "Handover | None" = None
    """Set before `enlist` where idle connections can be handed over."""

    def enlist(self, place: Place, meter: Meter) -> None:
        """Take the worker's place; before `init_process`."""
        self.place = place
        self.meter = meter
        self.orders = Orders(place, self.on_accept, self.handover)
        self.pulse = Pulse(meter, place.spec.beat_interval)
        self.pid = os.getpid()

    def on_accept(self, epoch: int, wanted: Mapping[int, int]) -> None:
        """Accept from exactly `wanted`, then say so."""
        raise NotImplementedError

    def connection_count(self) -> int:
        """Return how many client connections are open."""
        raise NotImplementedError

    def live(self) -> None:
        """Beat, when it is time to, and look at what changes without an event."""
        if self.pulse.beat():
            self.meter.connections(self.connection_count())
            self.orders.look_for_parent()

    def notify(self) -> None:
        """Do nothing: gunicorn would beat once a second, or before each request."""

    def init_signals(self) -> None:
        """Replace gunicorn's handlers, which reset HUP and USR2 to their deadly defaults."""
        handle_signals(self.orders)
        signal.signal(signal.SIGUSR1, self._reopen_logs)

    def _reopen_logs(self, _number: int, _frame: FrameType | None) -> None:
        self.log.reopen_files()  # type: ignore[attr-defined]  # gunicorn's Worker has it
