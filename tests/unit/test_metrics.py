"""The page of metrics: names, sums, bounds."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from drumd.supervisor.observe.metrics import WORKER_STATES, render
from drumd.supervisor.observe.snapshot import (
    START_BOUNDS,
    PoolNumbers,
    Snapshot,
    WorkerNumbers,
)
from drumd.wire.records import NO_COUNTS, Record, add_counters
from drumd.wire.scoreboard import DURATION_BOUNDS
from tests.needs import needs

EMPTY_STARTS = (0,) * (len(START_BOUNDS) + 1)


def _durations(**cells: int) -> tuple[int, ...]:
    """Counts by index of their cell, as `_durations(c0=1, c13=2)`."""
    return tuple(cells.get(f"c{index}", 0) for index in range(len(DURATION_BOUNDS) + 1))


def _pool(name: str = "web", *workers: WorkerNumbers, **fields: Any) -> PoolNumbers:
    defaults: dict[str, Any] = {
        "name": name,
        "runtime": "uvicorn",
        "state": "ready",
        "generation": 1,
        "size": 2,
        "slots_by_state": {"filled": 2},
        "workers": workers,
        "folded": NO_COUNTS,
        "exits": {"crash": 1, "operator": 0},
        "start_durations": EMPTY_STARTS,
        "start_seconds": 0.0,
        "queues": {"127.0.0.1:8000 slot 0": 3},
        "metrics_dirs": (),
    }
    return PoolNumbers(**(defaults | fields))


def _worker(lease: int, record: Record, state: str = "ready", pid: int = 0) -> WorkerNumbers:
    pid = pid or os.getpid()
    return WorkerNumbers(slot=0, lease=lease, pid=pid, state=state, stalled=False, record=record)


def _page(*pools: PoolNumbers, **fields: Any) -> bytes:
    return render(Snapshot(version="1.2", pid=1, started_at=1000.5, pools=pools, **fields))


def _samples(page: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def _value(page: bytes, name: str, **labels: str) -> float:
    return _samples(page)[name, frozenset(labels.items())]


def test_changes_are_counted() -> None:
    """Rollouts by outcome, ready spares and templates, and handed connections have families."""
    page = _page(
        _pool(spares_ready=2, templates_ready=1, rollouts={"done": 3, "aborted": 1}, handed=40)
    )
    assert _value(page, "drumd_spares", pool="web") == 2
    assert _value(page, "drumd_templates", pool="web") == 1
    outcomes = {"done": 3, "aborted": 1, "superseded": 0}
    for outcome, count in outcomes.items():
        assert _value(page, "drumd_rollouts_total", pool="web", outcome=outcome) == count
    assert _value(page, "drumd_connections_handed_over_total", pool="web") == 40


def test_promtool_finds_nothing() -> None:
    """Prometheus's own linter has nothing to say about the page."""
    promtool = needs("promtool", "prometheus")
    page = _page(_pool("web", _worker(0, Record())), _pool("other"), orphans_reaped=2)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_requests_are_those_of_ended_and_live_workers() -> None:
    """Requests are the sum over ended and live workers, by class of their answer."""
    ended = Record(finished=5, status_2xx=4, no_status=1, busy_ns=2_000_000_000)
    live = [
        _worker(lease, Record(started=9, finished=7, status_2xx=6, status_5xx=1))
        for lease in (0, 1)
    ]
    page = _page(_pool("web", *live, folded=add_counters(NO_COUNTS, ended)))
    assert _value(page, "drumd_requests_total", pool="web", code="2xx") == 16
    assert _value(page, "drumd_requests_total", pool="web", code="5xx") == 2
    assert _value(page, "drumd_requests_total", pool="web", code="none") == 1
    assert _value(page, "drumd_requests_total", pool="web", code="4xx") == 0
    assert _value(page, "drumd_requests_in_flight", pool="web") == 4
    assert _value(page, "drumd_request_duration_seconds_sum", pool="web") == 2.0


def test_durations_become_cumulative_buckets() -> None:
    """The scoreboard's cells count each their own; Prometheus's buckets are cumulative."""
    record = Record(durations=_durations(c0=2, c1=1, c13=4))
    page = _page(_pool("web", _worker(0, record)))

    def bucket(bound: str) -> float:
        return _value(page, "drumd_request_duration_seconds_bucket", pool="web", le=bound)

    assert [bucket(bound) for bound in ("0.005", "0.01", "60.0", "+Inf")] == [2, 3, 3, 7]
    assert _value(page, "drumd_request_duration_seconds_count", pool="web") == 7


def test_a_workers_death_takes_no_count_back() -> None:
    """The page's counters are the same before a worker's exit and after its record was folded."""
    record = Record(started=3, finished=3, status_2xx=3, durations=_durations(c2=3))
    before = _page(_pool("web", _worker(0, record)))
    after = _page(_pool("web", folded=add_counters(NO_COUNTS, record)))

    def counts(page: bytes) -> dict[Any, float]:
        return {
            key: value
            for key, value in _samples(page).items()
            if key[0].startswith(("drumd_requests_total", "drumd_request_duration"))
        }

    assert counts(before) == counts(after)


def test_every_state_is_reported() -> None:
    """A state that no worker is in is reported as 0, so that a graph has no holes."""
    page = _page(_pool("web", _worker(0, Record(), "ready"), _worker(1, Record(), "draining")))
    counts = [_value(page, "drumd_workers", pool="web", state=state) for state in WORKER_STATES]
    assert dict(zip(WORKER_STATES, counts, strict=True)) == {
        "starting": 0,
        "ready": 1,
        "draining": 1,
        "stopping": 0,
        "killing": 0,
    }


def test_starts_exits_queues_and_states() -> None:
    """Start durations, exits by cause, accept queues and pool states are reported as given."""
    starts = (1, 2, *EMPTY_STARTS[2:])
    page = _page(_pool("web", start_durations=starts, start_seconds=0.4, state="degraded"))
    assert _value(page, "drumd_worker_start_duration_seconds_bucket", pool="web", le="0.25") == 3
    assert _value(page, "drumd_worker_start_duration_seconds_sum", pool="web") == 0.4
    assert _value(page, "drumd_worker_exits_total", pool="web", cause="crash") == 1
    listener = "127.0.0.1:8000 slot 0"
    assert _value(page, "drumd_accept_queue_length", pool="web", listener=listener) == 3
    assert _value(page, "drumd_pool_state", pool="web", state="degraded") == 1
    assert _value(page, "drumd_pool_size", pool="web") == 2


def test_memory_is_by_lease_and_only_of_what_lives() -> None:
    """Resident memory is read for each live worker; one that has just gone is left out."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    page = _page(_pool("web", _worker(3, Record()), _worker(4, Record(), pid=gone.pid)))
    assert _value(page, "drumd_worker_resident_memory_bytes", pool="web", lease="3") > 1e6
    leases = [
        dict(labels)["lease"]
        for name, labels in _samples(page)
        if name == "drumd_worker_resident_memory_bytes"
    ]
    assert leases == ["3"]


def test_the_supervisors_own_numbers() -> None:
    """The page tells the version, the start, and what the supervisor counted itself."""
    page = _page(log_lines_dropped=7, extra={"event_loop_lag_seconds": 0.25, "odd_total": 2.0})
    assert _value(page, "drumd_info", version="1.2") == 1
    assert _value(page, "drumd_start_time_seconds") == 1000.5
    assert _value(page, "drumd_log_lines_dropped_total") == 7
    assert _value(page, "drumd_event_loop_lag_seconds") == 0.25
    assert _value(page, "drumd_odd_total") == 2.0
    assert _value(page, "process_open_fds") > 0


def test_apps_families_are_appended() -> None:
    """The apps' own families stand on the same page, and what was left out is counted."""
    family = Metric("predictions", "Answers.", "counter")
    family.add_sample("predictions_total", {"pool": "web"}, 5)
    snapshot = Snapshot(version="1", pid=1, started_at=0, pools=(_pool(),))
    page = render(snapshot, [family], {"web": 2})
    assert _value(page, "predictions_total", pool="web") == 5
    assert _value(page, "drumd_app_metrics_skipped_total", pool="web") == 2


def test_an_inherited_directory_is_not_written_to(tmp_path: Path) -> None:
    """A PROMETHEUS_MULTIPROC_DIR in drumd's own environment gets no files of the supervisor."""
    code = (
        "from drumd.supervisor.observe.metrics import render\n"
        "from drumd.supervisor.observe.snapshot import Snapshot\n"
        "assert render(Snapshot(version='1', pid=1, started_at=0, pools=()))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []
