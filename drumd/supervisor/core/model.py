"""The state of a pool: immutable values, changed only by `decide`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a place is for, and so what the process in it is."""

    SLOT = "slot"
    SPARE = "spare"
    """A ready worker that gets the next slot that needs one."""
    TEMPLATE = "template"
    """Has imported the app of a generation, and forks its workers."""


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
    ROLLOUT = "rollout"
    RECYCLED = "recycled"
    """Planned: it had served its number of requests, its time, or used its memory."""
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
    RELOAD = "reload"
    """A rollout: bring the pool to a new generation."""


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


class Tight(StrEnum):
    """What to do when the memory has no room for another worker beside those that run."""

    REFUSE = "refuse"
    NO_SURGE = "no-surge"
    """End the old worker first."""
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """When a pool grows and shrinks by itself. Durations are in seconds."""

    least: int
    most: int
    up_at: float = 0.8
    """Busy share (0 to 1) at or above which it grows."""
    down_at: float = 0.3
    """Busy share at or below which it shrinks."""
    queue: int = 1
    """Waiting connections, as many as workers times this, that count as busy at once."""
    up_after: float = 5.0
    """How long it must be above before a step up."""
    down_after: float = 60.0
    cooldown: float = 15.0
    """Least time between two steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a pool is run. Durations are in seconds."""

    start_timeout: float = 60.0
    raised_by: str = "start_timeout"
    """What an operator sets to let a start take longer."""
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
    max_surge: int = 1
    """Workers above the pool's size that may be starting at a time; draining ones do not count."""
    max_unavailable: int = 0
    """Slots that a rollout or a recycle may leave without a ready worker at a time."""
    min_ready: float = 1.0
    """How long the first new worker must have served before the next old one is replaced."""
    tight: Tight = Tight.REFUSE
    spares: int = 0
    scaling: Scaling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How many further workers fit into memory now."""

    workers: int
    why: str
    """The figures behind it, for people: "1.2 GB free, a worker takes 800 MB"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The way of a pool to a new generation."""

    generation: int
    preload: bool
    operation: str
    """Id of the operation that it carries out."""
    proven: bool = False
    """A worker of it has been ready."""
    killed: int = 0
    """Its workers that somebody killed before they were of use, since it last got on."""
    reached: int = 0
    """The most slots that have served it at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker process, a spare or a template included, by its attempt."""

    attempt: int
    kind: Kind = Kind.SLOT
    slot: int
    """The number of its place: of its slot, its spare's place, or a template's generation."""
    generation: int
    state: WorkerState
    since: float
    spawned_at: float
    deadline: float | None
    """When this state's patience ends; only `READY` waits for nothing."""
    reason: str
    ready_at: float | None = None
    stalled: bool = False
    outdated: str = ""
    """Why it is to be replaced, when its turn comes; "" while it is not."""
    outdated_by: Cause = Cause.OPERATOR
    waiting: str = ""
    """What its start waits for, when that is known."""
    failure: str = ""
    """What the worker itself said about why it cannot go on."""
    final: bool = False
    """It said as well that another try would end in the same way."""
    overdue: str = ""
    """Its exit has to follow by the deadline: what is said when it has not."""
    cause: Cause | None = None
    """Why drumd ends it; None while it does not."""
    template: int | None = None
    """The attempt of the template that it is forked from."""
    stuck: bool = False
    """Not even SIGKILL has ended it: nothing waits for it any more."""
    ladder: tuple[Rung, ...] = ()
    """The rungs that are left, once it is being ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A numbered place for a worker, a spare or a template, and its record of failures."""

    kind: Kind = Kind.SLOT
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
    next_generation: int | None = None
    """What it is to be filled with next; None: what the pool's vacant slots are filled with."""
    unrenewed: int = 0
    """Successors that failed here one after the other: the exponent of the wait for the next."""
    renew_at: float | None = None
    """A successor of a worker that serves on has failed: when the next one may be tried."""
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
    generation: int | None = None
    """Of a reload: what the pool is brought to; the shell has what this generation is."""
    preload: bool = False
    """Of a reload: whether its generation forks its workers from a template."""
    by: str = ""
    old: frozenset[int] = frozenset()
    """A restart's attempts that are to go."""
    progress: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSeen:
    """What the autoscaler remembers: instants in monotonic seconds."""

    above_since: float | None = None
    below_since: float | None = None
    changed_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool: what is wanted of it, and what is."""

    name: str
    policy: Policy
    size: int
    up: bool = False
    """Wanted: shall it serve?"""
    generation: int = 1
    """The one that serves; a rollout's becomes it when all slots have it."""
    preload: bool = False
    """Whether this generation forks its workers from a template."""
    latest: int = 1
    """The highest generation that was ever asked for: numbers are not used again."""
    rollout: Rollout | None = None
    aborted: str = ""
    """Why the last rollout was aborted; "" since one was complete."""
    renewal_at: float | None = None
    """When the first of its new workers will have served for long enough to replace more."""
    room: Room | None = None
    """None: the memory has no limit that is known, or nobody cares."""
    load: LoadSeen = LoadSeen()
    slots: tuple[Slot, ...] = ()
    """Slots 0 … size-1, then those of a scale-down that still have workers."""
    spares: tuple[Slot, ...] = ()
    templates: tuple[Slot, ...] = ()
    """One place for each generation that forks its workers, by its number."""
    workers: Mapping[int, Worker] = field(default_factory=dict)
    next_attempt: int = 1
    added: bool = False
    """It came by a reload: that it never gets ready is no reason to end what serves already."""
    was_ready: bool = False
    """A worker of it has been ready since the daemon started."""
    was_whole: bool = False
    """All its slots have been ready at once since it was last started."""
    closing: bool = False
    """The daemon stops: nothing is started any more."""
    operations: tuple[Operation, ...] = ()
    """Unfinished ones in order; the first may be running."""
