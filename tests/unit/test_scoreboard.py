import os

import pytest

from drumd.wire.records import COUNTERS, NO_COUNTS, Record, add_counters, counters, read_record
from drumd.wire.scoreboard import DURATION_BOUNDS, Cell, Scoreboard, ScoreboardError, duration_cell


def test_what_one_side_writes_the_other_reads() -> None:
    """Two mappings of one memfd show the same records."""
    ours = Scoreboard.create(3)
    theirs = Scoreboard.attach(ours.fd)
    assert theirs.leases == 3
    theirs.cells[theirs.base(2) + Cell.STARTED] = 5
    theirs.cells[theirs.base(2) + Cell.FINISHED] = 3
    assert read_record(ours, 2) == Record(started=5, finished=3)
    assert read_record(ours, 2).in_flight == 2
    assert read_record(ours, 1) == Record()


def test_each_cell_has_its_field() -> None:
    """A record's fields are the cells, in order, the histogram last."""
    board = Scoreboard.create(1)
    base = board.base(0)
    for cell in Cell:
        board.cells[base + cell] = 100 + cell
    record = read_record(board, 0)
    for cell in Cell:
        if cell is not Cell.DURATIONS:
            assert getattr(record, cell.name.lower()) == 100 + cell
    assert record.durations[0] == 100 + Cell.DURATIONS
    assert len(record.durations) == len(DURATION_BOUNDS) + 1


def test_clearing_one_record_leaves_the_others() -> None:
    """A lease is cleared before its next worker gets it; its neighbours serve on."""
    board = Scoreboard.create(3)
    for lease in range(3):
        board.cells[board.base(lease) + Cell.PID] = 1
        board.cells[board.base(lease) + Cell.DURATIONS + len(DURATION_BOUNDS)] = 1
    board.clear(1)
    assert [read_record(board, lease).pid for lease in range(3)] == [1, 0, 1]
    assert [read_record(board, lease).durations[-1] for lease in range(3)] == [1, 0, 1]


def test_another_layout_is_refused() -> None:
    """A worker of another version does not write into cells that mean something else."""
    board = Scoreboard.create(1)
    os.pwrite(board.fd, (99).to_bytes(8, "little"), 8)
    with pytest.raises(ScoreboardError, match="layout 99"):
        Scoreboard.attach(board.fd)


def test_a_lease_beyond_the_end_is_refused() -> None:
    """There is no record to write to by mistake."""
    board = Scoreboard.create(2)
    for lease in (-1, 2):
        with pytest.raises(ScoreboardError, match="cannot use lease"):
            read_record(board, lease)


def test_a_closed_scoreboard_says_so() -> None:
    """Closing twice does no harm; using it afterwards is an error of ours, not a crash."""
    board = Scoreboard.create(1)
    board.close()
    board.close()
    with pytest.raises(ScoreboardError, match="it is closed"):
        read_record(board, 0)


def test_durations_fall_into_prometheus_buckets() -> None:
    """A bound is inclusive (le), and what is above all of them has a cell of its own."""
    for number, bound in enumerate(DURATION_BOUNDS):
        assert duration_cell(int(bound * 1e9)) == Cell.DURATIONS + number
        assert duration_cell(int(bound * 1e9) + 1) == Cell.DURATIONS + number + 1
    assert duration_cell(0) == Cell.DURATIONS


def test_counters_add_up_and_gauges_do_not() -> None:
    """A worker's counters go into its pool's totals after its end; its gauges are gone with it."""
    record = Record(started=3, finished=2, connections=9, lag_ns=9, durations=(1,) * 14)
    assert len(counters(record)) == len(NO_COUNTS) == len(COUNTERS) + 14
    total = add_counters(add_counters(NO_COUNTS, record), record)
    assert total[COUNTERS.index("started")] == 6
    assert sum(total) == 2 * (3 + 2 + 14)
