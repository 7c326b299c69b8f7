"""uvicorn's protocol on httptools, watched (see `uvicorn_protocols`)."""

from uvicorn.protocols.http import httptools_impl

from drumd.workers.uvicorn_protocols import MeteredCycle, WatchedProtocol


class _Cycle(MeteredCycle, httptools_impl.RequestResponseCycle):
    """One request and its answer."""

    uvicorns_send = httptools_impl.RequestResponseCycle.send


httptools_impl.RequestResponseCycle = _Cycle  # type: ignore[misc]


class WatchedHttpTools(WatchedProtocol, httptools_impl.HttpToolsProtocol):
    """One connection."""

    uvicorns_on_response_complete = httptools_impl.HttpToolsProtocol.on_response_complete

    def on_headers_complete(self) -> None:
        """Begin a request; an upgrade to a websocket is none and makes no cycle."""
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.begin(self.cycle)
