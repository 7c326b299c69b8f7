"""Connections that are closed on our side, until the client has closed its own.

To close both at once cuts off an answer whose client is still sending (RFC 9112, §9.6). gunicorn
27.0.1 waits for the client up to 2 s, in the main thread: one that just does not hang up stops
everyone.
"""

import contextlib
import selectors
import socket
from functools import partial
from time import monotonic
from typing import Any

PATIENCE = 2.0
"""Seconds for a client to close its side, as gunicorn gives it."""


class Goodbyes:
    """Half-closed connections, watched by the selector of a main loop (its thread only).

    The loop calls what a key has as `data` when that is readable, and `turn` once a turn.
    """

    def __init__(self, selector: Any) -> None:
        self._selector = selector
        self._until: dict[socket.socket, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def begin(self, sock: socket.socket) -> None:
        """Send our end of file, and let the loop wait for the client's."""
        try:
            # Not sock's own methods: a subclass may have led here by them.
            socket.socket.shutdown(sock, socket.SHUT_WR)  # a client's connection, never a listener
            sock.setblocking(False)
        except OSError:
            socket.socket.close(sock)
            return
        self._until[sock] = monotonic() + PATIENCE
        self._selector.register(sock, selectors.EVENT_READ, partial(self._discard, sock))

    def turn(self) -> None:
        """Close the connections whose clients took too long."""
        now = monotonic()
        for sock in [sock for sock, until in self._until.items() if until < now]:
            self._close(sock)

    def _discard(self, sock: socket.socket, *_: Any) -> None:
        with contextlib.suppress(OSError):
            try:
                if socket.socket.recv(sock, 65_536):
                    return
            except BlockingIOError:
                return
        self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        del self._until[sock]
        self._selector.unregister(sock)
        socket.socket.close(sock)
