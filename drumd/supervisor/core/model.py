"""The state of a pool: immutable values, changed only by `decide`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class WorkerState(StrEnum):
    """Where a worker is in its life. An exited worker is forgotten; only late events meet it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    KILLING = "killing"
    EXITED = "exited"


class SlotState(StrEnum):
    """What a slot does. `EMPTY` lasts only while nothing is wanted there."""

    EMPTY = "empty"
    FILLED = "filled"
    BACKOFF = "backoff"
    FAILED = "failed"


class PoolState(StrEnum):
    """What a pool is as a whole; derived from the rest (`views.pool_state`)."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Cause(StrEnum):
    """Why a worker ended, for metrics and for what follows: a closed list."""

    CRASH = "crash"
    FAILED_START = "failed-start"
    START_TIMEOUT = "start-timeout"
    HUNG = "hung"
    SIGNALLED = "signalled"
    """By a signal that drumd did not send, the out-of-memory killer's excepted."""
    OPERATOR = "operator"
    SHUTDOWN = "shutdown"


class Rung(StrEnum):
    """A step of the ladder that a worker is ended by, each with some patience before the next."""

    STACKS = "stacks"
    TERMINATE = "terminate"
    KILL = "kill"


class OperationKind(StrEnum):
    """What an operator may have done to a pool."""

    RESTART = "restart"
    STOP = "stop"
    START = "start"
    SCALE = "scale"


class OperationState(StrEnum):
    """Where an operation is in its life; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ALLOWED: Mapping[WorkerState, frozenset[WorkerState]] = {
    WorkerState.STARTING: frozenset({WorkerState.READY, WorkerState.STOPPING, WorkerState.KILLING}),
    WorkerState.READY: frozenset({WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLING}),
    WorkerState.DRAINING: frozenset({WorkerState.STOPPING, WorkerState.KILLING}),
    WorkerState.STOPPING: frozenset({WorkerState.STOPPING, WorkerState.KILLING}),
    WorkerState.KILLING: frozenset({WorkerState.KILLING}),
    WorkerState.EXITED: frozenset(),
}
"""Where a worker may go from each state; any state may end in an exit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a pool is run. Durations are in seconds."""

    start_timeout: float = 60.0
    grace_period: float = 25.0
    linger: float = 2.0
    stop_timeout: float = 3.0
    intensity: int = 4
    period: float = 60.0
    backoff_initial: float = 0.1
    backoff_max: float = 30.0
    stable_after: float = 10.0
    retry_after: float = 300.0
    exit_on_exhausted: bool = False
    essential: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker process, by its attempt."""

    attempt: int
    slot: int
    generation: int
    state: WorkerState
    since: float
    spawned_at: float
    deadline: float | None
    """When this state's patience ends; only `READY` waits for nothing."""
    reason: str
    ready_at: float | None = None
    stalled: bool = False
    failure: str = ""
    """What the worker itself said about why it cannot go on."""
    overdue: str = ""
    """Its exit has to follow by the deadline: what is said when it has not."""
    cause: Cause | None = None
    """Why drumd ends it; None while it does not."""
    ladder: tuple[Rung, ...] = ()
    """The rungs that are left, once it is being ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A numbered place, and its record of failures."""

    number: int
    state: SlotState = SlotState.EMPTY
    since: float = 0.0
    reason: str = "not started"
    incumbent: int | None = None
    successor: int | None = None
    """Set only beside an incumbent: one that is left alone takes its place."""
    retry_at: float | None = None
    crashes: tuple[float, ...] = ()
    """When the counted crashes were, the latest last; those before `period` are dropped."""
    failures: int = 0
    """Counted crashes since it was last stable: the exponent of the backoff."""
    probation: bool = False
    """It has failed and is tried again: one more failure fails it at once."""
    spawned: int = 0
    """Workers that were started here, ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that an operator asked for; a pool carries them out one at a time."""

    id: str
    kind: OperationKind
    state: OperationState = OperationState.QUEUED
    reason: str = "queued"
    slot: int | None = None
    size: int | None = None
    by: str = ""
    old: frozenset[int] = frozenset()
    """A restart's attempts that are to go."""
    successor: int | None = None
    """The attempt that a restart waits for."""
    successor_slot: int | None = None
    progress: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool: what is wanted of it, and what is."""

    name: str
    policy: Policy
    size: int
    up: bool = False
    """Wanted: shall it serve?"""
    generation: int = 1
    slots: tuple[Slot, ...] = ()
    """Slots 0 … size-1, then those of a scale-down that still have workers."""
    workers: Mapping[int, Worker] = field(default_factory=dict)
    next_attempt: int = 1
    was_ready: bool = False
    """A worker of it has been ready since the daemon started."""
    was_whole: bool = False
    """All its slots have been ready at once since it was last started."""
    closing: bool = False
    """The daemon stops: nothing is started any more."""
    operations: tuple[Operation, ...] = ()
    """Unfinished ones in order; the first may be running."""
