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


FULL = Effort(
    throughput_rounds=15,
    throughput_seconds=2,
    spreads=10,
    queueing_seconds=60.0,
    kills=11,
    idle_seconds=15.0,
    microbench_loops=300_000,
    status_runs=10,
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
)
