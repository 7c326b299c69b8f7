"""Emptying a uvicorn worker that accepts no more: what is asked is answered, what is idle goes."""

import asyncio
import select
from time import monotonic
from typing import Any

from uvicorn.server import ServerState

from drumd.workers.uvicorn_protocols import WatchedProtocol

LOOK_EVERY = 0.02
"""Seconds between two looks at the connections."""
FIRST_REQUEST_PATIENCE = 1.0
"""Seconds that a connection gets for its first request: it was opened to ask something, and closing
it before would lose a request that the client has no reason to expect to lose."""


async def empty(state: ServerState, linger: float, *, tls: bool) -> None:
    """Return when no connection and no request's task is left.

    Idle connections are closed after `linger` seconds, websockets with 1012 (restart) then.
    Each answer must say `Connection: close` already (`Instruments.draining`).
    """
    for connection in list(state.connections):
        if isinstance(connection, WatchedProtocol):
            connection.drain()
    began = monotonic()
    # A connection in its TLS handshake is not among the connections yet.
    unseen_until = began + (FIRST_REQUEST_PATIENCE if tls else 0)
    told: set[Any] = set()
    # uvicorn's own shutdown polls as well: its connections and tasks are plain sets.
    while state.connections or state.tasks or monotonic() < unseen_until:
        if monotonic() >= began + linger:
            for connection in state.connections - told:
                if not _is_wanted(connection):
                    told.add(connection)
                    connection.shutdown()
        await asyncio.sleep(LOOK_EVERY)


def _is_wanted(connection: Any) -> bool:
    """Return whether a request is in flight on `connection`, or may be just coming in."""
    if not isinstance(connection, WatchedProtocol):
        return False
    if connection.requests:
        return True
    if connection.cycle is None and monotonic() - connection.made < FIRST_REQUEST_PATIENCE:
        return True
    return _has_unread_bytes(connection.transport)


def _has_unread_bytes(transport: asyncio.Transport) -> bool:
    listening = transport.get_extra_info("socket")
    if listening is None or listening.fileno() < 0:
        return False
    poller = select.poll()
    poller.register(listening.fileno(), select.POLLIN)
    return bool(poller.poll(0))
