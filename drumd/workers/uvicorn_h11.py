"""uvicorn's protocol on h11, watched (see `uvicorn_protocols`)."""

from time import monotonic
from typing import Any

import h11
from uvicorn.protocols.http import h11_impl
from uvicorn.protocols.http.flow_control import CLOSE_HEADER

from drumd.workers.uvicorn_protocols import MeteredCycle, WatchedProtocol


class _Cycle(MeteredCycle, h11_impl.RequestResponseCycle):
    """One request and its answer."""

    uvicorns_send = h11_impl.RequestResponseCycle.send


h11_impl.RequestResponseCycle = _Cycle  # type: ignore[misc]


class WatchedH11(WatchedProtocol, h11_impl.H11Protocol):
    """One connection."""

    uvicorns_on_response_complete = h11_impl.H11Protocol.on_response_complete

    def handle_events(self) -> None:
        """Begin a request if there was one; an upgrade to a websocket is none, and no cycle."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self.begin(self.cycle)

    def close_after(self, cycle: Any) -> None:
        """Close the connection after `cycle`'s answer: here `keep_alive` alone tells no client.

        Not if the client has sent more: then that will be its last request, once it is made.
        """
        if self.conn.trailing_data[0]:
            return
        super().close_after(cycle)
        if not cycle.response_started:
            cycle.default_headers = [*cycle.default_headers, CLOSE_HEADER]

    @property
    def at_rest(self) -> bool:
        """Return whether it is open, no answer is outstanding, and no part of a request came."""
        if self.requests or self.transport.is_closing():
            return False
        conn = self.conn
        return (
            conn.our_state is h11.IDLE
            and conn.their_state is h11.IDLE
            and not conn.trailing_data[0]  # a copy, so this comes last
        )

    @property
    def resting_since(self) -> float:
        """Return since when, in monotonic seconds, it waits for the next request."""
        timer = self.timeout_keep_alive_task
        if timer is None:
            return monotonic()
        # The loop's clock may be another one.
        return monotonic() - self.timeout_keep_alive + (timer.when() - self.loop.time())

    def rest_since(self, instant: float) -> None:
        """Count the time of keep-alive from `instant`."""
        self.timeout_keep_alive_task = self.loop.call_later(
            max(0.0, instant + self.timeout_keep_alive - monotonic()),
            self.timeout_keep_alive_handler,
        )
