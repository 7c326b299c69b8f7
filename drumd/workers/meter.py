"""The worker's instruments: requests and heartbeats, written to its record of the scoreboard.

A request costs well under a microsecond here. Numbers are kept in plain attributes and copied to
the shared memory, so that a lost update cannot happen there (one writer per cell).
"""

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from time import monotonic_ns

from drumd.wire.scoreboard import Cell, Scoreboard, duration_cell

_STATUS_CELL = {
    1: Cell.STATUS_1XX,
    2: Cell.STATUS_2XX,
    3: Cell.STATUS_3XX,
    4: Cell.STATUS_4XX,
    5: Cell.STATUS_5XX,
}


class Meter:
    """One lease's instruments.

    `threaded`: requests begin and end in several threads, so a lock guards the counts; an event
    loop is one writer and goes without.
    """

    def __init__(
        self, board: Scoreboard, lease: int, beat_interval: float, *, threaded: bool, capacity: int
    ) -> None:
        self._board = board
        self._cells: memoryview | None = board.cells
        self._base = board.base(lease)
        self._guard: AbstractContextManager[object] = (
            threading.Lock() if threaded else nullcontext()
        )
        self._interval_ns = int(beat_interval * 1e9)
        self._started = 0
        self._finished = 0
        self._in_flight: dict[int, int] = {}
        self._put(Cell.PID, os.getpid())
        self._put(Cell.CAPACITY, capacity)
        # A fork of the app's must not write into this record (the mapping is shared).
        os.register_at_fork(after_in_child=self._detach)

    @property
    def in_flight(self) -> int:
        """Requests that have begun and not ended."""
        return len(self._in_flight)

    def begin(self) -> int:
        """Count a request's start; return its ticket for `end`."""
        now = monotonic_ns()
        with self._guard:
            self._started = ticket = self._started + 1
            if not self._in_flight:
                self._put(Cell.OLDEST_NS, now)
            self._in_flight[ticket] = now
            self._put(Cell.STARTED, ticket)
            self._put(Cell.PROGRESS_NS, now)
        return ticket

    def end(self, ticket: int, status: int | None) -> None:
        """Count a request's end; `status` None: no answer was sent. A second end is ignored."""
        now = monotonic_ns()
        with self._guard:
            begun = self._in_flight.pop(ticket, None)
            if begun is None:
                return
            cells, base = self._cells, self._base
            self._finished += 1
            # Dicts keep the order of insertion, so the first one left is the oldest.
            self._put(Cell.OLDEST_NS, next(iter(self._in_flight.values()), 0))
            self._put(Cell.PROGRESS_NS, now)
            if cells is None:
                return
            cells[base + Cell.BUSY_NS] += now - begun
            cells[base + _STATUS_CELL.get((status or 0) // 100, Cell.NO_STATUS)] += 1
            cells[base + duration_cell(now - begun)] += 1
            # Last: whoever sees the request finished sees its status and duration too.
            cells[base + Cell.FINISHED] = self._finished

    def beat(self) -> None:
        """Say that the place which must make progress did; call it every `beat_interval`."""
        if self._cells is None:
            return
        now = monotonic_ns()
        last = self._cells[self._base + Cell.BEAT_NS]
        if last:
            self._put(Cell.LAG_NS, max(0, now - last - self._interval_ns))
        self._put(Cell.BEAT_NS, now)

    def connections(self, count: int) -> None:
        """Say how many client connections are open now."""
        self._put(Cell.CONNECTIONS, count)

    def log_dropped(self) -> None:
        """Count a log line that found the pipe full."""
        if self._cells is not None:
            self._cells[self._base + Cell.LOG_DROPPED] += 1

    def _put(self, cell: Cell, value: int) -> None:
        if self._cells is not None:
            self._cells[self._base + cell] = value

    def _detach(self) -> None:
        self._cells = None
