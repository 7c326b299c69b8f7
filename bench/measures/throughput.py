"""Throughput, and what a request costs, over kept connections."""

from itertools import product
from statistics import median

from bench import machine
from bench.effort import Effort
from bench.load import Load, press
from bench.proc import Counts, counts
from bench.report import Column, Result, Value, Wanted, ratios
from bench.servers import (
    ASGI,
    DRUMD_ASGI,
    DRUMD_GTHREAD,
    DRUMD_UVICORN,
    GTHREAD,
    UVICORN,
    UVICORN_WORKER,
    Running,
    Server,
    running,
)

WORKERS = (1, 2)
"""Both: the ratios differ, and one count alone would show drumd in a better or a worse light."""
CONNECTIONS = 32
WARM_UP = 1
"""Seconds of load that nobody counts, for each server."""

GROUPS: tuple[tuple[Server, ...], ...] = (
    (DRUMD_UVICORN, UVICORN, UVICORN_WORKER),
    (DRUMD_GTHREAD, GTHREAD),
    (DRUMD_ASGI, ASGI),
)
"""Servers that do the same work; the first of each group is compared with the others."""

_UNSUPERVISED = "With one worker uvicorn has no supervisor, which costs no request anything."

COLUMNS = (
    Column("server", "server"),
    Column("workers", "workers"),
    Column("rate", "requests/s", ".0f"),
    Column("ratio", "drumd/this", ".3f"),
    Column("p50", "p50 ms", ".2f"),
    Column("p99", "p99 ms", ".2f"),
    Column("cpu", "CPU µs/request", ".1f"),
    Column("cpu_ratio", "drumd/this", ".3f"),
    Column("errors", "errors"),
)


class Samples:
    """One server's rounds."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.loads: list[Load] = []
        self.cpu: list[float] = []
        """Seconds of CPU a request, of all its processes."""

    def add(self, seconds: int) -> None:
        """Take one more round."""
        before = self._counts()
        load = press(self.server.port, connections=CONNECTIONS, seconds=seconds)
        self.loads.append(load)
        self.cpu.append((self._counts() - before).cpu / load.requests)

    @property
    def rates(self) -> list[float]:
        """Return requests a second, by round."""
        return [load.rate for load in self.loads]

    def _counts(self) -> Counts:
        return sum((counts(process.pid) for process in self.server.processes()), Counts())


def measure(effort: Effort) -> Result:
    """Press each server in turn, round by round, and compare within the rounds."""
    rows: list[dict[str, Value]] = []
    wanted: list[Wanted] = []
    for workers, group in product(WORKERS, GROUPS):
        ours, *others = _samples(group, workers, effort)
        rows.append(_row(ours, workers, None))
        for other in others:
            rows.append(_row(other, workers, ours))
            ratio = ratios(ours.rates, other.rates)
            what = f"throughput of {ours.server.name} to {other.server.name}, workers: {workers}"
            wanted.append(Wanted(what, ratio, 1.0, at_most=False))
    return Result(
        "Throughput",
        f"{CONNECTIONS} kept connections ask for 2 bytes as fast as they come "
        f"(gthread: 4 threads each). Median of {effort.throughput_rounds} interleaved rounds of "
        f"{effort.throughput_seconds} s; drumd/this is the median of the ratios within a round.",
        COLUMNS,
        rows,
        wanted,
        [_shares(), _UNSUPERVISED],
    )


def _samples(group: tuple[Server, ...], workers: int, effort: Effort) -> list[Samples]:
    with running(group, workers=workers, cpus=machine.SERVER_CPUS) as servers:
        samples = [Samples(server) for server in servers]
        for server in servers:
            press(server.port, connections=CONNECTIONS, seconds=WARM_UP)
        for number in range(effort.throughput_rounds):
            # To and fro, so that nobody is always the first of a round.
            for each in samples if number % 2 else reversed(samples):
                each.add(effort.throughput_seconds)
        return samples


def _row(samples: Samples, workers: int, ours: Samples | None) -> dict[str, Value]:
    return {
        "server": samples.server.name,
        "workers": workers,
        "rate": median(samples.rates),
        "ratio": ratios(ours.rates, samples.rates) if ours else None,
        "p50": 1e3 * median(load.p50 for load in samples.loads),
        "p99": 1e3 * median(load.p99 for load in samples.loads),
        "cpu": 1e6 * median(samples.cpu),
        "cpu_ratio": ratios(ours.cpu, samples.cpu) if ours else None,
        "errors": sum(load.errors for load in samples.loads),
    }


def _shares() -> str:
    if machine.LOAD_CPUS == machine.SERVER_CPUS:
        return "The load generator and the servers share the only CPU."
    return (
        f"The load generator has CPU {_numbers(machine.LOAD_CPUS)} for itself, "
        f"the servers CPU {_numbers(machine.SERVER_CPUS)}."
    )


def _numbers(cpus: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(cpus)))
