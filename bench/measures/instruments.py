"""What drumd's instruments add to a request, by themselves."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from time import perf_counter_ns

from bench.effort import Effort
from bench.report import Column, Result, Value
from drumd.wire.scoreboard import Scoreboard
from drumd.workers.meter import Meter, ThreadedMeter

BEAT_INTERVAL = 0.25
REPEATS = 7

COLUMNS = (Column("what", "what"), Column("ns", "ns a request", ".0f"))


def measure(effort: Effort) -> Result:
    """Count a request's begin and end, many times; the fastest repeat is the least disturbed."""
    board = Scoreboard.create(2)
    rows: list[dict[str, Value]] = [
        {
            "what": f"drumd's {name}: begin and end",
            "ns": _fastest(_request(make(board, lease, BEAT_INTERVAL, capacity=0)), effort),
        }
        for lease, (name, make) in enumerate(
            {"meter (event loops)": Meter, "meter (threads)": ThreadedMeter}.items()
        )
    ]
    rows.append(
        {
            "what": "prometheus_client, multiprocess: a counter and a histogram",
            "ns": _in_prometheus(effort),
        }
    )
    return Result(
        "Instruments",
        "Counting one request: started, finished, in flight, the oldest, busy time, status and a "
        f"histogram of durations. The fastest of {REPEATS} repeats, the empty loop included.",
        COLUMNS,
        rows,
    )


def _request(meter: Meter) -> Callable[[int], None]:
    def loop(count: int) -> None:
        for _ in range(count):
            meter.end(meter.begin(), 200)

    return loop


def _fastest(loop: Callable[[int], None], effort: Effort) -> float:
    """Return nanoseconds a turn."""
    count = effort.microbench_loops
    times = []
    for _ in range(REPEATS):
        begun = perf_counter_ns()
        loop(count)
        times.append((perf_counter_ns() - begun) / count)
    return min(times)


def _in_prometheus(effort: Effort) -> float:
    # In a process of its own: the directory must be set before the package is imported.
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, "-c", _PROMETHEUS, str(effort.microbench_loops), str(REPEATS)],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": directory},
            capture_output=True,
            text=True,
            check=True,
        )
    return float(done.stdout)


_PROMETHEUS = """
import sys
from time import perf_counter_ns
from prometheus_client import Counter, Histogram

requests = Counter("requests", "Requests", ["status"])
seconds = Histogram("seconds", "Durations")
count, repeats = map(int, sys.argv[1:])
times = []
for _ in range(repeats):
    begun = perf_counter_ns()
    for _ in range(count):
        requests.labels("200").inc()
        seconds.observe(0.001)
    times.append((perf_counter_ns() - begun) / count)
print(min(times))
"""
