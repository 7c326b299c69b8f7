"""uvicorn's Server as a drumd worker: it listens to the supervisor instead of signals and ticks.

Written against uvicorn 0.54. Overridden of its Server: `capture_signals`, `startup`, `main_loop`
and `shutdown`; everything between (loading, the lifespan, its state and log lines) is its own.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping
from socket import socket
from typing import Any

from uvicorn.server import Server

from drumd.wire.handover import Note
from drumd.wire.spec import WorkerSpec
from drumd.workers.adoption import Adoptions
from drumd.workers.collector import calm
from drumd.workers.failures import format_traceback, own_frames
from drumd.workers.handover import Handover
from drumd.workers.orders import IGNORED_SIGNALS, LEAVE_SIGNALS, Orders
from drumd.workers.runtime import AppError, Place, Runtime
from drumd.workers.uvicorn_config import WorkerConfig
from drumd.workers.uvicorn_drain import Departure
from drumd.workers.uvicorn_listeners import Listeners
from drumd.workers.uvicorn_protocols import Instruments, WatchedProtocol

_log = logging.getLogger("uvicorn.error")


def make(_spec: WorkerSpec) -> Runtime:
    """Return the runtime."""
    return UvicornRuntime()


class UvicornRuntime:
    """Serves ASGI apps on one event loop."""

    def serve(self, place: Place) -> None:
        """Serve until drained or stopped; raise what made that impossible."""
        instruments = Instruments(place.meter(threaded=False, capacity=0))
        config = WorkerConfig(place, instruments)
        # Never closed: closing the runner would join its executor's threads, also a stuck one, and
        # the process is about to end anyway.
        runner = asyncio.Runner(loop_factory=config.get_loop_factory())
        runner.run(WorkerServer(config, place, instruments).serve())


class WorkerServer(Server):
    """uvicorn's Server between startup and the end of a drain, under orders."""

    def __init__(self, config: WorkerConfig, place: Place, instruments: Instruments) -> None:
        super().__init__(config)
        self._place = place
        self._instruments = instruments
        self._adoptions = Adoptions(self._make_adopted, _log)
        self._handover = Handover(self._take_over)
        self._orders = Orders(
            place, self._on_accept, self._handover if config.can_hand_over else None
        )
        self._wanted: deque[tuple[int, Mapping[int, int]]] = deque()
        """Sets of listeners to accept from, by epoch, not yet carried out."""
        self._changed = asyncio.Event()
        """Set when there are new orders."""
        self._stopped = asyncio.Event()
        """Set once the orders are to return at once."""

    # --- what uvicorn calls -----------------------------------------------------------------------

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would raise what it caught again, at the end."""
        yield

    async def startup(self, sockets: list[socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Run the app's startup; accept nothing yet. Raises `AppError`."""
        witness = _Witness(_log)
        self.lifespan.logger = witness
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise AppError(
                f"cannot start {self._place.spec.app}: its lifespan's startup failed{witness.line}",
                traceback=witness.text,
            )
        self._listeners = Listeners(
            self._make_protocol, ssl=self.config.ssl, backlog=self.config.backlog
        )
        await self.on_tick(0)  # the default headers
        self.started = True

    async def main_loop(self) -> None:
        """Say that the worker is ready, and do what it is told until it is to leave."""
        self._beats = asyncio.create_task(self._beat())
        calm()
        self._take_signals()
        asyncio.get_running_loop().add_reader(self._orders.fileno(), self._read_orders)
        self._orders.ready()
        await self._unless_stopped(self._attend())

    async def shutdown(self, sockets: list[socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Drain, unless told to stop."""
        if not self._orders.stopped:
            await self._unless_stopped(self._drain())

    # --- orders -----------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in LEAVE_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGQUIT, self._on_quit)
        for number in IGNORED_SIGNALS:
            # Not SIG_IGN: programs that the app starts would inherit it.
            loop.add_signal_handler(number, lambda: None)

    def _on_signal(self, number: int) -> None:
        self._orders.leave(number)
        self._note()

    def _on_quit(self) -> None:
        self._orders.stopped = True
        self._note()

    def _on_accept(self, epoch: int, wanted: Mapping[int, int]) -> None:
        self._wanted.append((epoch, wanted))

    def _read_orders(self) -> None:
        self._orders.read()
        if self._orders.stopped:
            # A socket whose other end is closed would be readable for ever.
            asyncio.get_running_loop().remove_reader(self._orders.fileno())
        self._note()

    def _note(self) -> None:
        self._changed.set()
        if self._orders.stopped:
            self._stopped.set()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`, but return at once when told to stop. Raises what it raises."""
        waited_for = {
            self._beats,
            asyncio.create_task(work),
            asyncio.create_task(self._stopped.wait()),
        }
        done, _ = await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    # --- what it does meanwhile -------------------------------------------------------------------

    async def _attend(self) -> None:
        while True:
            while self._wanted:
                epoch, wanted = self._wanted.popleft()
                self._orders.accepting(epoch, await self._listeners.hold(wanted))
            if self._orders.leaving:
                return
            await self._changed.wait()
            self._changed.clear()

    async def _beat(self) -> None:
        meter = self._instruments.meter
        second = 0
        while True:
            meter.beat()
            meter.connections(len(self.server_state.connections))
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, WatchedProtocol):
                    connection.close_if_idle(now)
            if second != (second := int(time.time())):
                await self.on_tick(0)  # the Date header, and the app's `callback_notify`
            await asyncio.sleep(self._place.spec.beat_interval)

    async def _drain(self) -> None:
        if self._orders.drain is None:
            return
        departure = Departure(
            self.server_state,
            self._orders,
            self._handover.heirs,
            self._adoptions,
            self._changed,
        )
        self._instruments.departure = departure
        await self._listeners.release()
        if not await departure.empty(tls=self.config.ssl is not None):
            return  # the supervisor is about to end this worker
        self._handover.leavers.close()
        self._instruments.meter.connections(0)
        try:
            # Asked again: the deadline may have been moved.
            async with asyncio.timeout(self._orders.drain.deadline - time.monotonic()):
                await self.lifespan.shutdown()
        except TimeoutError:
            _log.error("The app's shutdown did not end within the grace period.")
        self._orders.drained()

    def _take_over(self, fd: int, note: Note) -> bool:
        if note.proxy is not None:
            return False  # uvicorn has no PROXY protocol: the app would see another client
        return self._adoptions.take(fd, note)

    def _make_adopted(self, note: Note) -> asyncio.Protocol:
        protocol = self._make_protocol()
        assert isinstance(protocol, WatchedProtocol)  # noqa: S101 - else there is no handover
        protocol.inherited = note
        return protocol

    def _make_protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


class _Witness(logging.LoggerAdapter[logging.Logger]):
    """Stands in for the lifespan's logger, to see why a startup failed at whatever log level."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger)
        self.text = ""

    @property
    def line(self) -> str:
        """Return the last line of what was seen, for the end of a sentence."""
        lines = self.text.strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def error(self, msg: object, *args: Any, **kwargs: Any) -> None:
        """Keep the app's own words (its message or its exception), then log."""
        error = kwargs.get("exc_info")
        if isinstance(error, BaseException):
            self.text += format_traceback(error, own_frames(error.__traceback__))
        elif msg != _VERDICT:
            self.text += f"{msg}\n"
        super().error(msg, *args, **kwargs)


_VERDICT = "Application startup failed. Exiting."
"""What uvicorn says after the reason (lifespan/on.py)."""
