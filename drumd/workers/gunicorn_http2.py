"""HTTP/2 connections of a gthread worker, each of which keeps a thread for as long as it is open.

gunicorn 27.0.1 (workers/gthread.py, `handle_http2`; http2/connection.py, `receive_data`): a thread
waits in its connection's `receive_data` for the next frames, until the keep-alive time has passed;
in a stop that is too long. Before its GOAWAY it asks for what is pending by `receive_data(b"")`,
which takes that for the client's end, so that no GOAWAY is sent. And a connection that is new in a
stop is answered nothing.
"""

import contextlib
import os
import select
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Any

from gunicorn.http2.errors import HTTP2ConnectionError, HTTP2ProtocolError

FIRST_REQUEST_PATIENCE = 1.0
"""Seconds that a connection gets for its first request, though idle ones are to end."""


class IdleEnd:
    """The end of all HTTP/2 connections that are at rest, now or later, once it is called for."""

    def __init__(self) -> None:
        # Readable once it was called for: so it wakes all threads, however many wait.
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def call_for(self) -> None:
        """End them (from any thread)."""
        os.eventfd_write(self._fd, 1)

    def watch(self, parser: Any) -> None:
        """Let a connection know of it; `parser` is gunicorn's HTTP2ServerConnection."""
        gunicorns = parser.receive_data
        made = monotonic()

        def receive_data(data: bytes | None = None) -> Any:
            waits = not (parser.pending_requests or parser._deferred_events)  # noqa: SLF001
            if waits and data == b"":
                return []
            if waits and data is None and not self._speaks(parser, made):
                say_goaway(parser)
                return []
            return gunicorns(data or None)

        parser.receive_data = receive_data

    def _speaks(self, parser: Any, made: float) -> bool:
        """Wait for the client; return False when its connection is to end."""
        sock = parser.sock
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        patience = made + FIRST_REQUEST_PATIENCE - monotonic()
        is_new = not parser.h2_conn.highest_inbound_stream_id
        if is_new and patience > 0 and poller.poll(1000 * patience):
            return True
        poller.register(self._fd, select.POLLIN)
        timeout = parser.idle_timeout
        events = poller.poll(None if timeout is None else 1000 * timeout)
        return any(fd == sock.fileno() for fd, _ in events)


def say_goaway(parser: Any) -> None:
    """End a connection; do nothing if it has ended.

    What the client sent after the stream that is named here reached nobody, and it may ask again
    on another connection (RFC 9113, §6.8).
    """
    parser.close(last_stream_id=parser.h2_conn.highest_inbound_stream_id)


def serve_last(parser: Any, serve: Callable[[Any], None]) -> None:
    """End a connection that gunicorn left open in a stop: answer what comes next, then go.

    It does when the stop began before the connection's first request, or between two.
    """
    with contextlib.suppress(HTTP2ConnectionError, HTTP2ProtocolError, OSError):
        served = False
        while not (parser.is_closed or served):
            for req in parser.receive_data():
                serve(req)
                served = True
        say_goaway(parser)
