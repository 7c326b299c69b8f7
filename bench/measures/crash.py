"""How long nobody answers after a crash of the only worker of an app that takes 2 s to import."""

import time
from dataclasses import dataclass, field
from statistics import median

from bench.effort import Effort
from bench.measures.replacement import SUPERVISED_UVICORN, replacement
from bench.report import Column, Result, Value, Wanted
from bench.servers import (
    DRUMD_GTHREAD,
    DRUMD_UVICORN,
    GRANIAN,
    GTHREAD,
    UVICORN_WORKER,
    BenchError,
    Running,
    drumd,
    gunicorn,
    running,
)

IMPORT = 2.0
"""Seconds, as in bench/apps/heavy_*.py."""
APART = 8.0
"""Seconds between two crashes of a server: granian ends at a second one within some 6 s (2.8.7,
granian/server/common.py), and a spare is renewed meanwhile."""
LIMIT = 0.1
PRELOADS = (
    drumd("drumd, uvicorn, preload", "asgi", more=["preload = true"]),
    drumd("drumd, gthread, preload", "wsgi", gunicorn_class="gthread", more=["preload = true"]),
)
SPARES = (
    drumd("drumd, uvicorn, a spare", "asgi", more=["spares = 1"]),
    drumd("drumd, gthread, a spare", "wsgi", gunicorn_class="gthread", more=["spares = 1"]),
)
QUICK = {server.name for server in (*PRELOADS, *SPARES)}
SERVERS = (
    *(*PRELOADS, *SPARES, DRUMD_UVICORN, DRUMD_GTHREAD),
    *(SUPERVISED_UVICORN, UVICORN_WORKER, GTHREAD, GRANIAN),
    gunicorn("gunicorn, gthread, --preload", "wsgi", "gthread", more=["--preload"]),
)

COLUMNS = (
    Column("server", "server"),
    Column("seconds", "ms", ".0f"),
    Column("worst", "worst ms", ".0f"),
    Column("errors", "failed requests", "d"),
)


@dataclass(slots=True)
class Crashes:
    """One server's rounds."""

    server: Running
    seconds: list[float] = field(default_factory=list)
    errors: int = 0
    lost: bool = False
    """It has not come back."""

    def add(self) -> None:
        """Kill its worker and wait for the replacement."""
        if self.lost:
            return
        try:
            took, failed = replacement(self.server)
        except BenchError:
            self.lost = True
        else:
            self.seconds.append(took)
            self.errors += failed

    def row(self) -> dict[str, Value]:
        """Return what is shown of it."""
        return {
            "server": self.server.name,
            "seconds": None if self.lost else median(self.seconds) * 1e3,
            "worst": None if self.lost else max(self.seconds) * 1e3,
            "errors": self.errors,
        }


def measure(effort: Effort) -> Result:
    """Kill each server's worker in turn, round by round."""
    with running(SERVERS, workers=1, app="heavy") as servers:
        crashes = [Crashes(server) for server in servers]
        for _ in range(effort.crashes):
            # Before the first one too: a spare starts once its pool is ready.
            time.sleep(APART)
            for each in crashes:
                each.add()
        rows = [each.row() for each in crashes]
    return Result(
        "A crash of an app that takes long to import",
        f"The import takes {IMPORT:g} s. From kill -9 of the only worker to the first answer of "
        f"its replacement. Median of {effort.crashes}.",
        COLUMNS,
        rows,
        [
            Wanted(f"seconds to an answer, {row['server']}", _seconds(row), LIMIT)
            for row in rows
            if row["server"] in QUICK
        ],
        ["gunicorn --preload forks as well, and cannot take up new code at SIGHUP."],
    )


def _seconds(row: dict[str, Value]) -> float:
    milliseconds = row["seconds"]
    return milliseconds / 1e3 if isinstance(milliseconds, float) else float("inf")
