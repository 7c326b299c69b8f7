"""What the hands of all pools share."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from drumd.supervisor.core.events import Event
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.observe.appmetrics import AppMetrics
from drumd.supervisor.observe.logging import Logs
from drumd.supervisor.observe.metricfiles import MetricFiles
from drumd.supervisor.pool.leases import Leases
from drumd.supervisor.processes.cgroup import Delegated
from drumd.supervisor.processes.exits import Exits
from drumd.supervisor.processes.oom import oom_kills
from drumd.wire.scoreboard import Scoreboard


class OutOfMemory:
    """Whether the kernel's out-of-memory killer has struck since the last look."""

    def __init__(self) -> None:
        self._known = oom_kills()

    def keep(self) -> int:
        """Return the count that `resume` needs."""
        return self._known

    def resume(self, known: int) -> None:
        """Go on from the count of before a re-exec: what was struck meanwhile counts."""
        self._known = known

    def struck(self) -> bool:
        """Say so, once for each rise of its count."""
        before, self._known = self._known, oom_kills()
        return self._known > before


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The daemon's parts that any pool needs; `post` and `tell` lead to the owner."""

    loop: asyncio.AbstractEventLoop
    instance: str
    """The mark of this daemon's processes."""
    supervisor_pid: int
    board: Scoreboard
    leases: Leases
    exits: Exits
    logs: Logs
    files: MetricFiles
    app_metrics: AppMetrics
    environ: Mapping[str, str]
    cgroup: Delegated | None
    look_interval: float
    post: Callable[[str, Event], None]
    tell: Callable[[Fact], None]
    out_of_memory: OutOfMemory = field(default_factory=OutOfMemory)
    background: set[asyncio.Task[None]] = field(default_factory=set)
    """Clearing away after workers; awaited before the daemon ends."""

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work` done beside the loop's other business, before the daemon ends."""
        task = self.loop.create_task(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    def notice(self, pool: str, text: str) -> None:
        """Tell the operator something about `pool` that changes nothing."""
        self.tell(Fact(event=Happened.DAEMON_NOTICE, reason=text, pool=pool))
