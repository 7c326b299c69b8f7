"""The worker's instruments: requests and heartbeats, written to its record of the scoreboard.

A request costs about a microsecond here, so there are no calls, no enum lookups and no lock where
none is needed. One process and one thread at a time write a record, so no update is lost.
"""

import os
import threading
from time import monotonic_ns

from drumd.wire.scoreboard import DURATION_BOUNDS, RECORD_CELLS, Cell, Scoreboard, duration_cell

# Plain integers: looking up a member of an IntEnum and adding to it would be half of the cost.
_BEAT = int(Cell.BEAT_NS)
_STARTED = int(Cell.STARTED)
_FINISHED = int(Cell.FINISHED)
_OLDEST = int(Cell.OLDEST_NS)
_PROGRESS = int(Cell.PROGRESS_NS)
_BUSY = int(Cell.BUSY_NS)
_NO_STATUS = int(Cell.NO_STATUS)
_LOG_DROPPED = int(Cell.LOG_DROPPED)
_STATUS = {
    1: int(Cell.STATUS_1XX),
    2: int(Cell.STATUS_2XX),
    3: int(Cell.STATUS_3XX),
    4: int(Cell.STATUS_4XX),
    5: int(Cell.STATUS_5XX),
}
_FASTEST = int(Cell.DURATIONS)
_FASTEST_NS = int(DURATION_BOUNDS[0] * 1e9)


class Meter:
    """One lease's instruments, for requests that begin and end in one thread: an event loop's.

    `capacity`: requests that can be served at once; 0 when that has no bound.
    """

    def __init__(
        self, board: Scoreboard, lease: int, beat_interval: float, *, capacity: int
    ) -> None:
        base = board.base(lease)
        self._cells = board.cells[base : base + RECORD_CELLS]
        self._interval_ns = int(beat_interval * 1e9)
        self._started = 0
        self._finished = 0
        self._in_flight: dict[int, int] = {}
        self._oldest = 0
        self._cells[Cell.PID] = os.getpid()
        self._cells[Cell.CAPACITY] = capacity
        # The mapping is shared with children that the app forks: they must not write this record.
        os.register_at_fork(after_in_child=self._detach)

    @property
    def in_flight(self) -> int:
        """Requests that have begun and not ended."""
        return len(self._in_flight)

    def begin(self) -> int:
        """Count a request's start; return its ticket for `end`."""
        now = monotonic_ns()
        cells = self._cells
        self._started = ticket = self._started + 1
        if not self._in_flight:
            self._oldest = cells[_OLDEST] = now
        self._in_flight[ticket] = now
        cells[_STARTED] = ticket
        cells[_PROGRESS] = now
        return ticket

    def end(self, ticket: int, status: int | None) -> None:
        """Count a request's end; `status` None: no answer was sent. A second end is ignored."""
        begun = self._in_flight.pop(ticket, None)
        if begun is None:
            return
        now = monotonic_ns()
        cells = self._cells
        if begun == self._oldest:
            # Dicts keep the order of insertion, so the first one left is the oldest.
            self._oldest = cells[_OLDEST] = next(iter(self._in_flight.values()), 0)
        cells[_PROGRESS] = now
        duration = now - begun
        cells[_BUSY] += duration
        cells[_STATUS.get(status // 100, _NO_STATUS) if status else _NO_STATUS] += 1
        cells[_FASTEST if duration <= _FASTEST_NS else duration_cell(duration)] += 1
        # Last: whoever sees the request finished sees its status and duration too.
        self._finished = cells[_FINISHED] = self._finished + 1

    def beat(self) -> None:
        """Say that the place which must make progress did; call it every `beat_interval`."""
        cells = self._cells
        now = monotonic_ns()
        last = cells[_BEAT]
        if last:
            cells[Cell.LAG_NS] = max(0, now - last - self._interval_ns)
        cells[_BEAT] = now

    def connections(self, count: int) -> None:
        """Say how many client connections are open now."""
        self._cells[Cell.CONNECTIONS] = count

    def log_dropped(self) -> None:
        """Count a log line that found the pipe full."""
        self._cells[_LOG_DROPPED] += 1

    def _detach(self) -> None:
        self._cells = memoryview(bytearray(8 * RECORD_CELLS)).cast("Q")


class ThreadedMeter(Meter):
    """Instruments for requests that begin and end in several threads: a lock makes them one."""

    def __init__(
        self, board: Scoreboard, lease: int, beat_interval: float, *, capacity: int
    ) -> None:
        self._lock = threading.Lock()
        super().__init__(board, lease, beat_interval, capacity=capacity)

    def begin(self) -> int:
        """Count a request's start; return its ticket for `end`."""
        with self._lock:
            return super().begin()

    def end(self, ticket: int, status: int | None) -> None:
        """Count a request's end; `status` None: no answer was sent. A second end is ignored."""
        with self._lock:
            super().end(ticket, status)

    def log_dropped(self) -> None:
        """Count a log line that found the pipe full."""
        with self._lock:
            super().log_dropped()

    def _detach(self) -> None:
        # Another thread may have held it at the fork; nobody in the child would release it.
        self._lock = threading.Lock()
        super()._detach()
