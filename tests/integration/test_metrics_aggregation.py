"""The apps' own metrics, written by real processes as workers and their children write them."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.metrics_core import Metric

from drumd.supervisor.observe.appmetrics import AppMetrics

WORKER = """
    import os, sys
    lease, main = int(sys.argv[1]), os.getpid()
    from prometheus_client import values
    name = lambda: f"L{lease}" if os.getpid() == main else f"L{lease}-{os.getpid()}"
    values.ValueClass = values.MultiProcessValue(name)
    from prometheus_client import Counter, Gauge, Histogram
    jobs = Counter("jobs", "Jobs.", ["kind"])
    took = Histogram("took_seconds", "Durations.", buckets=[1, 2])
    gauges = {mode: Gauge(f"g_{mode}", "A gauge.", multiprocess_mode=mode)
              for mode in ("all", "liveall", "sum", "livesum", "max", "min", "mostrecent")}
    def in_child(work):
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        os.waitpid(child, 0)
"""


def _work(directory: Path, lease: int, body: str) -> None:
    """Let a worker of `lease` do `body` and exit."""
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WORKER) + textwrap.dedent(body), str(lease)],
        env={"PROMETHEUS_MULTIPROC_DIR": str(directory)},
        check=True,
        timeout=60,
    )


def _values(families: list[Metric]) -> dict[str, float]:
    """Samples by `name{label=value,…}`, labels sorted."""
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": (
            sample.value
        )
        for family in families
        for sample in family.samples
    }


def _collect(metrics: AppMetrics, directories: Mapping[str, Path]) -> dict[str, float]:
    return _values(metrics.collect({pool: (path,) for pool, path in directories.items()}))


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_workers_add_up_and_gauges_show_the_lease(tmp_path: Path) -> None:
    """Counters of all workers are one sum; a gauge by process has the lease as its `pid`."""
    for lease in (0, 1):
        _work(tmp_path, lease, "jobs.labels('a').inc(5); gauges['all'].set(lease); took.observe(1)")
    said = _collect(AppMetrics(), {"web": tmp_path})
    assert said["jobs_total{kind=a,pool=web}"] == 10
    assert said["g_all{pid=L0,pool=web}"] == 0
    assert said["g_all{pid=L1,pool=web}"] == 1
    assert said["took_seconds_bucket{le=1.0,pool=web}"] == 2
    assert said["took_seconds_count{pool=web}"] == 2


def test_a_lease_goes_on_counting(tmp_path: Path) -> None:
    """The next worker of a lease goes on where the last one stopped."""
    metrics = AppMetrics()
    for _ in range(2):
        _work(tmp_path, 0, "jobs.labels('a').inc(5)")
        metrics.retire(tmp_path, 0)
    assert _collect(metrics, {"web": tmp_path})["jobs_total{kind=a,pool=web}"] == 10


def test_live_gauges_end_with_their_worker(tmp_path: Path) -> None:
    """After its worker, a `live` gauge is gone and any other stays."""
    metrics = AppMetrics()
    _work(tmp_path, 0, "gauges['livesum'].inc(3); gauges['liveall'].inc(3); gauges['sum'].inc(3)")
    _work(tmp_path, 1, "gauges['livesum'].inc(4)")
    assert _collect(metrics, {"web": tmp_path})["g_livesum{pool=web}"] == 7
    metrics.retire(tmp_path, 0)
    said = _collect(metrics, {"web": tmp_path})
    assert said["g_livesum{pool=web}"] == 4
    assert "g_liveall{pid=L0,pool=web}" not in said
    assert said["g_sum{pool=web}"] == 3


FORKS = """
    def work():
        jobs.labels('forked').inc(2)
        took.observe(1.5)
        gauges['sum'].inc(1)
        gauges['max'].set(os.getpid())
        gauges['min'].set(-os.getpid())
        gauges['all'].set(1)
        gauges['livesum'].inc(9)
    for _ in range(3):
        in_child(work)
    jobs.labels('own').inc()
"""


def test_what_forked_processes_counted_is_folded(tmp_path: Path) -> None:
    """At its worker's exit a forked process's counts are kept, and its files are not."""
    metrics = AppMetrics()
    _work(tmp_path, 2, FORKS)
    before = _collect(metrics, {"web": tmp_path})
    assert sum("-" in name for name in _names(tmp_path)) >= 3 * 3
    metrics.retire(tmp_path, 2)
    after = _collect(metrics, {"web": tmp_path})
    assert not [name for name in _names(tmp_path) if re.search(r"_L\d+-\d+\.db", name)]
    kept = {
        "jobs_total{kind=forked,pool=web}",
        "jobs_total{kind=own,pool=web}",
        "took_seconds_bucket{le=2.0,pool=web}",
        "took_seconds_count{pool=web}",
        "took_seconds_sum{pool=web}",
        "g_sum{pool=web}",
        "g_max{pool=web}",
        "g_min{pool=web}",
    }
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    assert after["jobs_total{kind=forked,pool=web}"] == 6


def test_files_stay_bounded_over_many_lives(tmp_path: Path) -> None:
    """Many workers on three leases leave as many files as the first three; no count is lost."""
    metrics = AppMetrics()
    lives, bound, last = 42, 0, 0.0
    for life in range(lives):
        _work(
            tmp_path, life % 3, "in_child(lambda: jobs.labels('a').inc()); jobs.labels('a').inc()"
        )
        metrics.retire(tmp_path, life % 3)
        count = _collect(metrics, {"web": tmp_path})["jobs_total{kind=a,pool=web}"]
        assert count > last
        last = count
        if life == 2:
            bound = len(_names(tmp_path))
    assert last == 2 * lives
    assert len(_names(tmp_path)) == bound


def test_a_scrape_folds_what_a_living_worker_forked(tmp_path: Path) -> None:
    """A worker that forks a process a job leaves a bounded number of files while it lives."""
    metrics = AppMetrics()
    _work(tmp_path, 0, "for _ in range(70): in_child(lambda: jobs.labels('a').inc())")
    assert len(_names(tmp_path)) > 70
    assert _collect(metrics, {"web": tmp_path})["jobs_total{kind=a,pool=web}"] == 70
    assert len(_names(tmp_path)) < 20


def test_a_broken_file_costs_itself_only(tmp_path: Path) -> None:
    """Empty, torn or foreign files never fail a scrape; those not empty are counted."""
    metrics = AppMetrics()
    _work(tmp_path, 0, "jobs.labels('a').inc(5)")
    (tmp_path / "counter_L1.db").write_bytes(b"")
    (tmp_path / "counter_L2.db").write_bytes(b"\xff\x00\x00\x00" + b"\x99" * 400)
    (tmp_path / "histogram_L2.db").write_bytes(b"no")
    (tmp_path / "gauge.db").write_bytes((tmp_path / "counter_L0.db").read_bytes())
    said = _collect(metrics, {"web": tmp_path})
    assert said["jobs_total{kind=a,pool=web}"] == 5
    assert metrics.skipped == {"web": 3}
    metrics.retire(tmp_path, 2)


def test_pools_share_a_family_and_keep_their_samples(tmp_path: Path) -> None:
    """A metric that two pools have is one family; each sample says its pool."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _work(tmp_path / "a", 0, "jobs.labels('x').inc(1)")
    _work(
        tmp_path / "b",
        0,
        "jobs.labels('x').inc(2); Counter('runs', 'Runs.', ['pool']).labels('mine').inc()",
    )
    families = AppMetrics().collect({"a": (tmp_path / "a",), "b": (tmp_path / "b",)})
    assert [family.name for family in families].count("jobs") == 1
    said = _values(families)
    assert said["jobs_total{kind=x,pool=a}"] == 1
    assert said["jobs_total{kind=x,pool=b}"] == 2
    assert said["runs_total{exported_pool=mine,pool=b}"] == 1


def test_conflicting_families_are_left_out(tmp_path: Path) -> None:
    """A family of another type than a pool before it has, or of drumd's own names, is skipped."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _work(tmp_path / "a", 0, "Counter('x', 'X.').inc()")
    _work(tmp_path / "b", 0, "Histogram('x', 'X.').observe(1); Counter('drumd_y', 'Y.').inc()")
    metrics = AppMetrics()
    said = _collect(metrics, {"a": tmp_path / "a", "b": tmp_path / "b"})
    assert said["x_total{pool=a}"] == 1
    assert not [name for name in said if name.startswith(("drumd_", "x_bucket"))]
    assert metrics.skipped == {"b": 2}


def test_no_directory_is_no_metrics(tmp_path: Path) -> None:
    """A pool whose directory does not exist has no metrics of its own, and no error."""
    metrics = AppMetrics()
    metrics.retire(tmp_path / "none", 0)
    assert metrics.collect({"web": (tmp_path / "none",)}) == []
    assert metrics.skipped == {}


def test_what_started_programs_counted_is_folded(tmp_path: Path) -> None:
    """A program that a worker started writes by its pid; once it has ended, that is folded too."""
    metrics = AppMetrics()
    program = (
        "from prometheus_client import Counter; "
        "Counter('jobs', 'Jobs.', ['kind']).labels('x').inc()"
    )
    _work(tmp_path, 1, f"import subprocess; subprocess.run([sys.executable, '-c', {program!r}])")
    assert any(re.fullmatch(r"counter_\d+\.db", name) for name in _names(tmp_path))
    metrics.retire(tmp_path, 1)
    assert not any(re.fullmatch(r"counter_\d+\.db", name) for name in _names(tmp_path))
    assert _collect(metrics, {"web": tmp_path})["jobs_total{kind=x,pool=web}"] == 1


# --- generations --------------------------------------------------------------------------------

REDEFINED = """
    import os, sys
    from prometheus_client import values
    values.ValueClass = values.MultiProcessValue(lambda: f"L{sys.argv[1]}")
    from prometheus_client import Counter, Gauge, Histogram
    jobs = Counter("jobs", "Jobs.", ["kind"])
    took = Histogram("took_seconds", "Durations.", buckets=[1, 5])
    gauges = {mode: Gauge(f"g_{mode}", "A gauge.", multiprocess_mode=mode)
              for mode in ("all", "liveall", "sum", "livesum", "max", "min", "mostrecent")}
"""


def _two_generations(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "1", tmp_path / "2"
    for directory in (old, new):
        directory.mkdir()
    _work(old, 0, "jobs.labels('a').inc(5); jobs.labels('b').inc(); took.observe(1.5)")
    _work(old, 0, "for g in gauges.values(): g.set(3)")
    subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(REDEFINED)
            + "jobs.labels('a').inc(2); took.observe(4)\nfor g in gauges.values(): g.set(4)",
            "0",
        ],
        env={"PROMETHEUS_MULTIPROC_DIR": str(new)},
        check=True,
        timeout=60,
    )
    return old, new


def test_two_generations_add_up(tmp_path: Path) -> None:
    """While two generations serve, each family is their sum, or the first's if they differ."""
    old, new = _two_generations(tmp_path)
    metrics = AppMetrics()
    said = _values(metrics.collect({"web": (old, new)}))
    assert said["jobs_total{kind=a,pool=web}"] == 7
    assert said["jobs_total{kind=b,pool=web}"] == 1
    assert said["took_seconds_count{pool=web}"] == 1
    assert "took_seconds_bucket{le=5.0,pool=web}" not in said
    assert metrics.skipped["web"] == 1
    assert said["g_sum{pool=web}"] == 7
    assert said["g_max{pool=web}"] == 4
    assert said["g_min{pool=web}"] == 3
    assert said["g_all{pid=L0,pool=web}"] == 3
    assert _values(metrics.collect({"web": (new, old)}))["took_seconds_sum{pool=web}"] == 4


def test_an_ended_generations_counters_go_on(tmp_path: Path) -> None:
    """What an ended generation had counted is kept where it is defined as before."""
    old, new = _two_generations(tmp_path)
    metrics = AppMetrics()
    metrics.end(old, new)
    assert not old.exists()
    said = _values(metrics.collect({"web": (new,)}))
    assert said["jobs_total{kind=a,pool=web}"] == 7
    assert said["jobs_total{kind=b,pool=web}"] == 1
    assert said["took_seconds_count{pool=web}"] == 1
    assert said["took_seconds_sum{pool=web}"] == 4
    assert said["g_sum{pool=web}"] == 4
    assert metrics.skipped.get("web", 0) == 0
