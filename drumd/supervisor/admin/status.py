"""What the daemon says of itself: the status document, and the numbers behind the metrics."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from drumd import __version__
from drumd.supervisor.core.model import (
    Kind,
    Operation,
    Pool,
    PoolState,
    Slot,
    SlotState,
    Worker,
    WorkerState,
)
from drumd.supervisor.core.views import outdated, places_of, pool_reason, pool_state
from drumd.supervisor.observe.memory import resident_memory
from drumd.supervisor.observe.snapshot import PoolNumbers, WorkerNumbers
from drumd.supervisor.pool.handle import Handle
from drumd.supervisor.pool.hands import Hands
from drumd.supervisor.pool.watching import record_of
from drumd.wire.scoreboard import Scoreboard


def daemon_document(
    pools: Mapping[str, Pool],
    hands: Mapping[str, Hands],
    board: Scoreboard,
    *,
    admin_socket: str | None,
    started_at: float,
    ending: bool,
) -> dict[str, Any]:
    """Return the document of `drumctl status --json`: fields are added, never renamed."""
    states = [pool_state(pool) for pool in pools.values()]
    return {
        "pid": os.getpid(),
        "version": __version__,
        "state": "stopping" if ending else _worst(states),
        "since": started_at,
        "admin_socket": admin_socket,
        "pools": [_pool_document(pool, hands[name], board) for name, pool in pools.items()],
    }


def _worst(states: list[PoolState]) -> str:
    order = (
        PoolState.FAILED,
        PoolState.STARTING,
        PoolState.DEGRADED,
        PoolState.STOPPING,
        PoolState.READY,
    )
    return next((state.value for state in order if state in states), PoolState.READY.value)


def _pool_document(pool: Pool, hands: Hands, board: Scoreboard) -> dict[str, Any]:
    wall = time.time() - time.monotonic()

    def workers(kind: Kind) -> list[dict[str, Any]]:
        return [
            _worker_document(pool, worker, hands.crew.handles.get(worker.attempt), board, wall)
            for worker in sorted(pool.workers.values(), key=lambda w: (w.slot, w.attempt))
            if worker.kind is kind
        ]

    return {
        "name": pool.name,
        "state": pool_state(pool).value,
        "generation": pool.generation,
        "runtime": hands.crew.runtime or "auto",
        "bind": list(hands.listeners.addresses),
        "size": pool.size,
        "balance": hands.listeners.balance,
        "essential": pool.policy.essential,
        "reason": pool_reason(pool),
        "operation": _operation_document(pool.operations[0]) if pool.operations else None,
        "queue": sum(hands.queue_depths().values()),
        "rollout": _rollout_document(pool),
        "aborted": pool.aborted,
        "workers": workers(Kind.SLOT),
        "slots": [_place_document(slot) for slot in pool.slots],
        "spares": workers(Kind.SPARE),
        "spare_places": [_place_document(place) for place in pool.spares],
        "templates": workers(Kind.TEMPLATE),
        "template_places": [_place_document(place) for place in pool.templates],
    }


def _rollout_document(pool: Pool) -> dict[str, Any] | None:
    rollout = pool.rollout
    if rollout is None:
        return None
    return {
        "generation": rollout.generation,
        "operation": rollout.operation,
        "proven": rollout.proven,
    }


def _operation_document(operation: Operation) -> dict[str, Any]:
    return {
        "id": operation.id,
        "kind": operation.kind.value,
        "state": operation.state.value,
        "reason": operation.reason,
        "progress": list(operation.progress),
    }


def _worker_document(
    pool: Pool, worker: Worker, handle: Handle | None, board: Scoreboard, wall: float
) -> dict[str, Any]:
    place = next(
        (p for p in places_of(pool, worker.kind) if p.number == worker.slot),
        None,
    )
    document: dict[str, Any] = {
        # A spare has the number of its place, a template that of its generation.
        "slot": worker.slot,
        "kind": worker.kind.value,
        "pid": None,
        "state": worker.state.value,
        "stalled": worker.stalled,
        "generation": worker.generation,
        "attempt": worker.attempt,
        "since": wall + worker.since,
        "restarts": max(0, place.spawned - 1) if place else 0,
        "reason": worker.reason,
        "outdated": outdated(pool, worker) if worker.kind is Kind.SLOT else "",
    }
    if handle is not None:
        record = record_of(board, handle)
        document |= {
            "pid": handle.pid,
            "lease": handle.lease,
            "requests": record.finished,
            "in_flight": record.in_flight,
            "oldest": _age(record.oldest_ns),
            "connections": record.connections,
            "memory": resident_memory(handle.pid),
        }
    return document


def _age(begun_ns: int) -> float | None:
    """Return for how many seconds the oldest request has been in flight; None without one."""
    return round(max(0.0, time.monotonic() - begun_ns / 1e9), 3) if begun_ns else None


def _place_document(slot: Slot) -> dict[str, Any]:
    retry_in = None if slot.retry_at is None else max(0.0, slot.retry_at - time.monotonic())
    return {
        "slot": slot.number,
        "state": slot.state.value,
        "reason": slot.reason,
        "retry_in": None if retry_in is None else round(retry_in, 2),
    }


def _ready(pool: Pool, kind: Kind) -> int:
    ready = (w for w in pool.workers.values() if w.state is WorkerState.READY)
    return sum(worker.kind is kind for worker in ready)


def pool_numbers(pool: Pool, hands: Hands, board: Scoreboard) -> PoolNumbers:
    """Return one pool's numbers."""
    workers = tuple(
        WorkerNumbers(
            slot=worker.slot,
            lease=handle.lease,
            pid=handle.pid,
            state=worker.state.value,
            stalled=worker.stalled,
            record=record_of(board, handle),
        )
        for worker in pool.workers.values()
        if (handle := hands.crew.handles.get(worker.attempt)) is not None
        and handle.lease is not None
        and worker.state is not WorkerState.EXITED
    )
    by_state = Counter(slot.state.value for slot in pool.slots)
    return PoolNumbers(
        name=pool.name,
        runtime=hands.crew.runtime or "auto",
        state=pool_state(pool).value,
        generation=pool.generation,
        size=pool.size,
        slots_by_state={state.value: by_state[state.value] for state in SlotState},
        workers=workers,
        folded=hands.crew.tally.folded,
        exits=dict(hands.crew.tally.exits),
        start_durations=tuple(hands.crew.tally.start_durations),
        start_seconds=hands.crew.tally.start_seconds,
        queues=hands.queue_depths(),
        spares_ready=_ready(pool, Kind.SPARE),
        templates_ready=_ready(pool, Kind.TEMPLATE),
        rollouts=dict(hands.crew.tally.rollouts),
        handed=hands.crew.tally.handed,
        metrics_dirs=hands.generations.metrics_dirs(pool.generation),
    )
