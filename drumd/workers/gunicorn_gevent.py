"""gunicorn's gevent worker class: a greenlet for each connection, on one event loop."""

import contextlib
import os
import socket
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Any

import gevent
import gevent.socket
from gevent.monkey import get_original
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.sock import ssl_context
from gunicorn.workers.ggevent import GeventWorker

from drumd.workers.gunicorn_requests import MeteredRequests
from drumd.workers.gunicorn_worker import BoundName, Supervised
from drumd.workers.orders import DRAIN_TURN, Listeners

_PlainSocket = get_original("socket", "socket")


class Gevent(MeteredRequests, Supervised, GeventWorker):  # type: ignore[misc]  # untyped gunicorn
    """Serves up to `worker_connections` connections at once.

    The main greenlet beats and reads the orders, so both wait while a greenlet keeps the loop.
    """

    def run(self) -> None:
        """Accept and serve until told to leave."""
        self._pool = Pool(self.worker_connections)
        self._idle: set[Any] = set()
        self._listeners = Listeners(self._start)
        self._tls = {"ssl_context": ssl_context(self.cfg)} if self.cfg.is_ssl else {}
        self.orders.ready()
        while not self.orders.leaving:
            if not self.alive:
                self.orders.retire()
            self._turn(self.pulse.rest())
        self._listeners.release()
        if not self.orders.stopped:
            self._drain()

    def on_accept(self, epoch: int, wanted: Mapping[int, int]) -> None:
        """Accept from exactly `wanted`, then say so."""
        self.orders.accepting(epoch, self._listeners.hold(wanted))

    def connection_count(self) -> int:
        """Return how many client connections are open."""
        return len(self._pool)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection until it ends (in a greenlet of its own)."""
        self._idle.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._idle.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Serve one request, counted."""
        self._idle.discard(sock)
        answer = self.metered(req, super().handle_request, listener_name, req, sock, addr)
        self._idle.add(sock)
        return answer

    def handle_http2_request(
        self, listener_name: Any, req: Any, sock: Any, addr: Any, h2_conn: Any
    ) -> Any:
        """Serve one request of an HTTP/2 connection, counted."""
        self._idle.discard(sock)
        serve = super().handle_http2_request
        answer = self.metered(req, serve, listener_name, req, sock, addr, h2_conn)
        self._idle.add(sock)
        return answer

    def _start(self, listener: socket.socket) -> Any:
        # gevent's own socket class; gevent 26.5 neither binds nor listens on a socket it is given.
        sock = gevent.socket.socket(fileno=listener.detach())
        sock.setblocking(False)
        # The greenlet runs later, when the listener may have been let go.
        handle = partial(self.handle, BoundName(sock.getsockname()))
        server = StreamServer(sock, handle=handle, spawn=self._pool, **self._tls)
        server.max_accept = 1  # leave some to the siblings; gevent would take a hundred at once
        server.start()
        return server

    def _turn(self, timeout: float) -> None:
        self.live()
        try:
            gevent.socket.wait_read(self.orders.fileno(), timeout=timeout, timeout_exc=_Rested)
        except _Rested:
            return
        self.orders.read()

    def _drain(self) -> None:
        assert self.orders.drain is not None  # noqa: S101 - for the reader and the type checker
        self.alive = False  # each further answer says Connection: close
        lingered = monotonic() + self.orders.drain.linger
        while self._pool:
            now = monotonic()
            if self.orders.stopped or now > self.orders.drain.deadline:
                return
            if now >= lingered:
                for client in tuple(self._idle):
                    _end_reading(client)
            self._turn(min(self.pulse.rest(), DRAIN_TURN))
        self.orders.drained()


class _Rested(Exception):  # noqa: N818 - no error: the time for the next beat has come
    """gevent tells of a timeout by raising what it is given."""


def _end_reading(client: Any) -> None:
    """Make a greenlet that waits for a request see the end of its connection."""
    # By the plain socket class: gevent's raises an error in the greenlet, which is logged.
    with contextlib.suppress(OSError), _PlainSocket(fileno=os.dup(client.fileno())) as plain:
        plain.shutdown(socket.SHUT_RD)
