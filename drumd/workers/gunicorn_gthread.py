"""gunicorn's gthread worker class: threads that accept and serve, and a main loop beside them."""

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from drumd.wire.handover import Note
from drumd.wire.messages import Drain
from drumd.workers.gunicorn_connections import Connection, Waiting
from drumd.workers.gunicorn_goodbyes import Goodbyes
from drumd.workers.gunicorn_http2 import IdleEnd, serve_last
from drumd.workers.gunicorn_requests import MeteredRequests
from drumd.workers.gunicorn_worker import Supervised
from drumd.workers.handover import Handover
from drumd.workers.meter import Meter
from drumd.workers.orders import DRAIN_TURN, Listeners, Wakeups
from drumd.workers.runtime import Place

TURN = 0.002
"""Seconds after which the threads give way to each other.

One that is runnable but without the GIL may be overtaken for tens of milliseconds by one that
never waits: whoever gives the GIL up for a system call has it back before others wake up. At each
request this would cost a tenth of it, or more with several workers on a CPU, and gain nothing.
"""
LOOK = 0.05
"""Seconds between two looks at connections that are idle for too long."""


class GThread(MeteredRequests, Supervised, ThreadWorker):  # type: ignore[misc]  # untyped gunicorn
    """Serves `threads` requests at once, and accepts only with a thread that is free to serve.

    A connection that it took while all are busy would wait here, though a sibling may be idle.
    Idle keep-alive connections take no thread and do not count. The main loop beats, reads the
    orders, closes connections and hands them over; no request passes through it.
    """

    threaded = True

    def enlist(self, place: Place, meter: Meter) -> None:
        """Take the worker's place; before `init_process`."""
        handover = Handover(self._take_over)
        self._heirs = handover.heirs
        # What TLS and HTTP/2 know of a connection is in this process, and stays here.
        if not self.cfg.is_ssl and self.cfg.http2_cleartext == "off":
            self.handover = handover
        super().enlist(place, meter)

    def run(self) -> None:
        """Accept and serve until told to leave."""
        wakeups = Wakeups()
        self.goodbyes = Goodbyes(self.poller)
        self._waiting = Waiting()
        self._idle_end = IdleEnd()
        self.keepalived_conns = self._waiting.kept  # gunicorn asks how many there are
        self._proxied = self.cfg.proxy_protocol != "off"
        self._patience = float(self.cfg.keepalive)
        """Seconds that a connection may be idle."""
        self._drain_order: Drain | None = None
        self._order_since = 0.0
        """When that drain was ordered, or got or lost its heirs."""
        self._parting = False
        """Connections that have been answered are the main loop's, to hand them over."""
        self._door = threading.Lock()
        """Held to accept, to release a listener, and to count connections."""
        self._full = False
        """Listeners were left alone since there are too many connections."""
        self._asked: socket.socket | None = None
        """The listener that the last new connection came from; None once there was no more."""
        self._next_turn = self._next_look = 0.0
        self._listeners = Listeners(self._start)
        for fd, callback in (
            (self.method_queue.fileno(), self.method_queue.run_callbacks),
            (self.orders.fileno(), lambda _: self.orders.read()),
            (wakeups.fileno(), lambda _: wakeups.clear()),
        ):
            self.poller.register(fd, selectors.EVENT_READ, callback)
        for _ in range(self.cfg.threads):
            self.tpool.submit(self._serve)
        self.orders.ready()
        while not self.orders.leaving:
            if not self.alive:
                self.orders.retire()
            self._turn(self.pulse.rest())
        self._listeners.release()
        if not self.orders.stopped:
            self._drain()
        self._waiting.end()
        # Threads that are stuck are left to the end of the process; nobody joins them.
        self.tpool.shutdown(wait=False, cancel_futures=True)

    def on_accept(self, epoch: int, wanted: Mapping[int, int]) -> None:
        """Accept from exactly `wanted`, then say so."""
        self.orders.accepting(epoch, self._listeners.hold(wanted))

    def connection_count(self) -> int:
        """Return how many client connections are open."""
        return int(self.nr_conns) + len(self.goodbyes)

    def _start(self, listener: socket.socket) -> "_Accepting":
        return _Accepting(listener, self._waiting, self._door)

    # --- in the threads ---------------------------------------------------------------------------

    def _serve(self) -> None:
        new = False
        try:
            # A listener is one among many in the epoll, though many may wait there. So a thread
            # that served a kept connection looks first for a new one, as long as there were some.
            while (found := (None if new else self._asked) or self._waiting.take()) is not None:
                new = not isinstance(found, Connection)
                conn = found if isinstance(found, Connection) else self._accept(found)
                if conn is not None:
                    self._serve_once(conn)
                    self._give_way()
        except BaseException as error:  # noqa: BLE001 - an app may raise SystemExit, or worse
            # gunicorn, too, lets what ends a thread end the worker.
            self.method_queue.defer(_raise, error)

    def _give_way(self) -> None:
        now = monotonic()
        if now > self._next_turn:
            self._next_turn = now + TURN
            os.sched_yield()  # gives up the GIL, too (since Python 3.11.1)

    def _accept(self, listener: socket.socket) -> Connection | None:
        """Return a new connection, if there is still one."""
        with self._door:
            self._asked = None
            if listener.fileno() < 0:
                return None  # released meanwhile
            if self.nr_conns >= self.worker_connections:
                self._full = True
                return None
            try:
                client, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return None  # a sibling was quicker, or the client is gone again
            finally:
                self._waiting.listen_again(listener)
            self._asked = listener
            self.nr_conns += 1
            # Not the listener's name, as gunicorn has it: an heir, which has none, would tell the
            # app something else where the listener's is 0.0.0.0. It costs the same.
            return Connection(self.cfg, client, address, client.getsockname())

    def _serve_once(self, conn: Connection) -> None:
        """Serve one request, and let the connection wait for its next one, or end."""
        if conn.watched and not conn.speaks():
            self._waiting.put(conn)
            return
        goes_on = False
        if self.handle(conn):
            # It speaks later, or promised to go on.
            conn.idle_since = monotonic()
            with contextlib.suppress(OSError, ValueError):  # an app may have closed it
                conn.look_ahead()
                # With an heir the next request is not for this worker: a client that asks without
                # a pause would otherwise stay here for long.
                if self._parting and not conn.ahead:
                    self.method_queue.defer(self._hand_over, conn)
                else:
                    self._waiting.put(conn)
                goes_on = True
        if not goes_on:
            self.method_queue.defer(self._end, conn)

    def handle_request(self, req: Any, conn: Connection) -> Any:
        """Serve one request, counted (in a thread)."""
        if self._proxied or conn.proxy is not None:
            conn.carry_proxy(req)
        return self.metered(req, super().handle_request, req, conn)

    def handle_http2(self, conn: Connection) -> bool:
        """Serve an HTTP/2 connection to its end (in a thread)."""
        self._idle_end.watch(conn.parser)
        goes_on = bool(super().handle_http2(conn))
        if not self.alive:
            serve_last(conn.parser, lambda req: self._serve_http2_stream(req, conn, conn.parser))
        return goes_on

    def handle_http2_request(self, req: Any, conn: Connection, h2_conn: Any) -> Any:
        """Serve one request of an HTTP/2 connection, counted (in a thread)."""
        return self.metered(req, super().handle_http2_request, req, conn, h2_conn)

    # --- in the main loop -------------------------------------------------------------------------

    def _turn(self, timeout: float) -> None:
        self.live()
        self.wait_for_and_dispatch_events(timeout)
        self.goodbyes.turn()
        now = monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK
            for conn in self._waiting.take_idle_since(now - self._patience):
                self._end(conn, overdue=True)

    def _end(self, conn: Connection, *, overdue: bool = False) -> None:
        """Close a connection; unless it is `overdue`, once the client had time to read all."""
        self._waiting.forget(conn)
        if overdue:
            conn.close()
        else:
            self.goodbyes.begin(conn.sock)
        self._uncount()

    def _uncount(self) -> None:
        with self._door:
            self.nr_conns -= 1
            if self._full:
                self._full = False
                self._waiting.listen_to_all()

    def _drain(self) -> None:
        while True:
            drain = self._look_at_orders()
            if not (self.nr_conns or self.goodbyes or self._heirs.unsettled):
                break
            if self.orders.stopped or monotonic() > drain.deadline:
                return
            if self._parting:
                self._hand_over_idle()
            self._turn(min(self.pulse.rest(), DRAIN_TURN))
        self.meter.connections(0)
        self.orders.drained()

    def _look_at_orders(self) -> Drain:
        """Go on with connections as the drain wants it now: heirs come, go, and come again."""
        drain = self.orders.drain
        assert drain is not None  # noqa: S101 - for the type checker: it never becomes None again
        handing, now = bool(self._heirs), monotonic()
        if drain is not self._drain_order or handing != self.alive:
            self._drain_order, self._order_since = drain, now
        self.alive = handing  # else each further answer says Connection: close
        self._parting = handing and self._heirs.have_room
        self._patience = float(self.cfg.keepalive)
        if not handing and now >= self._order_since + drain.linger:
            self._patience = min(self._patience, drain.linger)
            self._idle_end.call_for()
        return drain

    # --- handover (in the main loop) --------------------------------------------------------------

    def _hand_over_idle(self) -> None:
        for conn in self._waiting.at_rest():
            if not self._heirs.have_room:
                break
            if self._waiting.take_out(conn):
                self._hand_over(conn)

    def _hand_over(self, conn: Connection) -> None:
        """Give a connection that was taken out to an heir; let it wait on if there is none."""
        if not conn.ahead and self._heirs.give(conn.sock.fileno(), conn.farewell()):
            self._waiting.forget(conn)
            conn.close()
            self._uncount()
            return
        try:
            self._waiting.put(conn)
        except (OSError, ValueError):
            self._end(conn)

    def _take_over(self, fd: int, note: Note) -> bool:
        """Let a connection wait that comes from another worker, or back from an heir."""
        if self.orders.drain is not None:
            self._look_at_orders()  # before a thread answers on it
        sock = socket.socket(fileno=fd)
        try:
            conn = Connection(self.cfg, sock, sock.getpeername(), sock.getsockname())
        except OSError:
            sock.close()  # its client has gone
            return True
        with self._door:
            taken = bool(self.nr_conns < self.worker_connections)
            self.nr_conns += taken
        if taken:
            conn.resume(note)
            try:
                self._waiting.put(conn)
            except OSError:
                self._waiting.forget(conn)
                self._uncount()
                taken = False
        if not taken:
            sock.detach()  # the fd is the caller's
        return taken


class _Accepting:
    """One listener, among those that the threads wait with."""

    def __init__(self, listener: socket.socket, waiting: Waiting, door: threading.Lock) -> None:
        self._listener = listener
        self._waiting = waiting
        self._door = door
        waiting.listen(listener)

    def close(self) -> None:
        """Accept no more from it."""
        with self._door:
            self._waiting.unlisten(self._listener)
            self._listener.close()


def _raise(error: BaseException) -> None:
    raise error
