"""What 4 workers with a big model take of the machine's memory."""

import asyncio
import contextlib
import os
from collections.abc import Iterator

from bench.client import get
from bench.effort import Effort
from bench.measures.crash import PRELOADS
from bench.proc import proportional_memory
from bench.report import Column, Result, Value, Wanted
from bench.servers import (
    DRUMD_GTHREAD,
    DRUMD_UVICORN,
    GRANIAN,
    GTHREAD,
    UVICORN,
    UVICORN_WORKER,
    Running,
    Server,
    gunicorn,
    present,
    running,
)

WORKERS = 4
AT_ONCE = 8
REQUESTS = 2000
"""Each looks at 100 objects of the model, whose counts of references are written by that."""
LIMIT = 1.15
MEBIBYTE = 1 << 20
PRELOADED_GUNICORNS = (
    gunicorn("gunicorn, gthread, --preload", "wsgi", "gthread", more=["--preload"]),
    gunicorn(
        "gunicorn, uvicorn-worker, --preload",
        "asgi",
        "uvicorn_worker.UvicornWorker",
        needs="uvicorn_worker",
        more=["--preload"],
    ),
)
SERVERS = (
    *(*PRELOADS, *PRELOADED_GUNICORNS),
    *(DRUMD_UVICORN, DRUMD_GTHREAD, UVICORN, UVICORN_WORKER, GTHREAD, GRANIAN),
)

COLUMNS = (
    Column("server", "server"),
    Column("one", "1 worker, MiB", ".0f"),
    Column("fresh", f"{WORKERS} workers, MiB", ".0f"),
    Column("used", "after requests", ".0f"),
    Column("ratio", "to 1 worker", ".2f"),
)


def measure(effort: Effort) -> Result:
    """Start each server alone, with one worker and with four, and read their shares of memory."""
    with _model(effort.model_megabytes):
        rows = [_row(server) for server in present(SERVERS)]
    preloads = {server.name for server in PRELOADS}
    return Result(
        "Memory of a big model",
        f"A model of {effort.model_megabytes} MB, a tenth of it in small objects. Sum of the PSS "
        "of all processes, supervisor and template included, with 1 worker and with "
        f"{WORKERS}, before and after {REQUESTS} requests that look at 100 objects each.",
        COLUMNS,
        rows,
        [
            Wanted(f"4 workers to 1, {row['server']}", float(str(row["ratio"])), LIMIT)
            for row in rows
            if row["server"] in preloads
        ],
    )


@contextlib.contextmanager
def _model(megabytes: int) -> Iterator[None]:
    os.environ["BENCH_MODEL_MEGABYTES"] = str(megabytes)
    try:
        yield
    finally:
        del os.environ["BENCH_MODEL_MEGABYTES"]


def _row(server: Server) -> dict[str, Value]:
    with running((server,), workers=1, app="model") as (one,):
        single = _sum(one)
    with running((server,), workers=WORKERS, app="model") as (several,):
        fresh = _sum(several)
        asyncio.run(_ask(several.port))
        used = _sum(several)
    return {
        "server": server.name,
        "one": single / MEBIBYTE,
        "fresh": fresh / MEBIBYTE,
        "used": used / MEBIBYTE,
        "ratio": used / single,
    }


def _sum(server: Running) -> int:
    return sum(proportional_memory(process.pid) for process in server.processes())


async def _ask(port: int) -> None:
    """Ask on new connections, so that all workers get some."""
    for _ in range(REQUESTS // AT_ONCE):
        await asyncio.gather(*(get(port, "/") for _ in range(AT_ONCE)))
