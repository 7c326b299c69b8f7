"""How long to measure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How often and how long each thing is measured. Times in seconds."""

    throughput_rounds: int
    throughput_seconds: int
    spreads: int
    queueing_seconds: float
    kills: int
    idle_seconds: float
    microbench_loops: int
    status_runs: int
    reloads: int
    watched_seconds: float
    """How long a server is watched after a broken release, and after a kill that follows."""
    crashes: int
    model_megabytes: int
    predict_rounds: int


FULL = Effort(
    throughput_rounds=15,
    throughput_seconds=2,
    spreads=10,
    queueing_seconds=60.0,
    kills=11,
    idle_seconds=15.0,
    microbench_loops=300_000,
    status_runs=10,
    reloads=5,
    watched_seconds=6.0,
    crashes=7,
    model_megabytes=500,
    predict_rounds=9,
)
QUICK = Effort(
    throughput_rounds=3,
    throughput_seconds=1,
    spreads=5,
    queueing_seconds=10.0,
    kills=2,
    idle_seconds=3.0,
    microbench_loops=50_000,
    status_runs=3,
    reloads=2,
    watched_seconds=4.0,
    crashes=2,
    model_megabytes=100,
    predict_rounds=3,
)
