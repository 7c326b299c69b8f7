"""How evenly kept connections spread over the workers."""

import asyncio
from collections import Counter
from statistics import median

from bench.client import Connection
from bench.effort import Effort
from bench.report import Column, Result, Value, Wanted
from bench.servers import (
    ASGI,
    DRUMD_ASGI,
    DRUMD_UVICORN,
    UVICORN,
    UVICORN_WORKER,
    Running,
    running,
)

CONNECTIONS = 64
ROUND_TRIPS = 5
"""Requests on each connection: the workers have something to do while the others arrive."""
WORKERS = (2, 4)
LIMIT = 1.35
SERVERS = (DRUMD_UVICORN, UVICORN, UVICORN_WORKER, DRUMD_ASGI, ASGI)
OURS = {DRUMD_UVICORN.name, DRUMD_ASGI.name}

COLUMNS = (
    Column("server", "server"),
    Column("workers", "workers"),
    Column("busiest", "busiest/fair", ".2f"),
    Column("worst", "worst run", ".2f"),
    Column("most", "connections, busiest"),
    Column("least", "idlest"),
)


def measure(effort: Effort) -> Result:
    """Open 64 connections at once, some times, and look who has them."""
    rows: list[dict[str, Value]] = []
    wanted: list[Wanted] = []
    for workers in WORKERS:
        with running(SERVERS, workers=workers) as servers:
            for server in servers:
                spreads = asyncio.run(_spreads(server, effort.spreads))
                row = _row(server, workers, spreads)
                rows.append(row)
                if server.name in OURS:
                    wanted.append(_promise(row))
    return Result(
        "Spread of connections",
        f"{CONNECTIONS} connections are opened at once and kept; the busiest worker's number of "
        f"them to a fair share. Median of {effort.spreads} runs.",
        COLUMNS,
        rows,
        wanted,
    )


async def _spreads(server: Running, count: int) -> list[list[int]]:
    return [await _spread(server.port) for _ in range(count)]


async def _spread(port: int) -> list[int]:
    """Return the numbers of connections by worker, the greatest first."""
    answers = await asyncio.gather(*(_keep(port) for _ in range(CONNECTIONS)))
    for connection, _ in answers:
        connection.close()
    return sorted(Counter(pid for _, pid in answers).values(), reverse=True)


async def _keep(port: int) -> tuple[Connection, bytes]:
    connection = await Connection.open(port)
    for _ in range(ROUND_TRIPS):
        pid = await connection.get("/pid")
    return connection, pid


def _row(server: Running, workers: int, spreads: list[list[int]]) -> dict[str, Value]:
    fair = CONNECTIONS / workers
    return {
        "server": server.name,
        "workers": workers,
        "busiest": median(spread[0] for spread in spreads) / fair,
        "worst": max(spread[0] for spread in spreads) / fair,
        "most": median(spread[0] for spread in spreads),
        # A worker without any is in no answer.
        "least": median(spread[-1] if len(spread) == workers else 0 for spread in spreads),
    }


def _promise(row: dict[str, Value]) -> Wanted:
    busiest = row["busiest"]
    assert isinstance(busiest, float)
    return Wanted(f"busiest of {row['workers']} workers of {row['server']}", busiest, LIMIT)
