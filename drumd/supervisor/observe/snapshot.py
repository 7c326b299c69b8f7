"""The numbers of one moment, from which metrics are rendered; immutable, safe in any thread."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drumd.wire.records import Record

OUTCOMES = ("done", "aborted", "superseded")
"""How rollouts end; "superseded": by a later one, or by a stop of the pool."""
START_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the histogram of start durations (spawn to ready), in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNumbers:
    """One live worker."""

    slot: int
    lease: int
    pid: int
    state: str
    stalled: bool
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolNumbers:
    """One pool. Counters never go back: `folded` keeps what ended workers counted."""

    name: str
    runtime: str
    state: str
    generation: int
    size: int
    slots_by_state: Mapping[str, int]
    workers: tuple[WorkerNumbers, ...]
    folded: tuple[int, ...]
    """Counters of ended workers (`drumd.wire.scoreboard.counters` gives the order)."""
    exits: Mapping[str, int]
    """Ended workers by cause, from a closed list (crash, failed-start, hung, operator, …)."""
    start_durations: tuple[int, ...]
    """Workers that became ready, by duration: one cell for each of START_BOUNDS and the rest."""
    start_seconds: float
    """Sum of all start durations."""
    queues: Mapping[str, int]
    """Connections that wait in accept queues, by listener (address, and slot where it has one)."""
    spares_ready: int = 0
    templates_ready: int = 0
    rollouts: Mapping[str, int] = field(default_factory=dict)
    """Rollouts that have ended, by outcome."""
    handed: int = 0
    """Idle connections that drained workers have handed to others."""
    metrics_dirs: tuple[Path, ...]
    """Where the app's prometheus_client files are, by generation; the one that counts first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything."""

    version: str
    pid: int
    started_at: float
    """Wall time, seconds since the epoch."""
    pools: tuple[PoolNumbers, ...]
    orphans_reaped: int = 0
    log_lines_dropped: int = 0
    extra: Mapping[str, float] = field(default_factory=dict)
