"""The watch over heartbeats and requests, on a made-up clock."""

import pytest

from drumd.supervisor.health.watch import AwakeClock, Limits, Pulse, Verdict, feel, judge
from drumd.wire.records import Record

LIMITS = Limits(stall_after=1.0, hang_timeout=30.0, request_timeout=120.0)


def verdict(record: Record, *, late: float = 0.0, now: float = 1000.0) -> Verdict:
    return judge(Pulse(record.beat_ns, 500.0 - late), record, LIMITS, now=now, awake=500.0)


def test_a_worker_that_beats_is_well() -> None:
    """A worker whose heartbeat is on time is neither stalled nor hung."""
    well = verdict(Record(), late=0.9)
    assert (well.stalled, well.hung) == (False, "")


@pytest.mark.parametrize(
    ("late", "started", "stalled", "hung"),
    [
        (1.0, 0, True, False),
        (29.9, 0, True, False),
        (30.0, 0, True, True),
        (30.0, 1, True, False),
        (119.9, 1, True, False),
        (120.0, 1, True, True),
    ],
)
def test_lateness_is_judged_by_requests(
    late: float,
    started: int,
    stalled: bool,
    hung: bool,
) -> None:
    """A late worker is hung after hang_timeout, or after request_timeout when it has a request."""
    v = verdict(Record(started=started), late=late)
    assert (v.stalled, bool(v.hung), v.busy) == (stalled, hung, bool(started))


def test_an_old_stream_accuses_nobody() -> None:
    """A stall of a second kills no event loop, though a stream has been open for an hour."""
    v = verdict(Record(started=1, oldest_ns=1), late=1.5, now=3600.0)
    assert (v.stalled, v.hung) == (True, "")


def test_all_threads_stuck_is_hung_though_the_main_loop_beats() -> None:
    """Threads that are all held by requests without progress for request_timeout are stuck."""
    record = Record(capacity=2, started=5, finished=3, progress_ns=int(900e9))
    assert verdict(record, now=1019.0).hung == ""
    assert "all 2 threads are stuck" in verdict(record, now=1020.0).hung


def test_one_free_thread_is_enough() -> None:
    """A worker with a free thread is not stuck, however old its other requests are."""
    assert verdict(Record(capacity=2, started=4, finished=3, progress_ns=1)).hung == ""


def test_a_pause_of_the_supervisor_accuses_nobody() -> None:
    """An hour in which the supervisor did not run counts as two looks."""
    clock = AwakeClock(0.5, now=0.0)
    assert clock.look(0.5) == 0.5
    assert clock.look(3600.0) == 1.5


def test_a_new_beat_is_no_older_than_the_last_look() -> None:
    """A heartbeat made just before a long pause does not look late after it."""
    pulse = feel(None, Record(beat_ns=int(10e9)), now=10.0, awake=10.0, interval=0.5)
    after = feel(pulse, Record(beat_ns=int(10.25e9)), now=3600.0, awake=11.0, interval=0.5)
    assert after.at == 10.5
    assert feel(after, Record(beat_ns=int(10.25e9)), now=3601.0, awake=12.0, interval=0.5) is after
