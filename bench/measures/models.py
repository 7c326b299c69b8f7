"""What `drumd server` makes of a model: predictions a second, and where their time goes."""

import tempfile
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import median

from bench import models
from bench.effort import Effort
from bench.load import Load, press
from bench.proc import cpu_seconds
from bench.report import Column, Result, Value
from bench.servers import Running, running

CONNECTIONS = (1, 8)
"""One shows what a request costs by itself, more what threads cost that want the GIL at once."""
WARM_UP = 1
"""Seconds of load that nobody counts, for each server."""
TYPES = {1: ("flask", "gunicorn", "fastapi"), 2: ("gunicorn", "fastapi")}
"""Server types by workers; flask, which is for development, has one."""
NO_SERVER = "no server: read, predict, check, JSON"

COLUMNS = (
    Column("server", "server"),
    Column("workers", "workers"),
    Column("connections", "connections"),
    Column("rate", "requests/s", ".0f"),
    Column("p50", "p50 ms", ".2f"),
    Column("p99", "p99 ms", ".2f"),
    Column("cpu", "CPU µs/request", ".0f"),
    Column("over", "over no server µs", ".0f"),
    Column("over_hooks", "over the hooks µs", ".0f"),
    Column("errors", "errors"),
)


class Samples:
    """One server's rounds, with what the same takes without it in the same moment."""

    def __init__(
        self, server: Running, connections: int, rows: Path, stages: models.Stages
    ) -> None:
        self.server = server
        self.connections = connections
        self.loads: list[Load] = []
        self.cpu: list[float] = []
        """Seconds of CPU a request, of all its processes."""
        self.over: list[float] = []
        self.over_hooks: list[float] = []
        self._rows = rows
        self._stages = stages

    def warm_up(self) -> None:
        """Let it import and fill what it does at first."""
        self._press(WARM_UP)

    def add(self, seconds: int) -> None:
        """Take one more round."""
        before = self._cpu()
        load = self._press(seconds)
        cpu = (self._cpu() - before) / load.requests
        self.loads.append(load)
        self.cpu.append(cpu)
        self.over.append(cpu - self._stages.whole)
        self.over_hooks.append(cpu - self._stages.hooks)

    def _press(self, seconds: int) -> Load:
        return press(
            self.server.port,
            connections=self.connections,
            seconds=seconds,
            path="/predict",
            post=self._rows,
        )

    def _cpu(self) -> float:
        return sum(cpu_seconds(process.pid) for process in self.server.processes())


def measure(effort: Effort) -> Result:
    """Press each server in turn, round by round, with the hooks alone in between."""
    rows: list[dict[str, Value]] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drumd-bench-")))
        data = models.train(directory)
        size = data.stat().st_size
        stages = models.Stages(directory, data)
        rounds: list[tuple[float, float, float, float]] = []
        for workers, types in TYPES.items():
            servers = [models.server(each, directory) for each in types]
            # On all CPUs: so few requests cost the load generator next to nothing.
            with running(servers, workers=workers, wait=False) as started:
                for each in started:
                    models.wait_ready(each)
                samples = [
                    Samples(each, connections, data, stages)
                    for each, connections in product(started, CONNECTIONS)
                ]
                for sample in samples:
                    sample.warm_up()
                for number in range(effort.predict_rounds):
                    stages.run(1.0)
                    rounds.append((stages.read, stages.hooks, stages.check, stages.json))
                    # To and fro, so that nobody is always the first of a round.
                    for sample in samples if number % 2 else reversed(samples):
                        sample.add(effort.throughput_seconds)
                rows += [_row(sample, workers) for sample in samples]
    read, hooks, check, json = (1e6 * median(stage) for stage in zip(*rounds, strict=True))
    whole = read + hooks + check + json
    rows.insert(0, {"server": NO_SERVER, "rate": 1e6 / whole, "cpu": whole})
    return Result(
        "Predictions of a model",
        f"Kept connections post a CSV of {models.ROWS} rows and 10 columns "
        f"({size} bytes) to /predict of a linear regression of scikit-learn's. "
        f"Median of {effort.predict_rounds} interleaved rounds of {effort.throughput_seconds} s; "
        "what a server costs over the same code without one, and over the hooks alone (here the "
        "model's own `predict`), is taken within a round.",
        COLUMNS,
        rows,
        notes=[_stages(whole, read, hooks, check, json)],
    )


def _row(samples: Samples, workers: int) -> dict[str, Value]:
    return {
        "server": samples.server.name,
        "workers": workers,
        "connections": samples.connections,
        "rate": median(load.rate for load in samples.loads),
        "p50": 1e3 * median(load.p50 for load in samples.loads),
        "p99": 1e3 * median(load.p99 for load in samples.loads),
        "cpu": 1e6 * median(samples.cpu),
        "over": 1e6 * median(samples.over),
        "over_hooks": 1e6 * median(samples.over_hooks),
        "errors": sum(load.errors for load in samples.loads),
    }


def _stages(whole: float, read: float, hooks: float, check: float, json: float) -> str:
    return (
        f"Where the time goes, of the {whole:.0f} µs without a server: reading the CSV {read:.0f}, "
        f"the hooks {hooks:.0f}, checking what they returned {check:.0f}, JSON {json:.0f}. "
        "The rest of a server's CPU is HTTP, the framework and the meter."
    )
