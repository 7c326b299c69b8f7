"""What a pool has counted over all its workers' lives: it only grows."""

from bisect import bisect_left
from collections import Counter

from drumd.supervisor.observe.snapshot import START_BOUNDS
from drumd.wire.records import NO_COUNTS, Record, add_counters


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

    def fold(self, record: Record) -> None:
        """Add an ended worker's counters; exactly once for each worker."""
        self.folded = add_counters(self.folded, record)

    def started(self, seconds: float) -> None:
        """Count a worker that became ready after `seconds`."""
        self.start_durations[bisect_left(START_BOUNDS, seconds)] += 1
        self.start_seconds += seconds
