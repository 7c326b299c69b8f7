"""One pool as the daemon runs it, in the test's own loop: real processes, sockets and decisions.

async with PoolHost(tmp_path, APP, workers=2) as host:
    await host.ready()
    assert (await host.client.get("/")).body == "1"
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import textwrap
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Self

from drumd.config.settings import PoolSettings
from drumd.supervisor.core.events import Event, Submitted
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import (
    Kind,
    Operation,
    OperationKind,
    Pool,
    PoolState,
    Worker,
    WorkerState,
)
from drumd.supervisor.core.views import pool_state
from drumd.supervisor.observe.appmetrics import AppMetrics
from drumd.supervisor.observe.logging import Logs
from drumd.supervisor.observe.metricfiles import MetricFiles
from drumd.supervisor.owner import Owner
from drumd.supervisor.pool.hands import Hands
from drumd.supervisor.pool.leases import Leases
from drumd.supervisor.pool.specs import policy
from drumd.supervisor.pool.surroundings import Surroundings
from drumd.supervisor.processes.exits import Exits, become_subreaper
from drumd.supervisor.processes.marks import kill_marked
from drumd.supervisor.processes.spawn import seal_inherited_fds
from drumd.supervisor.sockets.binding import Listeners
from drumd.wire.address import parse_address
from drumd.wire.scoreboard import Scoreboard
from tests.waiting import CAP, until

ROOT = Path(__file__).parents[2]
NAME = "web"
LEASES = 32


class Audience:
    """Keeps all that the owner tells."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.finished: dict[str, Operation] = {}

    def tell(self, fact: Fact) -> None:
        self.facts.append(fact)

    def operations(self, _pool: str, operations: Iterable[Operation]) -> None:
        self.finished.update({operation.id: operation for operation in operations})

    def changed(self, pools: Mapping[str, Pool]) -> None:
        pass

    def alive(self, pools: Mapping[str, Pool]) -> None:
        pass


class PoolHost:
    """A pool `web` that serves `source`, the text of an app module, until the context is left."""

    def __init__(self, directory: Path, source: str, **wanted: Any) -> None:
        self.directory = directory
        self.write(source)
        self._size = wanted.pop("size", wanted.get("workers", 1))
        self.settings = self.make_settings(**wanted)
        self._operation = count(1).__next__

    def make_settings(self, **wanted: Any) -> PoolSettings:
        """Return the pool's settings with what is `wanted` instead of the tests' own defaults."""
        return PoolSettings(
            **{
                "app": "served:app",
                "app_dir": str(self.directory),
                "bind": "127.0.0.1:0",
                "restart": {"backoff_initial": 0.05},
                **wanted,
            }
        )

    def write(self, source: str) -> None:
        """Write the app's module anew."""
        (self.directory / "served.py").write_text(textwrap.dedent(source))

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._root_handlers = logging.getLogger().handlers
        seal_inherited_fds()
        become_subreaper()
        self.log = self.directory / "log"
        self._log_fd = os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self.logs = Logs(self._log_fd, form="json")
        self.board = Scoreboard.create(LEASES)
        self.leases = Leases(LEASES)
        self.exits = Exits(loop)
        self.files = MetricFiles.create(os.environ)
        self.audience = Audience()
        self.around = Surroundings(
            loop=loop,
            instance=f"test-{os.getpid()}-{secrets.token_hex(4)}",
            supervisor_pid=os.getpid(),
            board=self.board,
            leases=self.leases,
            exits=self.exits,
            logs=self.logs,
            files=self.files,
            app_metrics=AppMetrics(),
            environ={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            cgroup=None,
            look_interval=0.05,
            post=self._post,
            tell=self.audience.tell,
        )
        self.listeners = Listeners.open(
            loop,
            [parse_address(text) for text in self.settings.bind],
            backlog=self.settings.backlog,
            on_quiet=self._on_quiet,
        )
        self.hands = Hands(NAME, self.settings, self.listeners, self.around)
        pool = Pool(
            name=NAME,
            policy=policy(self.settings),
            size=self._size,
            preload=self.settings.preload,
        )
        self.owner = Owner({NAME: pool}, {NAME: self.hands}, self.audience, loop, 0.05)
        self._running = loop.create_task(self.owner.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.owner.stop("the test is over")
        self.owner.stop("the test is over")  # at once
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._running), CAP)
        self._running.cancel()
        self.hands.close()
        while self.around.background:
            await asyncio.wait(self.around.background)
        kill_marked(self.around.instance)
        self.listeners.close()
        self.exits.close()
        self.files.remove()
        self.board.close()
        os.close(self.board.fd)
        self.logs.close()
        os.close(self._log_fd)
        logging.getLogger().handlers = self._root_handlers
        if self._running.done() and not self._running.cancelled():
            self._running.result()  # the owner's own failures

    def _post(self, pool: str, event: Event) -> None:
        self.owner.post(pool, event)

    def _on_quiet(self, slot: int) -> None:
        self.hands.retired_is_quiet(slot)

    # --- looking at it ----------------------------------------------------------------------------

    @property
    def pool(self) -> Pool:
        return self.owner.pools[NAME]

    def workers(
        self, kind: Kind = Kind.SLOT, state: WorkerState = WorkerState.READY
    ) -> list[Worker]:
        """Return the workers of a kind in a state, by slot."""
        found = [
            worker
            for worker in self.pool.workers.values()
            # One that has just exited may have no handle, while its event still waits.
            if worker.kind is kind
            and worker.state is state
            and worker.attempt in self.hands.crew.handles
        ]
        return sorted(found, key=lambda worker: (worker.slot, worker.attempt))

    def pid(self, worker: Worker) -> int:
        return self.hands.crew.handles[worker.attempt].pid

    def told(self, event: Happened) -> list[str]:
        """Return the reasons of all facts of a kind."""
        return [fact.reason for fact in self.audience.facts if fact.event is event]

    def lines(self) -> list[dict[str, Any]]:
        """Return the log."""
        self.logs.flush()
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def tale(self) -> str:
        """Return all that happened, for a failure."""
        facts = [
            f"{f.event} gen={f.generation} attempt={f.attempt}: {f.reason}"
            for f in self.audience.facts
        ]
        said = [str(line.get("line", line)) for line in self.lines()]
        return "\n".join([*facts, *said])

    async def until(self, probe: Callable[[], Any], what: str, cap: float = CAP) -> Any:
        """Wait for `probe`; on failure tell what happened."""
        try:
            return await until(probe, what=what, cap=cap)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tale()}") from None

    async def ready(self) -> None:
        """Wait until all slots serve."""
        await self.until(lambda: pool_state(self.pool) is PoolState.READY, "the pool is ready")

    # --- changing it ------------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        self.owner.post(NAME, event)

    def submit(self, kind: OperationKind, **fields: Any) -> str:
        """Ask for an operation; return its id."""
        operation = Operation(id=f"op-{self._operation()}", kind=kind, by="the test", **fields)
        self.post(Submitted(operation=operation))
        return operation.id

    async def end_of(self, operation: str) -> Operation:
        """Wait until an operation has ended; return it."""
        final = ("done", "failed", "cancelled")

        def ended() -> Operation | None:
            found = self.audience.finished.get(operation)
            return found if found is not None and found.state.value in final else None

        found = await self.until(ended, f"the end of {operation}")
        assert isinstance(found, Operation)
        return found

    async def reload(self, **wanted: Any) -> Operation:
        """Roll out the app as it is on disk now; return how that ended."""
        settings = self.make_settings(**wanted) if wanted else self.settings
        generation = self.hands.prepare(settings)
        return await self.end_of(
            self.submit(OperationKind.RELOAD, generation=generation, preload=settings.preload)
        )

    # --- asking it --------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return int(self.listeners.addresses[0].rpartition(":")[2])

    async def connect(self, port: int | None = None) -> "Client":
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        return Client(reader, writer)

    async def get(self, path: str = "/") -> tuple[int, str]:
        """Ask on a new connection."""
        client = await self.connect()
        try:
            return await client.get(path)
        finally:
            client.close()


class Client:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def get(self, path: str = "/") -> tuple[int, str]:
        """Return status and body; raise `AssertionError` when the connection is closed."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(CAP):
            head = await self._reader.readuntil(b"\r\n\r\n")
            lines = head.decode().lower().split("\r\n")
            length = next(int(x.split(":")[1]) for x in lines if x.startswith("content-length"))
            body = await self._reader.readexactly(length)
        return int(lines[0].split()[1]), body.decode()

    def close(self) -> None:
        self._writer.close()
