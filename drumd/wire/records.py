"""Records of the scoreboard as values: for whoever reads them. Workers only write cells."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from drumd.wire.scoreboard import DURATION_CELLS, Cell, Scoreboard


@dataclass(frozen=True, slots=True)
class Record:
    """What one record said at one moment. Field meanings: `Cell`."""

    pid: int = 0
    beat_ns: int = 0
    started: int = 0
    finished: int = 0
    oldest_ns: int = 0
    progress_ns: int = 0
    capacity: int = 0
    busy_ns: int = 0
    status_1xx: int = 0
    status_2xx: int = 0
    status_3xx: int = 0
    status_4xx: int = 0
    status_5xx: int = 0
    no_status: int = 0
    connections: int = 0
    lag_ns: int = 0
    log_dropped: int = 0
    durations: tuple[int, ...] = (0,) * DURATION_CELLS

    @property
    def in_flight(self) -> int:
        """Requests in flight; never negative, though the two cells are read one after the other."""
        return max(0, self.started - self.finished)


_SCALARS = tuple(field.name for field in fields(Record))[:-1]


def read_record(board: Scoreboard, lease: int) -> Record:
    """Return what `lease`'s record says now."""
    values = board.values(lease)
    scalars = dict(zip(_SCALARS, values, strict=False))
    return Record(**scalars, durations=tuple(values[Cell.DURATIONS :]))


def add_counters(total: Sequence[int], record: Record) -> tuple[int, ...]:
    """Add the counters of `record` (not its gauges) to `total`, as `COUNTERS` orders them."""
    return tuple(t + c for t, c in zip(total, counters(record), strict=True))


COUNTERS = (
    "started",
    "finished",
    "busy_ns",
    "status_1xx",
    "status_2xx",
    "status_3xx",
    "status_4xx",
    "status_5xx",
    "no_status",
    "log_dropped",
)
"""The fields of a record that only grow; the histogram's cells follow them in `counters`."""


def counters(record: Record) -> tuple[int, ...]:
    """Return the record's counters, the histogram's cells last."""
    return (*(getattr(record, name) for name in COUNTERS), *record.durations)


NO_COUNTS = (0,) * (len(COUNTERS) + DURATION_CELLS)
"""What a pool starts from."""
