"""Facts: what happened and why, in words. Each decision is one; the journal keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Happened(StrEnum):
    """The closed list of event names."""

    DAEMON_STARTED = "daemon.started"
    DAEMON_READY = "daemon.ready"
    DAEMON_REEXECED = "daemon.reexeced"
    """Its program was replaced; its pid, workers and sockets are the same."""
    DAEMON_STOPPING = "daemon.stopping"
    DAEMON_STOPPED = "daemon.stopped"
    DAEMON_NOTICE = "daemon.notice"
    """Something an operator may want to know, in the reason; nothing changed."""
    CONFIG_WARNING = "config.warning"
    """Something that the config allows, and that is probably not meant."""
    SIGNAL_RECEIVED = "signal.received"
    POOL_READY = "pool.ready"
    POOL_DEGRADED = "pool.degraded"
    POOL_STARTED = "pool.started"
    POOL_STOPPED = "pool.stopped"
    POOL_SCALED = "pool.scaled"
    POOL_LOST = "pool.lost"
    SLOT_BACKOFF = "slot.backoff"
    SLOT_FAILED = "slot.failed"
    SLOT_RETIRED = "slot.retired"
    WORKER_SPAWNED = "worker.spawned"
    WORKER_LOADED = "worker.loaded"
    WORKER_READY = "worker.ready"
    WORKER_STALLED = "worker.stalled"
    WORKER_RECOVERED = "worker.recovered"
    WORKER_HUNG = "worker.hung"
    WORKER_STACKS = "worker.stacks"
    WORKER_DRAINING = "worker.draining"
    WORKER_STOPPING = "worker.stopping"
    WORKER_KILLING = "worker.killing"
    WORKER_FAILED = "worker.failed"
    WORKER_EXITED = "worker.exited"
    WORKER_STRAYS = "worker.strays"
    ROLLOUT_STARTED = "rollout.started"
    ROLLOUT_PROVEN = "rollout.proven"
    ROLLOUT_DONE = "rollout.done"
    ROLLOUT_ABORTED = "rollout.aborted"
    TEMPLATE_SPAWNED = "template.spawned"
    TEMPLATE_READY = "template.ready"
    TEMPLATE_EXITED = "template.exited"
    SPARE_PROMOTED = "spare.promoted"
    OPERATION_QUEUED = "operation.queued"
    OPERATION_STARTED = "operation.started"
    OPERATION_DONE = "operation.done"
    OPERATION_FAILED = "operation.failed"
    OPERATION_CANCELLED = "operation.cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that happened, and why. `extra` holds further log keys (pid, exit, …)."""

    event: Happened
    reason: str
    pool: str | None = None
    slot: int | None = None
    generation: int | None = None
    attempt: int | None = None
    extra: Mapping[str, int | float | str | None] = field(default_factory=dict)
