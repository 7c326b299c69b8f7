"""The supervisor's object for one worker process; never code that runs inside one."""

from collections import deque
from dataclasses import dataclass, field

from drumd.supervisor.health.watch import Pulse
from drumd.supervisor.processes.cgroup import WorkerCgroup
from drumd.supervisor.processes.control import ControlEnd
from drumd.supervisor.processes.pipes import LinePipe
from drumd.supervisor.processes.spawn import Child

LAST_LINES = 20
"""Lines of a worker's stderr that go with the reason of its failure."""


@dataclass(slots=True, kw_only=True)
class Handle:
    """What the supervisor holds of a worker: its ends of socket and pipes, and what it was told."""

    attempt: int
    slot: int
    generation: int
    lease: int
    child: Child
    cgroup: WorkerCgroup | None = None
    control: ControlEnd | None = None
    pipes: list[LinePipe | None] = field(default_factory=list)
    """stdout, stderr, stacks; None for one that had ended before a re-exec."""
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    explained: bool = False
    """It has said over its control socket why it cannot go on."""
    stacks: list[str] = field(default_factory=list)
    """Lines of a stack dump that is still coming in."""
    epoch: int = 0
    acknowledged: int = 0
    """The latest epoch that the worker has told to have in effect."""
    told: frozenset[int] | None = None
    """Ids of the listeners that it was last told to accept from."""
    pulse: Pulse | None = None

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self.child.pid
