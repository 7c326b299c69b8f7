"""What is added to uvicorn's HTTP protocols: instruments, and answers that end in a drain.

Written against uvicorn 0.54, `uvicorn/protocols/http/{httptools,h11}_impl.py`. What is used: a
protocol makes one `cycle` for each request, once its headers are complete; it calls its own
`on_response_complete` when an answer is, in the order of the requests; a cycle has `send`,
`response_started`, `response_complete`, `more_body`, `keep_alive`, `default_headers` and the
`on_response` that it calls when its answer is complete; a `flow` pauses and resumes reading.
"""

from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from drumd.wire.handover import Note
from drumd.workers.meter import Meter

if TYPE_CHECKING:
    import asyncio


class Destination(Protocol):
    """Where connections go once their worker drains: to its heirs, or to their end."""

    @property
    def handing(self) -> bool:
        """Return whether there are heirs."""

    def on_rest(self, connection: "WatchedProtocol") -> None:
        """Take note that a connection has no answer outstanding any more."""


class Instruments:
    """What all connections of a worker share."""

    __slots__ = ("departure", "meter")

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.departure: Destination | None = None
        """Set once the worker drains."""


class MeteredCycle:
    """Added to a cycle: the request's ticket, and the status of its answer.

    uvicorn makes the cycles, so the modules of the parsers put a class with this in the place of
    its own. Other ways cost more for each request: wrapping `send` is a reference cycle, assigning
    `__class__` makes all later attributes of the cycle slow (CPython 3.11 gives up its inline
    values), and an ASGI middleware is one more coroutine for each message.
    """

    ticket: int
    status: int | None = None
    response_started: bool
    uvicorns_send: Callable[..., Coroutine[Any, Any, None]]
    """The same method of uvicorn's class, by a name: super() costs more (until CPython 3.12)."""

    # Not async: uvicorn's own coroutine is handed through.
    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        """Note the status, then send."""
        if not self.response_started:
            self.status = message.get("status")
        return self.uvicorns_send(message)


class WatchedProtocol:
    """Added to an HTTP protocol, whichever parser it uses."""

    instruments: Instruments
    """Set in a subclass made for each server, since uvicorn makes the protocols."""

    inherited: Note | None = None
    """What a leaver said of the connection, if it was taken over."""

    if TYPE_CHECKING:
        cycle: Any
        flow: Any
        transport: asyncio.Transport
        data_received: Callable[[bytes], None]

    uvicorns_on_response_complete: Callable[..., None]
    """The same method of uvicorn's class, as for cycles."""

    def connection_made(self, transport: Any) -> None:
        """Begin to watch."""
        note = self.inherited
        self.made = monotonic() if note is None else note.idle_since
        self.requests: deque[Any] = deque()
        """Cycles whose answer is not complete, oldest first; several if the client pipelines."""
        super().connection_made(transport)  # type: ignore[misc]
        if note is not None and not note.new:
            self.rest_since(note.idle_since)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the requests whose answers nobody waits for any more."""
        super().connection_lost(exc)  # type: ignore[misc]
        while self.requests:
            cycle = self.requests.popleft()
            self.instruments.meter.end(cycle.ticket, cycle.status)

    def on_response_complete(self) -> None:
        """End the oldest request."""
        if self.requests:
            cycle = self.requests.popleft()
            self.instruments.meter.end(cycle.ticket, cycle.status)
        self.uvicorns_on_response_complete()

    def begin(self, cycle: Any) -> None:
        """Begin the request that `cycle` was made for."""
        instruments = self.instruments
        cycle.ticket = instruments.meter.begin()
        self.requests.append(cycle)
        if instruments.departure is not None:
            self.end_with(cycle, instruments.departure)

    # --- resting ----------------------------------------------------------------------------------

    @property
    def is_new(self) -> bool:
        """Return whether nothing was asked yet, here or where the connection came from."""
        return self.cycle is None and (self.inherited is None or self.inherited.new)

    @property
    def at_rest(self) -> bool:
        """Return whether it is open, no answer is outstanding, and no part of a request came."""
        raise NotImplementedError

    @property
    def resting_since(self) -> float:
        """Return since when, in monotonic seconds, it waits for the next request."""
        raise NotImplementedError

    def rest_since(self, instant: float) -> None:
        """Count the time of keep-alive from `instant`."""
        raise NotImplementedError

    def farewell(self) -> Note:
        """Return what an heir has to know; the connection is at rest."""
        if self.is_new:
            return Note(idle_since=self.made, new=True)
        return Note(idle_since=self.resting_since)

    def close_if_idle(self, now: float) -> None:
        """Close an idle connection, where no timer of uvicorn's does; asked at each beat."""

    # --- draining ---------------------------------------------------------------------------------

    def drain(self, departure: Destination) -> None:
        """Let the newest request in flight be the connection's last one in this worker.

        To be called again when heirs have come or gone.
        """
        if self.requests:
            self.end_with(self.requests[-1], departure)
        elif not self.transport.is_closing():
            self.flow.resume_reading()  # it may have waited for an heir

    def end_with(self, cycle: Any, departure: Destination) -> None:
        """Hand the connection over after `cycle`'s answer, or close it where there is no heir."""
        if departure.handing:
            cycle.on_response = self._on_response_in_departure
        else:
            self.close_after(cycle)

    def _on_response_in_departure(self) -> None:
        self.on_response_complete()
        if self.instruments.departure is not None and self.at_rest:
            self.instruments.departure.on_rest(self)

    def close_after(self, cycle: Any) -> None:
        """Close the connection after `cycle`'s answer, which says so if it has not begun yet."""
        cycle.keep_alive = False
