"""The scoreboard: one shared memory of 8-byte integers, a record for each lease.

Workers write their own record, the supervisor reads all of them; nobody waits for anybody.
Aligned 8-byte writes do not tear on the platforms that CPython runs on, but `cell += 1` from two
threads loses counts, so a record has one writer at a time: the event loop, or a lock's holder.
All times are nanoseconds of CLOCK_MONOTONIC, which is the same in every process.
"""

import mmap
import os
from bisect import bisect_left
from enum import IntEnum

MAGIC = 0x44524D44_53434F52  # "DRMDSCOR"
LAYOUT_VERSION = 1

DURATION_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram of request durations, in seconds; one more cell takes the rest."""
_BOUNDS_NS = tuple(int(bound * 1e9) for bound in DURATION_BOUNDS)


class ScoreboardError(Exception):
    """cannot use the scoreboard."""


class Cell(IntEnum):
    """A record's cells, by index."""

    PID = 0
    BEAT_NS = 1
    """When the place that must make progress last did."""
    STARTED = 2
    FINISHED = 3
    """Requests; in flight is started - finished."""
    OLDEST_NS = 4
    """Start of the oldest request in flight; 0 without one."""
    PROGRESS_NS = 5
    """When a request last started or finished; 0 before the first."""
    CAPACITY = 6
    """Requests that can be served at once; 0 when that has no bound (event loops)."""
    BUSY_NS = 7
    """Sum of all finished requests' durations."""
    STATUS_1XX = 8
    STATUS_2XX = 9
    STATUS_3XX = 10
    STATUS_4XX = 11
    STATUS_5XX = 12
    NO_STATUS = 13
    """Finished requests by class of their answer; without one: the client or the app went away."""
    CONNECTIONS = 14
    """Open client connections, now."""
    LAG_NS = 15
    """How late the last beat was against its interval: the loop's lag."""
    LOG_DROPPED = 16
    """Lines of drumd's own that were dropped because the log pipe was full."""
    DURATIONS = 17
    """First of the histogram's cells (not cumulative)."""


RECORD_CELLS = 64
"""Cells of a record, with room to grow; 512 bytes keep records off each other's cache lines."""
HEADER_CELLS = 64
DURATION_CELLS = len(DURATION_BOUNDS) + 1


class Scoreboard:
    """The shared memory as a whole. The supervisor creates it; workers map it by its fd."""

    def __init__(self, fd: int, leases: int) -> None:
        self.fd = fd
        self.leases = leases
        self._memory = mmap.mmap(fd, _size(leases))
        # A forked child of the app must not write into its parent's record.
        self._cells: memoryview | None = memoryview(self._memory).cast("Q")

    @classmethod
    def create(cls, leases: int) -> "Scoreboard":
        """Make a scoreboard with `leases` records in a new memfd (close-on-exec)."""
        fd = os.memfd_create("drumd-scoreboard", os.MFD_CLOEXEC)
        os.ftruncate(fd, _size(leases))
        board = cls(fd, leases)
        board.cells[0:3] = memoryview(
            b"".join(n.to_bytes(8, "little") for n in (MAGIC, LAYOUT_VERSION, leases))
        ).cast("Q")
        return board

    @classmethod
    def attach(cls, fd: int) -> "Scoreboard":
        """Map an existing scoreboard; raise `ScoreboardError` when its layout is another one."""
        header = [int.from_bytes(os.pread(fd, 8, 8 * n), "little") for n in range(3)]
        if header[:2] != [MAGIC, LAYOUT_VERSION]:
            raise ScoreboardError(
                f"cannot use the scoreboard on fd {fd}: layout {header[1]} (magic {header[0]:#x}), "
                f"this worker writes layout {LAYOUT_VERSION}"
            )
        return cls(fd, header[2])

    @property
    def cells(self) -> memoryview:
        """All cells; raise `ScoreboardError` after `close`."""
        if self._cells is None:
            raise ScoreboardError("cannot use the scoreboard: it is closed")
        return self._cells

    def base(self, lease: int) -> int:
        """Return the index of the first cell of `lease`'s record."""
        if not 0 <= lease < self.leases:
            raise ScoreboardError(f"cannot use lease {lease}: there are {self.leases}")
        return HEADER_CELLS + lease * RECORD_CELLS

    def values(self, lease: int) -> list[int]:
        """Return the cells of `lease`'s record, as `Cell` numbers them."""
        base = self.base(lease)
        return self.cells[base : base + Cell.DURATIONS + DURATION_CELLS].tolist()

    def clear(self, lease: int) -> None:
        """Zero `lease`'s record: before a new worker gets it, never while one writes it."""
        base = self.base(lease)
        self.cells[base : base + RECORD_CELLS] = memoryview(bytes(8 * RECORD_CELLS)).cast("Q")

    def close(self) -> None:
        """Drop the mapping; the fd stays its opener's."""
        if self._cells is not None:
            self._cells.release()
            self._cells = None
            self._memory.close()


def duration_cell(duration_ns: int) -> int:
    """Return the offset within a record of the histogram cell that `duration_ns` counts in."""
    return Cell.DURATIONS + bisect_left(_BOUNDS_NS, duration_ns)


def _size(leases: int) -> int:
    return 8 * (HEADER_CELLS + leases * RECORD_CELLS)
