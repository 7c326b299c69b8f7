"""What clients notice of reloads: requests that fail, connections that are closed under them."""

import time

from bench.effort import Effort
from bench.releases import Site, Watched, deployed
from bench.report import Column, Result, Value, Wanted
from bench.servers import (
    ASGI,
    DRUMD_ASGI,
    DRUMD_GTHREAD,
    DRUMD_UVICORN,
    GRANIAN,
    GTHREAD,
    UVICORN,
    UVICORN_WORKER,
    BenchError,
    Server,
    drumd,
    present,
)
from tests.e2e.clients import Report

WORKERS = 2
QUIET = 3.0
"""Seconds without a reload, to compare with."""
CAP = 60.0
SERVERS = (
    DRUMD_UVICORN,
    drumd("drumd, uvicorn, preload", "asgi", more=["preload = true"]),
    UVICORN,
    UVICORN_WORKER,
    GRANIAN,
    DRUMD_GTHREAD,
    drumd("drumd, gthread, preload", "wsgi", gunicorn_class="gthread", more=["preload = true"]),
    GTHREAD,
    DRUMD_ASGI,
    ASGI,
)

COLUMNS = (
    Column("server", "server"),
    Column("failed", "failed requests", "d"),
    Column("idle", "closed while idle", "d"),
    Column("told", "told to close", "d"),
    Column("answered", "answered", "d"),
    Column("seconds", "s a reload", ".1f"),
    Column("p99", "p99 ms", ".0f"),
    Column("worst", "worst ms", ".0f"),
    Column("quiet_p99", "p99 without", ".0f"),
    Column("quiet_worst", "worst without", ".0f"),
)


def measure(effort: Effort) -> Result:
    """Reload each server in turn, again and again, under the same clients."""
    rows = [_measure(server, effort.reloads) for server in present(SERVERS)]
    return Result(
        "Reloads under load",
        f"{effort.reloads} reloads (SIGHUP) of {WORKERS} workers, each to a new release, while 32 "
        "clients keep connections (half of them pause up to 2 s between requests) and 8 open one "
        "for each request, over a line with a round trip of 20 ms. No client asks twice.",
        COLUMNS,
        rows,
        [
            Wanted(f"failed requests, {row['server']}", float(str(row["failed"])), 0)
            for row in rows
            if str(row["server"]).startswith("drumd")
        ],
        [
            (
                "Closed while idle: the connection ended while its client paused, without an "
                "answer that had said so. A reload lasts until the new release alone answers."
            )
        ],
    )


def _measure(server: Server, reloads: int) -> dict[str, Value]:
    with deployed(server, WORKERS) as site, site.watched() as watched:
        time.sleep(QUIET)
        quiet = watched.clients.cut()
        seconds = [_reload(site, watched, str(number)) for number in range(2, 2 + reloads)]
        watched.look(QUIET)  # what a reload leaves behind may fail late
        loud = sum(watched.reports, Report())
    return {
        "server": server.name,
        "failed": loud.lost,
        "idle": loud.idle_closes,
        "told": loud.told_closes,
        "answered": loud.ok,
        "seconds": sum(seconds) / len(seconds),
        **_latencies("", loud),
        **_latencies("quiet_", quiet),
    }


def _reload(site: Site, watched: Watched, version: str) -> float:
    """Return the seconds until the new release alone answers."""
    site.releases.deploy(version)
    site.server.reload()
    begun = time.monotonic()
    while watched.look(0.2).versions != {version}:
        if time.monotonic() - begun > CAP:
            raise BenchError(f"cannot see release {version} of {site.server.name} after {CAP:g} s")
    return time.monotonic() - begun


def _latencies(prefix: str, report: Report) -> dict[str, Value]:
    return {
        f"{prefix}p99": report.latency(0.99) * 1e3,
        f"{prefix}worst": report.latency(1.0) * 1e3,
    }
