"""uvicorn's protocol on httptools, watched (see `uvicorn_protocols`)."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from drumd.workers.uvicorn_protocols import MeteredCycle, WatchedProtocol


class _Cycle(MeteredCycle, RequestResponseCycle):
    """One request and its answer."""


class WatchedHttpTools(WatchedProtocol, HttpToolsProtocol):
    """One connection."""

    def on_headers_complete(self) -> None:
        """Begin a request; an upgrade to a websocket is none and makes no cycle."""
        before = self.cycle
        super().on_headers_complete()
        cycle = self.cycle
        if cycle is not before:
            cycle.__class__ = _Cycle
            self.begin(cycle)
