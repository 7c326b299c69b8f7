"""Emptying a uvicorn worker that accepts no more: what is asked is answered, what is idle goes."""

import asyncio
import select
from time import monotonic
from typing import Any

from uvicorn.server import ServerState

from drumd.wire.messages import Drain
from drumd.workers.adoption import Adoptions
from drumd.workers.handover import Heirs
from drumd.workers.orders import Orders
from drumd.workers.uvicorn_protocols import WatchedProtocol

LOOK_EVERY = 0.02
"""Seconds between two looks at the connections."""
FIRST_REQUEST_PATIENCE = 1.0
"""Seconds that a connection gets for its first request: it was opened to ask something, and closing
it before would lose a request that the client has no reason to expect to lose."""


class Departure:
    """A worker's last stretch, from the release of its listeners until nothing is left in it.

    With heirs, connections are handed over as soon as they are at rest. Without, each answer says
    `Connection: close`, and idle connections are closed after the linger. Websockets are closed
    after it in both cases, with 1012 (service restart).

    `changed` is set when there is something to look at before it is time to.
    """

    def __init__(
        self,
        state: ServerState,
        orders: Orders,
        heirs: Heirs,
        adoptions: Adoptions,
        changed: asyncio.Event,
    ) -> None:
        self._state = state
        self._orders = orders
        self._heirs = heirs
        self._adoptions = adoptions
        self._changed = changed
        self._drain: Drain | None = None
        self._was_handing = False
        self._since = monotonic()
        """When the drain began, was ordered again, or lost its heirs."""
        self._told: set[Any] = set()
        """Connections that were told to end."""

    @property
    def handing(self) -> bool:
        """Return whether there are heirs."""
        return bool(self._heirs)

    async def empty(self, *, tls: bool) -> bool:
        """Return True when no connection and no request's task is left, False at the deadline."""
        # A connection in its TLS handshake is not among the connections yet.
        unseen_until = monotonic() + (FIRST_REQUEST_PATIENCE if tls else 0)
        # uvicorn's own shutdown polls as well: its connections and tasks are plain sets.
        while (
            self._state.connections
            or self._state.tasks
            or self._heirs.unsettled
            or self._adoptions.going_on
            or monotonic() < unseen_until
        ):
            drain = self._take_in_orders()
            if monotonic() >= drain.deadline:
                return False
            if self.handing:
                self._hand_over()
            if monotonic() >= self._since + drain.linger:
                self._end_idle()
            await self._rest()
        return True

    def on_rest(self, connection: WatchedProtocol) -> None:
        """Take note that an answer is complete and the client has sent nothing after its request.

        The next request is for the heir: were it read here, then a client that asks without a pause
        would never be found at rest.
        """
        if self.handing and self._heirs.have_room:
            connection.flow.pause_reading()
            self._changed.set()

    def _take_in_orders(self) -> Drain:
        drain = self._orders.drain
        assert drain is not None  # noqa: S101 - for the type checker: it never becomes None again
        if drain is not self._drain or self.handing != self._was_handing:
            self._drain = drain
            self._was_handing = self.handing
            self._since = monotonic()
            for connection in list(self._state.connections):
                if isinstance(connection, WatchedProtocol):
                    connection.drain(self)
        return drain

    def _hand_over(self) -> None:
        room = True
        for connection in list(self._state.connections):
            if not isinstance(connection, WatchedProtocol) or not connection.at_rest:
                continue
            transport = connection.transport
            room = room and self._heirs.have_room
            if not room:
                connection.flow.resume_reading()
            elif not transport.get_write_buffer_size():
                room = self._heirs.give(
                    transport.get_extra_info("socket").fileno(), connection.farewell()
                )
                if room:
                    transport.abort()  # closes our fd; the connection lives on in the heir's

    def _end_idle(self) -> None:
        for connection in self._state.connections - self._told:
            if not self._is_wanted(connection):
                self._told.add(connection)
                connection.shutdown()

    def _is_wanted(self, connection: Any) -> bool:
        """Return whether a request is in flight or coming in, or the next one is for an heir."""
        if not isinstance(connection, WatchedProtocol):
            return False
        if self.handing or not connection.at_rest:
            return True
        if connection.is_new and monotonic() - connection.made < FIRST_REQUEST_PATIENCE:
            return True
        return _has_unread_bytes(connection.transport)

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(LOOK_EVERY):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()


def _has_unread_bytes(transport: asyncio.Transport) -> bool:
    listening = transport.get_extra_info("socket")
    if listening is None or listening.fileno() < 0:
        return False
    poller = select.poll()
    poller.register(listening.fileno(), select.POLLIN)
    return bool(poller.poll(0))
