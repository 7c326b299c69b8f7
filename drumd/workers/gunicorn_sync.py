"""gunicorn's sync worker class: one request at a time, in the main thread."""

import contextlib
import os
import select
import selectors
import signal
import socket
from collections.abc import Mapping
from time import monotonic
from types import FrameType
from typing import Any

from gunicorn.workers.sync import SyncWorker

from drumd.workers.gunicorn_goodbyes import Goodbyes
from drumd.workers.gunicorn_requests import MeteredRequests
from drumd.workers.gunicorn_worker import BoundName, Supervised
from drumd.workers.orders import LEAVE_SIGNALS, Listeners, Wakeups

SILENCE = 5.0
"""Seconds that a new connection may say nothing. It keeps everybody else waiting meanwhile, and
gunicorn itself would wait until its Arbiter kills the worker."""


class Sync(MeteredRequests, Supervised, SyncWorker):  # type: ignore[misc]  # untyped gunicorn
    """Serves one request at a time; while it does, it neither beats nor reads its orders."""

    capacity = 1

    def run(self) -> None:
        """Accept and serve until told to leave."""
        self._selector = selectors.DefaultSelector()
        self._goodbyes = Goodbyes(self._selector)
        self._listeners = Listeners(self._start)
        self._selector.register(self.orders, selectors.EVENT_READ, self.orders.read)
        wakeups = Wakeups()
        self._selector.register(wakeups, selectors.EVENT_READ, wakeups.clear)
        self.orders.ready()
        while not self.orders.leaving:
            if not self.alive:
                self.orders.retire()
            self._turn()
        self._listeners.release()
        # The answer in flight was sent, and said Connection: close; its client may still read it.
        while self._goodbyes and not self.orders.stopped:
            self._turn()
        if not self.orders.stopped:
            self.orders.drained()

    def _turn(self) -> None:
        self.live()
        self._goodbyes.turn()
        events = self._selector.select(self.pulse.rest())
        if len(events) > 1:
            self.orders.read()  # what was said while it was busy comes first
        for key, _ in events:
            key.data()

    def on_accept(self, epoch: int, wanted: Mapping[int, int]) -> None:
        """Accept from exactly `wanted`, then say so."""
        self.orders.accepting(epoch, self._listeners.hold(wanted))

    def connection_count(self) -> int:
        """Return none: between requests there is none, and this is asked between them."""
        return 0

    def init_signals(self) -> None:
        """Let a second signal end the process from within a request that is stuck."""
        super().init_signals()
        for number in LEAVE_SIGNALS:
            signal.signal(number, self._leave)
        signal.signal(signal.SIGQUIT, self._exit)

    def handle_request(self, listener: Any, req: Any, client: Any, addr: Any) -> None:
        """Serve one request, counted."""
        self.metered(req, super().handle_request, listener, req, client, addr)

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serve a new connection's only request, unless the client says nothing."""
        name = BoundName(listener.getsockname())
        if self._speaks(client):  # here orders are read, and the listener may go
            super().handle(name, Client(client, self._goodbyes), addr)
        else:
            client.close()

    def _start(self, listener: socket.socket) -> "_Accepting":
        return _Accepting(self, listener, self._selector)

    def _speaks(self, client: socket.socket) -> bool:
        try:
            client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass  # rare: clients send along with their handshake
        except OSError:
            return True  # it went away again; gunicorn finds out and says nothing
        else:
            return True
        poller = select.poll()
        poller.register(client, select.POLLIN)
        poller.register(self.orders, select.POLLIN)
        end = monotonic() + SILENCE
        while monotonic() < end and not self.orders.leaving:
            self.live()
            readable = [fd for fd, _ in poller.poll(self.pulse.rest() * 1000)]
            if client.fileno() in readable:
                return True
            if readable:
                self.orders.read()
        return False

    def _leave(self, number: int, frame: FrameType | None) -> None:
        if self.orders.leaving:
            self._exit(number, frame)
        self.orders.leave(number)

    def _exit(self, _number: int, _frame: FrameType | None) -> None:
        # An exception from here would go up through the app, which may catch it.
        os._exit(0)


class Client(socket.socket):
    """A client's connection, which gunicorn closes at the end without waiting for the client.

    gunicorn 27.0.1 (`util.close_graceful`) shuts its side down, reads until the client has done the
    same, and closes. Here the reading ends at once, and the closing is the main loop's. (TLS makes
    a socket of its own of this one, which goes gunicorn's way.)
    """

    def __init__(self, client: socket.socket, goodbyes: Goodbyes) -> None:
        super().__init__(client.family, client.type, client.proto, fileno=client.detach())
        self._goodbyes = goodbyes
        self._parting = False

    def shutdown(self, how: int) -> None:
        """Begin to part, when it is our side that is to be closed."""
        if how == socket.SHUT_WR:
            self._parting = True  # `begin` shuts it down
        else:
            super().shutdown(how)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Return what the client sent; nothing more once we part."""
        return b"" if self._parting else super().recv(bufsize, flags)

    def close(self) -> None:
        """Close, or leave that to the main loop."""
        if self._parting and self.fileno() >= 0:
            self._parting = False
            self._goodbyes.begin(self)
        else:
            super().close()


class _Accepting:
    """One listener that the worker accepts from, while it is registered with the selector."""

    def __init__(
        self, worker: Sync, listener: socket.socket, selector: selectors.BaseSelector
    ) -> None:
        self._worker = worker
        self._listener = listener
        self._selector = selector
        selector.register(listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Accept no more from it."""
        self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        # Let go of, or told to leave, in the same round of events.
        if self._worker.orders.leaving or self._listener.fileno() < 0:
            return
        # A sibling was quicker, or the client is gone again.
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            self._worker.accept(self._listener)
