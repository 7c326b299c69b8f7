"""How long nobody answers after a crash of the only worker of an app that takes 2 s to import."""

import time
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
    Running,
    drumd,
    gunicorn,
    running,
)

IMPORT = 2.0
"""Seconds, as in bench/apps/heavy_*.py."""
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


def measure(effort: Effort) -> Result:
    """Kill each server's worker in turn, round by round."""
    with running(SERVERS, workers=1, app="heavy") as servers:
        rows = [_row(server, effort.crashes) for server in servers]
    return Result(
        "A crash of an app that takes long to import",
        f"The import takes {IMPORT:g} s. From kill -9 of the only worker to the first answer of "
        f"its replacement. Median of {effort.crashes}.",
        COLUMNS,
        rows,
        [
            Wanted(
                f"seconds to an answer, {row['server']}", float(str(row["seconds"])) / 1e3, LIMIT
            )
            for row in rows
            if row["server"] in QUICK
        ],
        ["gunicorn --preload forks as well, and cannot take up new code at SIGHUP."],
    )


def _row(server: Running, crashes: int) -> dict[str, Value]:
    seconds: list[float] = []
    errors = 0
    for _ in range(crashes):
        time.sleep(1.5 * IMPORT)  # a spare is renewed meanwhile
        took, failed = replacement(server)
        seconds.append(took)
        errors += failed
    return {
        "server": server.name,
        "seconds": median(seconds) * 1e3,
        "worst": max(seconds) * 1e3,
        "errors": errors,
    }
