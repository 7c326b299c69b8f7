"""What servers cost that nobody asks anything."""

import time
from collections.abc import Iterable

from bench.effort import Effort
from bench.proc import Counts, counts, proportional_memory
from bench.report import Column, Result, Value, Wanted
from bench.servers import (
    ASGI,
    DRUMD_ASGI,
    DRUMD_GTHREAD,
    DRUMD_UVICORN,
    GTHREAD,
    UVICORN,
    UVICORN_WORKER,
    Running,
    running,
)

WORKERS = 4
SETTLE = 2.0
"""Seconds after the start that are not counted."""
MEBIBYTE = 1 << 20
WAKEUPS_LIMIT = 5.0
CPU_LIMIT = 0.3
"""Percent of a CPU."""
SERVERS = (DRUMD_UVICORN, UVICORN, UVICORN_WORKER, DRUMD_GTHREAD, GTHREAD, DRUMD_ASGI, ASGI)
OURS = {DRUMD_UVICORN.name, DRUMD_GTHREAD.name, DRUMD_ASGI.name}

COLUMNS = (
    Column("server", "server"),
    Column("supervisor_switches", "supervisor: wake-ups/s", ".1f"),
    Column("supervisor_cpu", "CPU %", ".2f"),
    Column("supervisor_memory", "MiB (PSS)", ".0f"),
    Column("worker_switches", "a worker: wake-ups/s", ".1f"),
    Column("worker_cpu", "CPU %", ".2f"),
    Column("worker_memory", "MiB (PSS)", ".0f"),
)


def measure(effort: Effort) -> Result:
    """Start all, leave them alone for a while, and read what the kernel counted."""
    with running(SERVERS, workers=WORKERS) as servers:
        workers = {server.name: server.wait_whole() for server in servers}
        time.sleep(SETTLE)
        before = _all_counts(servers, workers)
        time.sleep(effort.idle_seconds)
        after = _all_counts(servers, workers)
        rows = [
            _row(server, workers[server.name], before, after, effort.idle_seconds)
            for server in servers
        ]
    return Result(
        "Idle",
        f"{WORKERS} workers and no requests, all servers at once, for {effort.idle_seconds:g} s; "
        "wake-ups are context switches of all threads.",
        COLUMNS,
        rows,
        [promise for row in rows if row["server"] in OURS for promise in _promises(row)],
        [
            (
                "A worker of drumd's beats four times a second, from the place that must make "
                "progress; gunicorn's beat once a second, uvicorn's ticks ten times."
            ),
            "drumd's supervisor holds the config, the admin API, the metrics and the journal.",
        ],
    )


def _all_counts(servers: Iterable[Running], workers: dict[str, set[int]]) -> dict[int, Counts]:
    return {pid: counts(pid) for each in servers for pid in (each.pid, *workers[each.name])}


def _row(
    server: Running,
    workers: set[int],
    before: dict[int, Counts],
    after: dict[int, Counts],
    seconds: float,
) -> dict[str, Value]:
    supervisor = after[server.pid] - before[server.pid]
    working = sum((after[pid] - before[pid] for pid in workers), Counts())
    share = seconds * len(workers)
    return {
        "server": server.name,
        "supervisor_switches": supervisor.switches / seconds,
        "supervisor_cpu": 100 * supervisor.cpu / seconds,
        "supervisor_memory": proportional_memory(server.pid) / MEBIBYTE,
        "worker_switches": working.switches / share,
        "worker_cpu": 100 * working.cpu / share,
        "worker_memory": sum(map(proportional_memory, workers)) / len(workers) / MEBIBYTE,
    }


def _promises(row: dict[str, Value]) -> list[Wanted]:
    switches, cpu = row["supervisor_switches"], row["supervisor_cpu"]
    assert isinstance(switches, float)
    assert isinstance(cpu, float)
    return [
        Wanted(f"wake-ups/s of the supervisor, {row['server']}", switches, WAKEUPS_LIMIT),
        Wanted(f"CPU % of the supervisor, {row['server']}", cpu, CPU_LIMIT),
    ]
