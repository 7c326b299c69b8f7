"""The office: the daemon as its admin API sees it."""

import os
from collections.abc import Callable
from typing import Any

from drumd import __version__
from drumd.config.kinds import MAX_WORKERS
from drumd.config.loading import Loaded
from drumd.config.modelserver.server_type import is_one_process
from drumd.supervisor.admin.desk import Desk
from drumd.supervisor.admin.operator import (
    FINAL,
    MAX_QUEUED,
    DaemonTask,
    Operation,
    Pending,
    RefusedError,
    Reload,
    UnknownNameError,
    unknown_pool,
)
from drumd.supervisor.admin.status import daemon_document, pool_numbers
from drumd.supervisor.core.events import Cancelled, Submitted
from drumd.supervisor.core.model import Operation as CoreOperation
from drumd.supervisor.core.model import OperationKind, OperationState, Pool
from drumd.supervisor.core.views import pool_reason, pool_state, serves, wanted_slots
from drumd.supervisor.observe.journal import Journal
from drumd.supervisor.observe.logging import Logs
from drumd.supervisor.observe.snapshot import Snapshot
from drumd.supervisor.owner import Owner
from drumd.supervisor.pool.hands import Hands
from drumd.supervisor.pool.watching import record_of
from drumd.supervisor.processes.exits import Exits
from drumd.supervisor.reloading import Reloader
from drumd.wire.scoreboard import Scoreboard


class Office:
    """Answers questions about the daemon, and takes operations in (`operator.Operator`)."""

    def __init__(
        self,
        owner: Owner,
        hands: dict[str, Hands],
        desk: Desk,
        journal: Journal,
        board: Scoreboard,
        *,
        exits: Exits,
        logs: Logs,
        reloader: Reloader,
        admin_socket: str | None,
        started_at: float,
        re_exec: Callable[[str], Operation],
    ) -> None:
        self._owner = owner
        self._hands = hands
        self._desk = desk
        self._journal = journal
        self._board = board
        self._exits = exits
        self._logs = logs
        self._started_at = started_at
        self._re_exec = re_exec
        self._reloader = reloader
        self._admin_socket = admin_socket

    @property
    def journal(self) -> Journal:
        """The ordered record of events."""
        return self._journal

    def status(self) -> dict[str, Any]:
        """Return the document of `drumctl status --json`."""
        return daemon_document(
            self._owner.pools,
            self._hands,
            self._board,
            admin_socket=self._admin_socket,
            started_at=self._started_at,
            ending=self._owner.ended is not None,
        )

    def snapshot(self) -> Snapshot:
        """Return the numbers behind `/metrics`."""
        return Snapshot(
            version=__version__,
            pid=os.getpid(),
            started_at=self._started_at,
            pools=tuple(
                pool_numbers(pool, self._hands[name], self._board)
                for name, pool in self._owner.pools.items()
            ),
            orphans_reaped=self._exits.orphans_reaped,
            log_lines_dropped=self._logs.dropped,
        )

    def submit(
        self,
        kind: OperationKind,
        pool: str,
        *,
        by: str,
        slot: int | None = None,
        size: int | None = None,
        generation: int | None = None,
        preload: bool = False,
    ) -> Operation:
        """Queue an operation; raise `UnknownNameError` or `RefusedError`.

        A reload is of `generation`, which forks its workers from a template with `preload`.
        """
        known = self._pool(pool)
        self._check(kind, known, slot, size)
        operation = CoreOperation(
            id=self._desk.new_id(pool),
            kind=kind,
            slot=slot,
            size=size,
            generation=generation,
            preload=preload,
            by=by,
        )
        self._desk.update(pool, (operation,))
        self._owner.post(pool, Submitted(operation=operation))
        return self._desk.get(operation.id)

    async def reload(self, pool: str | None, *, by: str) -> Reload:
        """Read the config again and begin what it changes, of one pool or of all."""
        return await self._reloader.reload(pool, by)

    def config(self) -> Loaded:
        """Return the config in force."""
        return self._reloader.loaded

    async def changes(self) -> Pending:
        """Return what a reload would change."""
        return await self._reloader.changes()

    def operation(self, operation_id: str) -> Operation:
        """Return an operation; raise `UnknownNameError`."""
        return self._desk.get(operation_id)

    async def wait(self, operation_id: str, timeout: float) -> Operation:  # noqa: ASYNC109 - see Operator
        """Return the operation once it changed, or after `timeout` seconds."""
        return await self._desk.wait(operation_id, timeout)

    def cancel(self, operation_id: str, *, by: str) -> Operation:
        """Cancel what has not taken effect; raise `UnknownNameError` or `RefusedError`."""
        operation = self._desk.get(operation_id)
        if operation.state in FINAL:
            raise RefusedError(
                f"cannot cancel {operation_id}: it is {operation.state.value} ({operation.reason})"
            )
        if isinstance(operation.kind, DaemonTask):
            raise RefusedError(
                f"cannot cancel {operation_id}: it ends by itself within moments, well or not"
            )
        running = operation.state is OperationState.RUNNING
        if running and operation.kind not in (OperationKind.RESTART, OperationKind.RELOAD):
            undo = {
                OperationKind.STOP: f"drumctl start {operation.pool}",
                OperationKind.START: f"drumctl stop {operation.pool}",
                OperationKind.SCALE: f"drumctl scale {operation.pool} N",
            }[operation.kind]
            raise RefusedError(
                f"cannot cancel {operation_id}: the {operation.kind.value} has taken effect; "
                f"undo it by `{undo}`"
            )
        self._owner.post(operation.pool, Cancelled(operation_id=operation_id, by=by))
        return operation

    def re_exec(self, *, by: str) -> Operation:
        """Replace the daemon's own program, workers untouched; raise `RefusedError`."""
        return self._re_exec(by)

    def release(self) -> None:
        """Let all who wait or follow have an answer now; they ask again."""
        self._desk.release()
        self._journal.part()

    def shutdown(self, *, by: str) -> None:
        """Stop the daemon gracefully, as SIGTERM does."""
        self._owner.stop(f"asked by {by}")

    def farewell(self, again: str) -> str:
        """Say what a graceful stop would wait for now; `again` ends it at once."""
        pools = self._owner.pools
        records = [
            record_of(self._board, handle)
            for name in pools
            for handle in self._hands[name].crew.handles.values()
            if handle.lease is not None
        ]
        requests = sum(record.in_flight for record in records)
        patience = max((pool.policy.grace_period for pool in pools.values()), default=0.0)
        what = f"{requests} request{'' if requests == 1 else 's'} in flight"
        return (
            f"stops, and waits for {what} and idle connections, for {patience:g} s "
            f"at most; {again} ends it at once"
        )

    def ready(self) -> tuple[bool, str]:
        """Say whether every pool that should serve does, and which does not and why."""
        if self._owner.ended is not None:
            return False, self._owner.ended.reason
        # A pool that serves with fewer workers than wanted still serves: taking the whole machine
        # out of service for one crashed worker would make things worse.
        silent = [
            f"{name}: {pool_state(pool).value}, {pool_reason(pool)}"
            for name, pool in self._owner.pools.items()
            if pool.up and not any(serves(pool, slot) for slot in wanted_slots(pool))
        ]
        return (not silent, "; ".join(silent) or "every pool serves")

    def scale_only_pool(self, by_how_many: int, signal_name: str) -> str:
        """Scale the only pool by a signal; return what is to be told when that is not possible."""
        if len(self._owner.pools) != 1:
            return "cannot tell which pool to scale; use `drumctl scale POOL N`"
        name, pool = next(iter(self._owner.pools.items()))
        size = _size_to_be(pool) + by_how_many
        if size < 1:
            return f"cannot take pool {name} its last worker; use `drumctl stop {name}`"
        try:
            self.submit(OperationKind.SCALE, name, slot=None, size=size, by=signal_name)
        except RefusedError as error:
            return str(error)
        return ""

    def _pool(self, name: str) -> Pool:
        pools = self._owner.pools
        if name not in pools:
            raise unknown_pool(name, pools)
        return pools[name]

    def _check(self, kind: OperationKind, pool: Pool, slot: int | None, size: int | None) -> None:
        if self._owner.ended is not None:
            raise RefusedError(f"cannot {kind.value} pool {pool.name}: drumd stops")
        if pool.name in self._owner.leaving:
            raise RefusedError(
                f"cannot {kind.value} pool {pool.name}: the config has it no more, and it is ending"
            )
        slots = _size_to_be(pool)
        if slot is not None and not 0 <= slot < slots:
            known = f"slots of {pool.name} are 0 to {slots - 1}"
            if slots == 1:
                known = f"only slot is {pool.name}/0"
            raise UnknownNameError(f"cannot find slot {pool.name}/{slot}: the {known}")
        if kind is OperationKind.SCALE and not (size is not None and 1 <= size <= MAX_WORKERS):
            raise RefusedError(
                f"cannot scale pool {pool.name} to {size}: give 1 to {MAX_WORKERS} workers, "
                f"or `drumctl stop {pool.name}`"
            )
        pools = self._reloader.loaded.settings.pools
        if kind is OperationKind.SCALE and size != 1 and is_one_process(pools[pool.name]):
            raise RefusedError(
                f"cannot scale pool {pool.name} to {size}: the server type flask is one process; "
                "set DRUM_SERVER_TYPE to gunicorn or fastapi, and `drumctl reload`"
            )
        if kind is OperationKind.RESTART and not pool.up and not pool.operations:
            raise RefusedError(
                f"cannot restart pool {pool.name}: it is stopped; `drumctl start {pool.name}`"
            )
        if len(pool.operations) >= MAX_QUEUED:
            raise RefusedError(
                f"cannot {kind.value} pool {pool.name}: {MAX_QUEUED} operations wait already; "
                "cancel some with `drumctl cancel ID`"
            )


def _size_to_be(pool: Pool) -> int:
    """Return the pool's size once the operations that wait before the next one are done."""
    sizes = [operation.size for operation in pool.operations if operation.size is not None]
    return sizes[-1] if sizes else pool.size
