"""Startup probes: a worker is ready when it has answered a request well, if the config says so."""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

import h11

from drumd.config.settings import PoolSettings
from drumd.supervisor.core.events import BecameReady, ProbeFailed
from drumd.supervisor.core.model import Pool, WorkerState
from drumd.supervisor.pool.generations import Generations
from drumd.supervisor.pool.handle import Handle
from drumd.supervisor.pool.surroundings import Surroundings
from drumd.supervisor.sockets.private import private_connection
from drumd.wire import messages

AGAIN_AFTER = 0.5
"""Seconds between two tries."""
PATIENCE = 10.0
"""Seconds that one try may take."""
_CHUNK = 65_536
_GOOD = range(200, 400)


class ProbeError(Exception):
    """cannot get an answer."""


@dataclass(frozen=True, slots=True)
class KeptProbes:
    """Who is being asked, over a re-exec: the asking itself begins anew."""

    attempts: tuple[int, ...] = ()
    numbers: int = 0


class Probes:
    """Asks each new worker until it answers well, or leaves its start.

    A worker accepts nothing before it is ready. So it is given a listener of its own, with one
    connection waiting, as it is given the pool's later: that works with all runtimes.
    """

    def __init__(self, pool: str, generations: Generations, around: Surroundings) -> None:
        self._pool = pool
        self._generations = generations
        self._around = around
        self._numbers = 0
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def keep(self) -> KeptProbes:
        """Return what `resume` needs."""
        return KeptProbes(tuple(self._tasks), self._numbers)

    def resume(self, kept: KeptProbes, handles: Iterable[Handle]) -> None:
        """Ask again whom the program before a re-exec was asking."""
        self._numbers = kept.numbers
        for handle in handles:
            if handle.attempt in kept.attempts:
                self.begin(handle)

    def wanted(self, handle: Handle) -> bool:
        """Say whether a worker is to be asked before it is called ready."""
        return self._settings(handle).health.startup_probe is not None

    def begin(self, handle: Handle) -> None:
        """Ask a worker that could serve; the owner hears the outcome."""
        if handle.attempt not in self._tasks:
            task = self._around.loop.create_task(self._probe(handle))
            self._tasks[handle.attempt] = task
            task.add_done_callback(lambda _: self._tasks.pop(handle.attempt, None))

    def project(self, pool: Pool) -> None:
        """Ask nobody who is not starting any more."""
        for attempt, task in self._tasks.items():
            worker = pool.workers.get(attempt)
            if worker is None or worker.state is not WorkerState.STARTING:
                task.cancel()

    def close(self) -> None:
        """Ask nobody any more."""
        for task in self._tasks.values():
            task.cancel()

    def _settings(self, handle: Handle) -> PoolSettings:
        return self._generations[handle.generation].settings

    async def _probe(self, handle: Handle) -> None:
        # Read anew for each try: a reload of the config may change it meanwhile.
        while (path := self._settings(handle).health.startup_probe) is not None:
            problem = await self._ask(handle, path)
            if not problem:
                break
            answer = f"GET {path}: {problem}"
            self._around.post(self._pool, ProbeFailed(attempt=handle.attempt, answer=answer))
            await asyncio.sleep(AGAIN_AFTER)
        self._around.post(self._pool, BecameReady(attempt=handle.attempt))

    async def _ask(self, handle: Handle, path: str) -> str:
        """Return what was wrong with the answer; "" when nothing was."""
        try:
            async with asyncio.timeout(PATIENCE):
                status = await self._get(handle, path)
        except TimeoutError:
            return f"no answer within {PATIENCE:g} s"
        except (ProbeError, OSError, h11.ProtocolError) as error:
            return str(error) or type(error).__name__
        finally:
            self._accept(handle)  # from nobody
        return "" if status in _GOOD else f"{status} {_phrase(status)}".rstrip()

    async def _get(self, handle: Handle, path: str) -> int:
        """Return the status of the answer; raise `ProbeError`, OSError or what h11 raises."""
        home = self._around.files.home
        if home is None:
            raise ProbeError("no directory can be written for its socket (/dev/shm, TMPDIR)")
        self._numbers += 1
        number = self._numbers
        listener, client = private_connection(home, f"probe-{self._pool}-{number}")
        with listener:
            self._accept(handle, -number, listener.fileno())
        handle.probed += 1
        context = _encryption(self._settings(handle))
        reader, writer = await asyncio.open_connection(
            sock=client, ssl=context, server_hostname=None if context is None else "localhost"
        )
        try:
            return await _exchange(reader, writer, path)
        finally:
            writer.close()

    @staticmethod
    def _accept(handle: Handle, listener: int | None = None, fd: int = -1) -> None:
        if handle.control is None:
            return
        listeners = () if listener is None else (listener,)
        handle.epoch += 1
        handle.told = frozenset(listeners)
        handle.control.send(
            messages.Accept(epoch=handle.epoch, listeners=listeners), [fd] * len(listeners)
        )


def _encryption(settings: PoolSettings) -> ssl.SSLContext | None:
    """Return how to speak to a worker that does TLS itself; nobody else is behind the socket."""
    if not (settings.uvicorn.get("ssl_certfile") or settings.gunicorn.get("certfile")):
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET",
        target=path,
        headers=[
            ("Host", "localhost"),
            ("User-Agent", "drumd-probe"),
            ("Connection", "close"),
        ],
    )
    writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    status = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.EndOfMessage):
            return status
        elif isinstance(event, h11.ConnectionClosed):
            raise ProbeError("the connection was closed without an answer")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
