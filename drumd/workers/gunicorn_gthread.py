"""gunicorn's gthread worker class: a main loop that accepts, and threads that serve."""

import contextlib
import selectors
import socket
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from drumd.workers.gunicorn_goodbyes import Goodbyes
from drumd.workers.gunicorn_requests import MeteredRequests
from drumd.workers.gunicorn_worker import Supervised
from drumd.workers.orders import DRAIN_TURN, Listeners, Wakeups

if TYPE_CHECKING:
    from concurrent.futures import Future

FIRST_BYTES = 0.1
"""Seconds that a thread waits for a new connection's first bytes, before the main loop watches it
instead. A client sends them along with its handshake; gunicorn's 5 s lets a few silent ones take
all threads."""


class GThread(MeteredRequests, Supervised, ThreadWorker):  # type: ignore[misc]  # untyped gunicorn
    """Serves `threads` requests at once, and accepts only while a thread is free.

    A connection that it took while all are busy would wait here, though a sibling may be idle.
    Idle keep-alive connections take no thread and do not count.
    """

    threaded = True

    def run(self) -> None:
        """Accept and serve until told to leave."""
        self._running = 0
        self._waited_for = False
        """Somebody waits at a listener since all threads were busy."""
        self._owes = False
        """A thread has become free since then: the next one to get it is who waits."""
        wakeups = Wakeups()
        self.goodbyes = Goodbyes(self.poller)
        self._listeners = Listeners(self._start)
        for fd, callback in (
            (self.method_queue.fileno(), self.method_queue.run_callbacks),
            (self.orders.fileno(), lambda _: self.orders.read()),
            (wakeups.fileno(), lambda _: wakeups.clear()),
        ):
            self.poller.register(fd, selectors.EVENT_READ, callback)
        self.orders.ready()
        while not self.orders.leaving:
            if not self.alive:
                self.orders.retire()
            if self._may_accept():
                self.set_accept_enabled(True)
            self._turn(self.pulse.rest())
        self.set_accept_enabled(False)
        self._listeners.release()
        if not self.orders.stopped:
            self._drain()
        # Threads that are stuck are left to the end of the process; nobody joins them.
        self.tpool.shutdown(wait=False, cancel_futures=True)

    # --- accepting --------------------------------------------------------------------------------

    def on_accept(self, epoch: int, wanted: Mapping[int, int]) -> None:
        """Accept from exactly `wanted`, then say so."""
        self.orders.accepting(epoch, self._listeners.hold(wanted))

    def connection_count(self) -> int:
        """Return how many client connections are open."""
        return int(self.nr_conns) + len(self.goodbyes)

    def accept(self, listener: socket.socket) -> None:
        """Take one connection, if there is still one and a thread for it."""
        if not self._may_accept():
            # Only now that somebody waits: to turn it off and on with each request that comes on a
            # kept connection would be a tenth of the request's cost.
            self.set_accept_enabled(False)
            self._waited_for = True
            return
        self._waited_for = self._owes = False
        if listener.fileno() < 0:
            return  # released in the same round of events
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # a sibling was quicker, or the client is gone again
        self.nr_conns += 1
        self.enqueue_req(Connection(self, client, address, listener.getsockname()))

    def _start(self, listener: socket.socket) -> "_Accepting":
        return _Accepting(self, listener)

    def _may_accept(self) -> bool:
        # Kept connections that ask without a pause keep all threads busy for ever. Who waits at
        # the listener gets its turn among them, one with each thread that becomes free; before
        # that a sibling with a free thread would have taken it.
        free = self._owes or self._running < self.cfg.threads
        return bool(free and self.nr_conns < self.worker_connections)

    # --- serving ----------------------------------------------------------------------------------

    def enqueue_req(self, conn: TConn) -> None:
        """Give a connection that has something to read to a thread."""
        self._running += 1
        super().enqueue_req(conn)

    def finish_request(self, conn: TConn, fs: "Future[Any]") -> None:
        """Take a connection back from its thread (main thread)."""
        self._running -= 1
        self._owes = self._waited_for
        super().finish_request(conn, fs)
        drain = self.orders.drain
        # Its answer was begun before the drain and promised keep-alive; it lingers like the rest.
        if drain and self.keepalived_conns and self.keepalived_conns[-1] is conn:
            conn.timeout = monotonic() + drain.linger

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """Serve one request, counted (in a thread)."""
        return self.metered(req, super().handle_request, req, conn)

    def handle_http2_request(self, req: Any, conn: TConn, h2_conn: Any) -> Any:
        """Serve one request of an HTTP/2 connection, counted (in a thread)."""
        return self.metered(req, super().handle_http2_request, req, conn, h2_conn)

    def _turn(self, timeout: float) -> None:
        self.live()
        self.wait_for_and_dispatch_events(timeout)
        self.murder_keepalived()
        self.murder_pending()
        self.goodbyes.turn()

    # --- ending -----------------------------------------------------------------------------------

    def _drain(self) -> None:
        assert self.orders.drain is not None  # noqa: S101 - for the reader and the type checker
        self.alive = False  # each further answer says Connection: close
        lingered = monotonic() + self.orders.drain.linger
        for conn in (*self.keepalived_conns, *self.pending_conns):
            conn.timeout = min(conn.timeout, lingered)
        while self.nr_conns or self.goodbyes:
            if self.orders.stopped or monotonic() > self.orders.drain.deadline:
                return
            self._turn(min(self.pulse.rest(), DRAIN_TURN))
        self.orders.drained()


class Connection(TConn):  # type: ignore[misc]  # untyped gunicorn
    """A client's connection that neither holds a thread nor the main loop while it is silent."""

    def __init__(self, worker: GThread, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(worker.cfg, sock, client, server)
        self._goodbyes = worker.goodbyes

    def wait_for_data(self, timeout: float) -> bool:
        """Return whether the client sent something within a short time (in a thread)."""
        return bool(super().wait_for_data(min(timeout, FIRST_BYTES)))

    def close(self, graceful: bool = False) -> None:  # noqa: FBT001, FBT002 - gunicorn's signature
        """Close the connection; `graceful`: once the client had time to read all (main thread)."""
        if graceful:
            self._goodbyes.begin(self.sock)
        else:
            with contextlib.suppress(OSError):
                self.sock.close()


class _Accepting:
    """One listener, among those that the worker's loop turns on and off together."""

    def __init__(self, worker: GThread, listener: socket.socket) -> None:
        self._worker = worker
        self._listener = listener
        worker.set_accept_enabled(False)  # the next turn of the loop enables all that there are
        worker.sockets.append(listener)

    def close(self) -> None:
        """Accept no more from it."""
        self._worker.set_accept_enabled(False)
        self._worker.sockets.remove(self._listener)
        self._listener.close()
