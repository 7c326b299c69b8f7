"""gunicorn's asgi worker class: its own asyncio HTTP server."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from gunicorn.sock import ssl_context
from gunicorn.workers.gasgi import ASGIWorker

from drumd.workers.adoption import Adoptions
from drumd.workers.collector import calm
from drumd.workers.gunicorn_asgi_protocol import Protocol
from drumd.workers.gunicorn_worker import Supervised
from drumd.workers.handover import Handover
from drumd.workers.lifespan import Lifespan
from drumd.workers.loader import is_double_callable
from drumd.workers.meter import Meter
from drumd.workers.orders import (
    DRAIN_TURN,
    IGNORED_SIGNALS,
    LEAVE_SIGNALS,
    listening_socket,
)
from drumd.workers.runtime import Place

if TYPE_CHECKING:
    from drumd.wire.messages import Drain

SETTLE = 0.01
"""Seconds after which connections that asyncio has just accepted have their transports."""
CLOSE_PATIENCE = 2.0
"""Seconds for a client to end TLS after we did; asyncio gives it 30, which a drain waits for."""
CANCEL_PATIENCE = 1.0
"""Seconds for tasks to end once they are cancelled."""


class Asgi(Supervised, ASGIWorker):  # type: ignore[misc]  # untyped gunicorn
    """Serves any number of connections from one event loop (uvloop where it is installed)."""

    interface = "asgi"

    def enlist(self, place: Place, meter: Meter) -> None:
        """Take the worker's place; before `init_process`."""
        self._adoptions = Adoptions(lambda note: Protocol(self, note), self.log.error_log)
        handover = Handover(self._adoptions.take)
        self.heirs = handover.heirs
        # What TLS and HTTP/2 know of a connection is in this process, and stays here.
        if (
            not self.cfg.is_ssl
            and self.cfg.http2_cleartext == "off"
            and self.cfg.protocol == "http"
        ):
            self.handover = handover
        super().enlist(place, meter)

    def load_wsgi(self) -> None:
        """Load the app; a syntax error in it ends the worker like any other."""
        app = self.app.wsgi()
        if is_double_callable(app):
            self.asgi = lambda scope, *pipes: app(scope)(*pipes)
        else:
            self.asgi = app

    def init_signals(self) -> None:
        """Handle signals in the loop, where asyncio wants them."""
        for number in IGNORED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for number in LEAVE_SIGNALS:
            self.loop.add_signal_handler(number, self._leave, number)
        self.loop.add_signal_handler(signal.SIGQUIT, self._stop)
        self.loop.add_signal_handler(signal.SIGUSR1, self.log.reopen_files)

    def run(self) -> None:
        """Serve until told to leave; raise what made serving impossible."""
        try:
            self.loop.run_until_complete(self._serve())
        finally:
            self.loop.run_until_complete(_cancel_all())

    # --- the phases of its life -------------------------------------------------------------------

    async def _serve(self) -> None:
        self.protocols: set[Protocol] = set()
        self.draining = False
        self._servers: dict[int, _Accepting] = {}
        self._wanted: asyncio.Queue[tuple[int, Mapping[int, int]]] = asyncio.Queue()
        self._turned = asyncio.Event()
        self._tls = ssl_context(self.cfg) if self.cfg.is_ssl else None
        self.loop.add_reader(self.orders.fileno(), self._read_orders)
        beating = self.loop.create_task(self._beat())
        lifespan = Lifespan(self.asgi, self.state, self.cfg.asgi_lifespan)
        try:
            # Told to leave before it is ready: there are no requests, so nothing is waited for.
            if not await self._unless_leaving(lifespan.startup()):
                return
            calm()
            self.orders.ready()
            await self._unless_leaving(self._steer())
            await self._release()
            if await self._drained():
                if self.handover is not None:
                    self.handover.leavers.close()
                self.meter.connections(0)
                await self._unless_stopped(lifespan.shutdown())
                self.orders.drained()
        finally:
            beating.cancel()
            self.loop.remove_reader(self.orders.fileno())

    async def _beat(self) -> None:
        while True:
            self.live()
            if not self.alive:  # gunicorn's max_requests
                self.orders.retire()
            if self.orders.leaving:
                self._turned.set()
            now = monotonic()
            for protocol in tuple(self.protocols):
                protocol.close_if_expired(now)
            await asyncio.sleep(self.pulse.rest())

    async def _told_to_leave(self) -> None:
        while not self.orders.leaving:
            await self._turned.wait()
            self._turned.clear()

    async def _told_to_stop(self) -> None:
        while not self.orders.stopped:
            await self._turned.wait()
            self._turned.clear()

    async def _drained(self) -> bool:
        """Wait until all connections ended, unless the deadline or an order to stop comes first."""
        drain: Drain | None = None
        handing, since = False, 0.0
        self.draining = True
        for protocol in tuple(self.protocols):
            protocol.drain()
        while self.protocols or self.heirs.unsettled or self._adoptions.going_on:
            now = monotonic()
            deserted = handing and not self.heirs
            if drain is not self.orders.drain or handing != bool(self.heirs):
                drain, handing, since = self.orders.drain, bool(self.heirs), now
            if self.orders.stopped or drain is None or now > drain.deadline:
                return False
            # What was left to heirs that are gone is read first.
            lingered = not (handing or deserted) and now >= since + drain.linger
            self.alive = not lingered  # else HTTP/2 connections say GOAWAY
            for protocol in tuple(self.protocols):
                if handing:
                    protocol.hand_over_if_idle()
                elif lingered:
                    protocol.close_if_idle()
                else:
                    protocol.stay()
            await self._rest()
        return not self.orders.stopped

    def look_again(self) -> None:
        """Look at the connections before it is time to."""
        self._turned.set()

    async def _rest(self) -> None:
        """Wait for orders, or what heirs say, or the next look at the connections."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TURN):
                await self._turned.wait()
        self._turned.clear()

    async def _unless_leaving(self, work: Any) -> bool:
        return await self._first(work, self._told_to_leave())

    async def _unless_stopped(self, work: Any) -> bool:
        return await self._first(work, self._told_to_stop())

    async def _first(self, work: Any, order: Any) -> bool:
        """Do `work`, raising its errors; return False when `order` came before it was done."""
        doing, ordered = self.loop.create_task(work), self.loop.create_task(order)
        await asyncio.wait((doing, ordered), return_when=asyncio.FIRST_COMPLETED)
        ordered.cancel()
        if not doing.done():
            doing.cancel()
            await asyncio.wait((doing,), timeout=CANCEL_PATIENCE)
            return False
        doing.result()
        return True

    # --- orders -----------------------------------------------------------------------------------

    def _read_orders(self) -> None:
        self.orders.read()
        if self.orders.leaving:
            self._turned.set()

    def _leave(self, number: int) -> None:
        self.orders.leave(number)
        self._turned.set()

    def _stop(self) -> None:
        self.orders.stopped = True
        self._turned.set()

    def on_accept(self, epoch: int, wanted: Mapping[int, int]) -> None:
        """Note the wanted set for `_steer`: to start a server takes the loop."""
        self._wanted.put_nowait((epoch, wanted))

    def connection_count(self) -> int:
        """Return how many client connections are open."""
        return int(self.nr_conns)

    # --- accepting --------------------------------------------------------------------------------

    async def _steer(self) -> None:
        while True:
            epoch, wanted = await self._wanted.get()
            for number in self._servers.keys() - wanted.keys():
                await self._servers.pop(number).close()
            for number, fd in wanted.items():
                listener = listening_socket(fd)
                if number in self._servers:
                    listener.close()  # one more fd of the socket that is held already
                    continue
                self._servers[number] = _Accepting(
                    self.loop,
                    listener,
                    await self.loop.create_server(
                        lambda: Protocol(self),
                        sock=listener,
                        ssl=self._tls,
                        # It listens again, and the last word counts for all who share the socket.
                        backlog=self.cfg.backlog,
                        ssl_shutdown_timeout=CLOSE_PATIENCE if self._tls else None,
                    ),
                )
            self.orders.accepting(epoch, tuple(self._servers))

    async def _release(self) -> None:
        for server in self._servers.values():
            await server.close()
        self._servers.clear()


class _Accepting:
    """One listener that the worker accepts from."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, server: asyncio.Server
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._server = server

    async def close(self) -> None:
        """Accept no more from it, and lose none that was accepted.

        asyncio's `Server.close` forgets connections that it has accepted in this very turn of the
        loop and that have no transport yet, so it stops reading first. uvloop reads by itself and
        loses none.
        """
        if isinstance(self._loop, asyncio.BaseEventLoop):
            with contextlib.suppress(ValueError):
                self._loop.remove_reader(self._listener.fileno())
            await asyncio.sleep(SETTLE)
        self._server.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_PATIENCE)
