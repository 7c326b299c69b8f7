"""uvicorn's protocol on h11, watched (see `uvicorn_protocols`)."""

from typing import Any

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
        """Close the connection after `cycle`'s answer: here `keep_alive` alone tells no client."""
        super().close_after(cycle)
        if not cycle.response_started:
            cycle.default_headers = [*cycle.default_headers, CLOSE_HEADER]
