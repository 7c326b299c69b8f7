"""Events: what happened, in the past tense. Those of a worker carry its attempt."""

from dataclasses import dataclass

from drumd.supervisor.core.model import Operation, Policy, Room


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEvent:
    """Something that happened to, or was said by, one worker."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnFailed(WorkerEvent):
    """No process could be started."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BecameReady(WorkerEvent):
    """It could serve now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedFailure(WorkerEvent):
    """It said why it cannot go on; its exit follows."""

    error: str
    final: bool = False
    """Another try would end in the same way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeganLeaving(WorkerEvent):
    """It drains by itself, since somebody else sent it a signal."""

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained(WorkerEvent):
    """Its last connection is closed; its exit follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostContact(WorkerEvent):
    """Its control socket is closed, but the process lives on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(WorkerEvent):
    """Its heartbeat is late."""

    late: float
    busy: bool
    """A request is in flight: work explains it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(WorkerEvent):
    """Its heartbeat is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hung(WorkerEvent):
    """It is held to make no progress any more."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailed(WorkerEvent):
    """Its startup probe was not answered well; it is asked again until it is, or too late."""

    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecycleDue(WorkerEvent):
    """It has served its number of requests, its time, or uses more than its memory."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed(WorkerEvent):
    """Its state's patience ended; `decide` makes these itself out of `TimePassed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited(WorkerEvent):
    """The process ended."""

    description: str
    """For people: "exit 3", "killed by SIGKILL"."""
    foreign_signal: bool
    """Ended by a signal of the kind that people and programs send, not by the OOM killer."""
    answered: bool
    """It had finished at least one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """The daemon started this pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """Some deadline of the pool may have passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """An operator asked for something."""

    operation: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """An operator took it back."""

    operation_id: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconfigured:
    """The config was read again: what takes effect at once. `size` None: as before."""

    policy: Policy
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomMeasured:
    """How many further workers fit into memory; None: no limit is known."""

    room: Room | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadMeasured:
    """How busy the pool's ready workers are: a share from 0 to 1, and connections that wait."""

    busy: float
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownRequested:
    """The daemon is to stop: gracefully, or at once."""

    reason: str
    at_once: bool = False


PoolEvent = (
    Began
    | TimePassed
    | Submitted
    | Cancelled
    | Reconfigured
    | RoomMeasured
    | LoadMeasured
    | ShutdownRequested
)
Event = WorkerEvent | PoolEvent
