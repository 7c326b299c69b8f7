import os
import threading
import time

import pytest

from drumd.wire.records import Record, read_record
from drumd.wire.scoreboard import Scoreboard
from drumd.workers.meter import Meter, ThreadedMeter


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard.create(2)


@pytest.mark.parametrize("kind", [Meter, ThreadedMeter])
def test_requests_are_counted_by_status_and_duration(board: Scoreboard, kind: type[Meter]) -> None:
    """Each finished request is in one status class and in one cell of the histogram."""
    meter = kind(board, 1, 0.25, capacity=4)
    for status in (101, 200, 204, 301, 404, 500, 999, None):
        meter.end(meter.begin(), status)
    record = read_record(board, 1)
    assert (record.started, record.finished, record.in_flight) == (8, 8, 0)
    assert (record.status_1xx, record.status_2xx, record.status_3xx) == (1, 2, 1)
    assert (record.status_4xx, record.status_5xx, record.no_status) == (1, 1, 2)
    assert sum(record.durations) == 8
    assert record.busy_ns > 0
    assert (record.pid, record.capacity) == (os.getpid(), 4)
    assert read_record(board, 0) == Record()


def test_the_oldest_request_in_flight_is_known(board: Scoreboard) -> None:
    """When the oldest ends, the next oldest takes its place; with none in flight it is 0."""
    meter = Meter(board, 0, 0.25, capacity=0)
    before = time.monotonic_ns()
    first = meter.begin()
    between = time.monotonic_ns()
    second = meter.begin()
    assert before <= read_record(board, 0).oldest_ns <= between
    meter.end(first, 200)
    assert read_record(board, 0).oldest_ns >= between
    assert meter.in_flight == read_record(board, 0).in_flight == 1
    meter.end(second, 200)
    assert read_record(board, 0).oldest_ns == 0


def test_a_younger_request_that_ends_leaves_the_oldest(board: Scoreboard) -> None:
    """Requests may end in any order."""
    meter = Meter(board, 0, 0.25, capacity=0)
    meter.begin()
    oldest = read_record(board, 0).oldest_ns
    meter.end(meter.begin(), 200)
    assert read_record(board, 0).oldest_ns == oldest


def test_a_second_end_is_ignored(board: Scoreboard) -> None:
    """A request that both its answer and its client's leaving end is counted once."""
    meter = Meter(board, 0, 0.25, capacity=0)
    ticket = meter.begin()
    meter.end(ticket, 200)
    meter.end(ticket, None)
    record = read_record(board, 0)
    assert (record.finished, record.status_2xx, record.no_status) == (1, 1, 0)


def test_a_late_beat_shows_as_lag(board: Scoreboard) -> None:
    """The lag is what a beat is late against its interval; a beat in time has none."""
    meter = Meter(board, 0, 3600.0, capacity=0)
    meter.beat()
    meter.beat()
    assert read_record(board, 0).lag_ns == 0
    late = Meter(board, 1, 0.0, capacity=0)
    late.beat()
    first = read_record(board, 1).beat_ns
    late.beat()
    record = read_record(board, 1)
    assert record.lag_ns == record.beat_ns - first > 0


def test_gauges_and_drops(board: Scoreboard) -> None:
    """Connections are set; dropped lines add up."""
    meter = ThreadedMeter(board, 0, 0.25, capacity=0)
    meter.connections(7)
    meter.log_dropped()
    meter.log_dropped()
    assert (read_record(board, 0).connections, read_record(board, 0).log_dropped) == (7, 2)


def test_threads_lose_no_counts(board: Scoreboard) -> None:
    """Requests of many threads are all counted."""
    meter = ThreadedMeter(board, 0, 0.25, capacity=0)

    def serve() -> None:
        for _ in range(2000):
            meter.end(meter.begin(), 200)

    threads = [threading.Thread(target=serve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = read_record(board, 0)
    assert record.started == record.finished == record.status_2xx == sum(record.durations) == 16_000


def test_a_forked_child_does_not_write(board: Scoreboard) -> None:
    """A child goes on without harm to its parent's record."""
    meter = ThreadedMeter(board, 0, 0.25, capacity=0)
    ticket = meter.begin()
    before = read_record(board, 0)
    child = os.fork()
    if child == 0:
        meter.end(ticket, 200)
        meter.end(meter.begin(), 500)
        meter.beat()
        meter.connections(9)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read_record(board, 0) == before
