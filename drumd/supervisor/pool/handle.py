"""The supervisor's object for one worker process; never code that runs inside one."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from drumd.supervisor.core.model import Kind
from drumd.supervisor.health.watch import Pulse
from drumd.supervisor.processes.cgroup import WorkerCgroup
from drumd.supervisor.processes.control import ControlEnd
from drumd.supervisor.processes.pipes import LinePipe
from drumd.supervisor.processes.spawn import Child

LAST_LINES = 20
"""Lines of a worker's stderr that go with the reason of its failure."""


@dataclass(slots=True, kw_only=True)
class Handle:
    """What the supervisor holds of a worker: its ends of socket and pipes, and what it was told.

    A template's is of the same kind; it has no lease.
    """

    attempt: int
    kind: Kind = Kind.SLOT
    slot: int
    """The number of its place, as `core.model.Worker.slot`; changes when a spare gets a slot."""
    generation: int
    lease: int | None
    child: Child
    metrics_dir: Path | None = None
    """Of its generation, which may be forgotten when its files are settled."""
    cgroup: WorkerCgroup | None = None
    control: ControlEnd | None = None
    pipes: list[LinePipe | None] = field(default_factory=list)
    """stdout, stderr, stacks; None for one that had ended before a re-exec."""
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    explained: bool = False
    """It has said over its control socket why it cannot go on."""
    final: bool = False
    """And that another try would end the same."""
    stacks: list[str] = field(default_factory=list)
    """Lines of a stack dump that is still coming in."""
    sent: set[int] = field(default_factory=set)
    """Signals that it got from drumd."""
    was_at: str = ""
    """Where it was by the latest stack dump."""
    handover: bool = False
    """It can give idle connections to another worker, and take them from one."""
    epoch: int = 0
    acknowledged: int = 0
    """The latest epoch that the worker has told to have in effect."""
    told: frozenset[int] | None = None
    """Ids of the listeners that it was last told to accept from."""
    pulse: Pulse | None = None
    probed: int = 0
    """Requests that drumd itself has sent to it."""
    private: int | None = None
    """Bytes of memory that are its alone, when it was last measured."""

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self.child.pid

    @property
    def numbered(self) -> int | None:
        """The slot's number, where it is in one: a spare and a template are not."""
        return self.slot if self.kind is Kind.SLOT else None
