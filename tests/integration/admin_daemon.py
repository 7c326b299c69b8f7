"""A daemon as its admin API sees one: pools in memory, a real server on real sockets.

`python -m tests.integration.admin_daemon SOCKET [--group G] [--public]` runs one until it is told
to stop, and prints "ready" and, with `--public`, the port of its TCP address.

Pools: `web` does what is asked at once; `model` is degraded; operations on `slow` run until they
are cancelled; `broken` fails them.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Any

from drumd.config.diff import Changes, diff
from drumd.config.loading import Loaded, load
from drumd.supervisor.admin.operator import (
    FINAL,
    Operation,
    Pending,
    RefusedError,
    Reload,
    UnknownNameError,
)
from drumd.supervisor.admin.server import AdminServer, bind_public
from drumd.supervisor.admin.socket import claim
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import OperationKind, OperationState
from drumd.supervisor.observe.appmetrics import AppMetrics
from drumd.supervisor.observe.journal import Journal
from drumd.supervisor.observe.snapshot import START_BOUNDS, PoolNumbers, Snapshot
from drumd.wire.records import NO_COUNTS

STARTED = time.time() - 3725
LAST_LINES = (
    "Traceback (most recent call last):",
    '  File "shop.py", line 3',
    "SyntaxError: invalid syntax",
    "drumd: cannot import shop:app: SyntaxError: invalid syntax",
)


@dataclass
class MemoryPool:
    """What the test's operator knows of a pool."""

    name: str
    size: int
    state: str = "ready"
    reason: str = ""
    restarts: list[int] = field(default_factory=lambda: [0] * 64)
    balance: str = "per-slot"
    essential: bool = True

    def document(self) -> dict[str, Any]:
        slots, workers = [], []
        for slot in range(self.size):
            down = self.state == "degraded" and slot == 1
            up = not down and self.state != "stopped"
            slots.append(
                {
                    "slot": slot,
                    "state": "filled" if up else "backoff" if down else "empty",
                    "reason": "exited with 1: ModuleNotFoundError: no module named 'sklearn'"
                    if down
                    else "",
                    "retry_in": 2.34 if down else None,
                }
            )
            if up:
                workers.append(
                    {
                        "slot": slot,
                        "pid": 4711 + slot,
                        "state": "ready",
                        "stalled": self.state == "degraded" and slot == 2,
                        "generation": 1,
                        "attempt": slot + 1,
                        "lease": slot,
                        "since": STARTED + 5,
                        "restarts": self.restarts[slot],
                        "reason": "",
                        "requests": 1234 * (slot + 1),
                        "in_flight": slot,
                        "memory": 86_000_000,
                    }
                )
        return {
            "name": self.name,
            "state": self.state,
            "generation": 1,
            "runtime": "uvicorn",
            "bind": ["127.0.0.1:8000"],
            "size": self.size,
            "balance": self.balance,
            "essential": self.essential,
            "reason": self.reason,
            "operation": None,
            "queue": 0,
            "workers": workers,
            "slots": slots,
        }


class MemoryOperator:
    """The Operator over pools in memory."""

    def __init__(self, socket_path: str = "", pools: tuple[MemoryPool, ...] | None = None) -> None:
        self.journal = Journal(100)
        self.stopped = asyncio.Event()
        self.is_ready = (True, "all pools are ready")
        self.snapshots = 0
        self._socket_path = socket_path
        if pools is None:
            pools = (
                MemoryPool("web", 2),
                MemoryPool("model", 3, "degraded", "1 of 3 slots serves nothing"),
                MemoryPool("slow", 4),
                MemoryPool("broken", 1),
            )
        self.pools = {pool.name: pool for pool in pools}
        self._operations: dict[str, Operation] = {}
        self._changed = asyncio.Condition()

    def status(self) -> dict[str, Any]:
        pools = [pool.document() for pool in self.pools.values()]
        ready = all(pool["state"] == "ready" for pool in pools)
        return {
            "pid": os.getpid(),
            "version": "0.1.0",
            "state": "ready" if ready else "degraded",
            "since": STARTED,
            "admin_socket": self._socket_path,
            "pools": pools,
        }

    def snapshot(self) -> Snapshot:
        self.snapshots += 1
        pools = tuple(
            PoolNumbers(
                name=pool.name,
                runtime="uvicorn",
                state=pool.state,
                generation=1,
                size=pool.size,
                slots_by_state={"filled": pool.size},
                workers=(),
                folded=NO_COUNTS,
                exits={},
                start_durations=(0,) * (len(START_BOUNDS) + 1),
                start_seconds=0.0,
                queues={},
                metrics_dirs=(),
            )
            for pool in self.pools.values()
        )
        return Snapshot(version="0.1.0", pid=os.getpid(), started_at=STARTED, pools=pools)

    def submit(
        self, kind: OperationKind, pool: str, *, slot: int | None, size: int | None, by: str
    ) -> Operation:
        found = self.pools.get(pool)
        if found is None:
            raise UnknownNameError(
                f"cannot {kind} {pool!r}: no such pool; there are {', '.join(self.pools)}"
            )
        if slot is not None and slot >= found.size:
            raise UnknownNameError(
                f"cannot {kind} {pool}/{slot}: there are slots 0 to {found.size - 1}"
            )
        if kind is OperationKind.START and found.state == "ready":
            raise RefusedError(f"cannot start {pool}: it runs already")
        steps = size if size is not None else 1 if slot is not None else found.size
        operation = Operation(
            id=f"op-{len(self._operations) + 1}",
            pool=pool,
            kind=kind,
            state=OperationState.QUEUED,
            reason="waits for its turn",
            slot=slot,
            size=size,
            progress=(0, steps),
            requested_by=by,
            slots=("old",) * steps,
        )
        self._operations[operation.id] = operation
        self._tell(Happened.OPERATION_QUEUED, operation)
        asyncio.get_running_loop().create_task(self._run(operation))
        return operation

    def operation(self, operation_id: str) -> Operation:
        try:
            return self._operations[operation_id]
        except KeyError:
            raise UnknownNameError(
                f"cannot find operation {operation_id!r}: there are {list(self._operations)}"
            ) from None

    async def wait(self, operation_id: str, timeout: float) -> Operation:  # noqa: ASYNC109 - as the protocol
        before = self.operation(operation_id)
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self.operation(operation_id) != before)
        except TimeoutError:
            pass
        return self.operation(operation_id)

    def cancel(self, operation_id: str, *, by: str) -> Operation:
        operation = self.operation(operation_id)
        if operation.state in FINAL:
            raise RefusedError(f"cannot cancel {operation_id}: it is {operation.state} already")
        asyncio.get_running_loop().create_task(
            self._change(operation_id, OperationState.CANCELLED, f"cancelled by {by}", 1)
        )
        return operation

    def config(self) -> Loaded:
        return load(
            {"pools.web.app": "shop:app", "pools.web.workers": 2},
            {"DRUMD_POOLS__WEB__ENVIRONMENT__API_TOKEN": "hush"},
            None,
        )

    async def changes(self) -> Pending:
        before = self.config().settings
        if self.pools["web"].size != 3:
            return Pending(changes=Changes(), moved={})
        after = load({"pools.web.app": "shop:app", "pools.web.workers": 3}, {}, None).settings
        return Pending(changes=diff(before, after), moved={"web": "/srv/releases/2"})

    async def reload(self, pool: str | None, *, by: str) -> Reload:
        if self.pools["web"].state == "stopped":
            raise RefusedError("cannot use the changed config: 1 problem\n  pools.web.wrkers: ?")
        names = [pool] if pool else [name for name in self.pools if name != "model"]
        operations = tuple(
            self.submit(OperationKind.RELOAD, name, slot=None, size=None, by=by) for name in names
        )
        return Reload(operations=operations, notes=("pool model: scaled to 3 workers",))

    def re_exec(self, *, by: str) -> Operation:
        raise RefusedError(f"cannot re-exec: {by} asks a daemon of tests")

    def release(self) -> None:
        self.journal.part()

    def shutdown(self, *, by: str) -> None:
        self.journal.record(Fact(event=Happened.DAEMON_STOPPING, reason=f"asked by {by}"))
        self.stopped.set()

    def ready(self) -> tuple[bool, str]:
        return self.is_ready

    async def _run(self, operation: Operation) -> None:
        pool, (_, steps) = self.pools[operation.pool], operation.progress
        if pool.name == "broken":
            why = "slot 0: exited with 1 before it was ready: SyntaxError: invalid syntax"
            self._operations[operation.id] = replace(operation, last_lines=LAST_LINES)
            await self._change(operation.id, OperationState.FAILED, why, 0)
            return
        for done in range(steps):
            await self._change(operation.id, OperationState.RUNNING, f"waits for slot {done}", done)
            if pool.name == "slow":
                return
        if operation.kind is OperationKind.SCALE:
            pool.size = steps
        elif operation.kind is OperationKind.STOP:
            pool.state = "stopped"
        elif operation.kind is OperationKind.START:
            pool.state = "ready"
        await self._change(operation.id, OperationState.DONE, f"{steps} of {steps} done", steps)

    async def _change(self, operation_id: str, state: OperationState, why: str, done: int) -> None:
        async with self._changed:
            operation = self._operations[operation_id]
            total = operation.progress[1]
            slots = ["new"] * done + ["starting", *["old"] * total]
            operation = replace(
                operation,
                state=state,
                reason=why,
                progress=(done, total),
                slots=tuple(slots[:total]),
            )
            self._operations[operation_id] = operation
            self._changed.notify_all()
        if state in FINAL:
            self._tell(Happened(f"operation.{state}"), operation)

    def _tell(self, event: Happened, operation: Operation) -> None:
        extra = {"operation": operation.id, "by": operation.requested_by}
        self.journal.record(
            Fact(event=event, reason=operation.reason, pool=operation.pool, extra=extra)
        )


async def serve(path: str, group: str | None, *, public: bool) -> None:
    """Run the daemon until SIGTERM or `POST /stop`."""
    admin_socket = claim(path or None, group)
    operator = MemoryOperator(str(admin_socket.path))
    for reason in ("started", "all pools are ready"):
        operator.journal.record(Fact(event=Happened.DAEMON_NOTICE, reason=reason))
    sockets = bind_public("127.0.0.1:0") if public else []
    server = AdminServer(
        operator, AppMetrics(), admin_socket=admin_socket, public=sockets, group=group
    )
    await server.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, operator.stopped.set)
    ports = [str(listener.getsockname()[1]) for listener in sockets]
    sys.stdout.write(" ".join(["ready", *ports]) + "\n")
    sys.stdout.flush()
    await operator.stopped.wait()
    await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--group")
    parser.add_argument("--public", action="store_true")
    given = parser.parse_args()
    asyncio.run(serve(given.socket, given.group, public=given.public))


if __name__ == "__main__":
    main()
