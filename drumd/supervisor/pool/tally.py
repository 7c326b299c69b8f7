"""What a pool has counted over all its workers' lives: it only grows."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from drumd.supervisor.observe.snapshot import START_BOUNDS
from drumd.wire.records import COUNTERS, NO_COUNTS, Record, add_counters


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTally:
    """A tally over a re-exec. Counters have their names: another version may order them anew."""

    counters: Mapping[str, int]
    durations: tuple[int, ...]
    exits: Mapping[str, int]
    start_durations: tuple[int, ...]
    start_seconds: float
    rollouts: Mapping[str, int] = field(default_factory=dict)
    handed: int = 0


class Tally:
    """Counters of ended workers, ends by cause, and how long starts took."""

    def __init__(self) -> None:
        self.folded: tuple[int, ...] = NO_COUNTS
        self.exits: Counter[str] = Counter()
        self.start_durations = [0] * (len(START_BOUNDS) + 1)
        self.start_seconds = 0.0
        self.rollouts: Counter[str] = Counter()
        """Rollouts that have ended, by outcome (`snapshot.OUTCOMES`)."""
        self.handed = 0
        """Idle connections that drained workers have handed to others."""

    def keep(self) -> KeptTally:
        """Return what `resume` needs."""
        return KeptTally(
            counters=dict(zip(COUNTERS, self.folded, strict=False)),
            durations=self.folded[len(COUNTERS) :],
            exits=dict(self.exits),
            start_durations=tuple(self.start_durations),
            start_seconds=self.start_seconds,
            rollouts=dict(self.rollouts),
            handed=self.handed,
        )

    def resume(self, kept: KeptTally) -> None:
        """Go on counting from before a re-exec."""
        self.folded = (*(kept.counters.get(name, 0) for name in COUNTERS), *kept.durations)
        self.exits = Counter(kept.exits)
        self.start_durations = list(kept.start_durations)
        self.start_seconds = kept.start_seconds
        self.rollouts = Counter(kept.rollouts)
        self.handed = kept.handed

    def fold(self, record: Record) -> None:
        """Add an ended worker's counters; exactly once for each worker."""
        self.folded = add_counters(self.folded, record)

    def started(self, seconds: float) -> None:
        """Count a worker that became ready after `seconds`."""
        self.start_durations[bisect_left(START_BOUNDS, seconds)] += 1
        self.start_seconds += seconds
