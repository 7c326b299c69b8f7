"""What becomes of a service that is reloaded with a release that raises at import."""

import contextlib
import os
import signal
import time

from bench.effort import Effort
from bench.measures.reloads import SERVERS, WORKERS
from bench.releases import Site, Watched, deployed
from bench.report import Column, Result, Value, Wanted
from bench.servers import Server, present
from tests.e2e.clients import Crowd, Report

CROWD = Crowd(kept=16, renewing=4, pause=0.5, patience=5.0)
RECOVERY = 15.0
"""Seconds that a good release may take to serve alone."""

COLUMNS = (
    Column("server", "server"),
    Column("failed", "failed after the reload"),
    Column("answered", "answered", "d"),
    Column("killed_failed", "failed after a kill -9", "d"),
    Column("killed_answered", "answered", "d"),
    Column("end", "service"),
    Column("recovers", "then a good release"),
)


def measure(effort: Effort) -> Result:
    """Give each server the bad release, kill one of its workers, then give it a good one."""
    rows = [_measure(server, effort.watched_seconds) for server in present(SERVERS)]
    return Result(
        "A broken release",
        f"{WORKERS} workers are reloaded (SIGHUP) with a release that raises at import. The first "
        f"{effort.watched_seconds:g} s after it, and as many after kill -9 of one worker; then a "
        "good release and another SIGHUP. 16 clients keep connections, 4 open new ones.",
        COLUMNS,
        rows,
        [
            Wanted(f"failed after the reload, {row['server']}", float(str(row["failed"])), 0)
            for row in rows
            if str(row["server"]).startswith("drumd")
        ],
        ["Releases lie in directories of their own behind a symlink; the old one is still there."],
    )


def _measure(server: Server, seconds: float) -> dict[str, Value]:
    with deployed(server, WORKERS) as site, site.watched(CROWD) as watched:
        before = watched.look(1.0)
        site.releases.deploy("bad", "raise:no model in this release")
        site.server.reload()
        reloaded = watched.look(seconds)
        for pid in sorted(before.pids | reloaded.pids, reverse=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                break
        killed = watched.look(seconds)
        last = watched.look(1.0)
        recovers = _recovers(site, watched)
        ended = site.server.ended
    return {
        "server": server.name,
        "failed": reloaded.lost,
        "answered": reloaded.ok,
        "killed_failed": killed.lost,
        "killed_answered": killed.ok,
        "end": "ended" if ended else _share(last),
        "recovers": recovers,
    }


def _share(report: Report) -> str:
    if not report.ok:
        return "answers nobody"
    return "answers all" if not report.lost else "answers some"


def _recovers(site: Site, watched: Watched) -> str:
    site.releases.deploy("2")
    if site.server.ended:
        return "nobody to tell"
    site.server.reload()
    begun = time.monotonic()
    while time.monotonic() - begun < RECOVERY:
        if watched.look(0.5).versions == {"2"}:
            return f"serves after {time.monotonic() - begun:.1f} s"
    return f"not within {RECOVERY:g} s"
