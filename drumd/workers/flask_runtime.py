"""The flask runtime: Werkzeug's development server, a thread for each connection.

No more requests than `threads` are served at once. The others wait for their turn: a browser opens
connections that it does not use yet, so those have threads of their own.
"""

import contextlib
import logging
import selectors
import socket
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from drumd.wire.spec import WorkerSpec
from drumd.workers.log_pipe import PipeHandler
from drumd.workers.meter import Meter
from drumd.workers.orders import (
    DRAIN_TURN,
    Listeners,
    Orders,
    Pulse,
    Wakeups,
    handle_signals,
)
from drumd.workers.runtime import AppError, Place

_HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1", socket.AF_UNIX: "unix://listener"}
"""Werkzeug takes a given socket's family from its host, and looks at nothing else of it."""


def make(_spec: WorkerSpec) -> "FlaskRuntime":
    """Return the runtime."""
    return FlaskRuntime()


class FlaskRuntime:
    """Accepts in the main thread, and serves each connection in a thread of its own."""

    def serve(self, place: Place) -> None:
        """Block until drained or stopped; raise what made serving impossible."""
        app = place.load()
        spec = place.spec
        if app.interface != "wsgi":
            raise AppError(
                f"cannot serve {spec.app}: the app speaks {app.interface.upper()}, the flask "
                f"runtime of pool {spec.pool} WSGI; use runtime uvicorn, or gunicorn with "
                "worker_class asgi"
            )
        meter = place.meter(threaded=True, capacity=spec.threads)
        log = logging.getLogger("werkzeug")
        handler = PipeHandler(2, meter.log_dropped)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.propagate = False
        log.setLevel(logging.INFO)
        _Loop(place, app.call, meter).run()


class _Loop:
    """The main thread's loop: beats, reads orders, accepts, drains."""

    def __init__(self, place: Place, app: Any, meter: Meter) -> None:
        self.meter = meter
        self.access_log = place.spec.access_log
        self.connections = _Connections()
        self.turns = threading.Semaphore(place.spec.threads)
        self._app = app
        self._orders = Orders(place, self._on_accept)
        self._pulse = Pulse(meter, place.spec.beat_interval)
        self._selector = selectors.DefaultSelector()
        self._listeners = Listeners(self._start)

    def run(self) -> None:
        """Serve until told to leave."""
        wakeups = Wakeups()
        handle_signals(self._orders)
        self._selector.register(self._orders, selectors.EVENT_READ, self._orders.read)
        self._selector.register(wakeups, selectors.EVENT_READ, wakeups.clear)
        self._orders.ready()
        while not self._orders.leaving:
            self._turn(self._pulse.rest())
        self._listeners.release()
        if not self._orders.stopped:
            self._drain()

    def _on_accept(self, epoch: int, wanted: Mapping[int, int]) -> None:
        self._orders.accepting(epoch, self._listeners.hold(wanted))

    def _start(self, listener: socket.socket) -> "_Accepting":
        return _Accepting(_Server(self, listener, self._app), self._selector)

    def _turn(self, timeout: float) -> None:
        if self._pulse.beat():
            self.meter.connections(len(self.connections))
            self._orders.look_for_parent()
        for key, _ in self._selector.select(timeout):
            if not self._orders.leaving or key.fileobj is self._orders:
                key.data()

    def _drain(self) -> None:
        assert self._orders.drain is not None  # noqa: S101 - for the reader and the type checker
        lingered = monotonic() + self._orders.drain.linger
        while len(self.connections):
            if self._orders.stopped or monotonic() > self._orders.drain.deadline:
                return
            if monotonic() >= lingered:
                self.connections.end_silent()
            self._turn(min(self._pulse.rest(), DRAIN_TURN))
        self._orders.drained()


class _Connections:
    """The open connections, and which of them have not sent a request yet."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._silent: dict[socket.socket, bool] = {}

    def __len__(self) -> int:
        return len(self._silent)

    def opened(self, sock: socket.socket) -> None:
        """Note a new connection."""
        with self._guard:
            self._silent[sock] = True

    def asked(self, sock: socket.socket) -> None:
        """Note that its request is there; Werkzeug serves one, then closes."""
        with self._guard:
            self._silent[sock] = False

    def closed(self, sock: socket.socket) -> None:
        """Forget it."""
        with self._guard:
            self._silent.pop(sock, None)

    def end_silent(self) -> None:
        """Make the threads that still wait for a request see the end of their connections."""
        with self._guard:
            for sock in [each for each, silent in self._silent.items() if silent]:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RD)


class _Server(ThreadedWSGIServer):
    """Werkzeug's threaded server around one listener (written against Werkzeug 3.1.9).

    Its threads are daemons: one that is stuck ends with the process.
    """

    def __init__(self, loop: _Loop, listener: socket.socket, app: Any) -> None:
        self.loop = loop
        with listener:  # Werkzeug takes an fd of its own
            super().__init__(_HOSTS[listener.family], 0, app, _Handler, fd=listener.fileno())
        self.socket.setblocking(False)
        self.timeout = 0  # handle_request takes what is there, and does not wait

    def handle_one(self) -> None:
        """Accept one connection, if a sibling has not taken it, and give it to a thread."""
        self.handle_request()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection, then serve it in a thread."""
        self.loop.connections.opened(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection, then forget it."""
        super().shutdown_request(request)
        self.loop.connections.closed(request)


class _Handler(WSGIRequestHandler):
    """One connection's only request, counted. Werkzeug 3.1.9 always says Connection: close."""

    server: _Server
    _ticket: int | None = None
    _status: int | None = None

    def run_wsgi(self) -> None:
        """Serve the request, in its turn."""
        loop = self.server.loop
        loop.connections.asked(self.connection)
        with loop.turns:
            self._ticket = loop.meter.begin()
            try:
                super().run_wsgi()
            finally:
                loop.meter.end(self._ticket, self._status)

    def send_response(self, code: int, message: str | None = None) -> None:
        """Note the status."""
        self._status = code
        super().send_response(code, message)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no proper request; counted here, since no app sees it."""
        super().send_error(code, message, explain)
        if self._ticket is None:
            meter = self.server.loop.meter
            meter.end(meter.begin(), code)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log the request, if that is wanted."""
        if self.server.loop.access_log:
            super().log_request(code, size)


class _Accepting:
    """One listener's server, while the loop watches it."""

    def __init__(self, server: _Server, selector: selectors.BaseSelector) -> None:
        self._server = server
        self._selector = selector
        selector.register(server, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Accept no more from it."""
        self._selector.unregister(self._server)
        self._server.server_close()

    def _accept(self) -> None:
        if self._server.fileno() >= 0:  # not closed earlier in the same round of events
            self._server.handle_one()
