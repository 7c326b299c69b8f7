"""uvicorn's protocol on httptools, watched (see `uvicorn_protocols`).

The one parser that most use, so what is called for each request is written out here: calls by
super() and a timer a request would cost as much as the instruments do.
"""

import asyncio
from time import monotonic
from typing import Any

from uvicorn.protocols.http import httptools_impl

from drumd.workers.uvicorn_protocols import MeteredCycle, WatchedProtocol


class _Cycle(MeteredCycle, httptools_impl.RequestResponseCycle):
    """One request and its answer."""

    uvicorns_send = httptools_impl.RequestResponseCycle.send


httptools_impl.RequestResponseCycle = _Cycle  # type: ignore[misc]
_uvicorns_on_headers_complete = httptools_impl.HttpToolsProtocol.on_headers_complete
_uvicorns_start_asgi_task = httptools_impl.HttpToolsProtocol._start_asgi_task  # noqa: SLF001 - ours calls it


class WatchedHttpTools(WatchedProtocol, httptools_impl.HttpToolsProtocol):
    """One connection."""

    idle_since = 0.0
    """When its last answer was complete and nothing more had come; 0 while it is not idle."""

    last: Any = None
    """The cycle after which a drain is to close the connection."""

    task: asyncio.Task[None] | None = None
    """The newest request's. It is among uvicorn's `tasks` only if it outlives that."""

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Start a request's task as uvicorn 0.54 does, without a callback at the end of each."""
        if self.limit_concurrency is not None or self.config.reset_contextvars:
            _uvicorns_start_asgi_task(self, cycle, app)
            return
        self._let_outlive()
        self.task = self.loop.create_task(cycle.run_asgi(app))

    def _let_outlive(self) -> None:
        """Hold the task of the request before, if it goes on, until its end: nobody else does."""
        task = self.task
        if task is not None and not task.done():
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection; what the app does after its answer goes on."""
        super().connection_lost(exc)
        self._let_outlive()
        self.task = None

    def on_headers_complete(self) -> None:
        """Begin a request; an upgrade to a websocket is none and makes no cycle."""
        before = self.cycle
        _uvicorns_on_headers_complete(self)
        cycle = self.cycle
        if cycle is not before:
            # The scope has the list. uvicorn 0.54 adds a chunked body's trailers to it, which are
            # no headers (RFC 9110, section 6.5.1): nobody between may have looked at them.
            self.headers = []
            instruments = self.instruments
            cycle.ticket = instruments.meter.begin()
            self.requests.append(cycle)
            if instruments.departure is not None:
                self.end_with(cycle, instruments.departure)

    def on_message_complete(self) -> None:
        """Note that a request's body is complete; uvicorn 0.54 does not, if the answer is."""
        if self.parser.should_upgrade() and self._should_upgrade():
            return
        cycle = self.cycle
        cycle.more_body = False
        if not cycle.response_complete:
            cycle.message_event.set()
        else:
            self.idle_since = monotonic()

    def close_after(self, cycle: Any) -> None:
        """Close the connection after `cycle`'s answer, and not after one that was to be the last.

        A client's next request may have come along with that one.
        """
        last = self.last
        if last is not None and not last.response_started:
            last.keep_alive = True
        if cycle.keep_alive:
            self.last = cycle
            cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """End the oldest request, as uvicorn 0.54 does, but without a timer for the next one."""
        if self.requests:
            cycle = self.requests.popleft()
            self.instruments.meter.end(cycle.ticket, cycle.status)
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.idle_since = monotonic()

    def _unset_keepalive_if_required(self) -> None:
        """Note that something came; uvicorn calls this for all that does."""
        self.idle_since = 0.0

    def close_if_idle(self, now: float) -> None:
        """Close the connection if it has been idle for as long as keep-alive allows."""
        if self.idle_since and now - self.idle_since >= self.timeout_keep_alive:
            self.timeout_keep_alive_handler()

    @property
    def at_rest(self) -> bool:
        """Return whether it is open, no answer is outstanding, and no part of a request came."""
        if self.requests or self.transport.is_closing():
            return False
        cycle = self.cycle
        if cycle is None:
            return self.scope is None  # made with a request's first byte
        return cycle.scope is self.scope and not cycle.more_body

    @property
    def resting_since(self) -> float:
        """Return since when, in monotonic seconds, it waits for the next request."""
        # Empty lines between requests reset it, and are no request.
        return self.idle_since or monotonic()

    def rest_since(self, instant: float) -> None:
        """Count the time of keep-alive from `instant`."""
        self.idle_since = instant
