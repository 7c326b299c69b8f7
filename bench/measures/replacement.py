"""How long after kill -9 of a worker its replacement answers, against a bare start of the app."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass, field
from statistics import median

from bench.client import ERRORS, get
from bench.effort import Effort
from bench.report import Column, Result, Value, Wanted, ratios
from bench.servers import (
    DRUMD_GTHREAD,
    DRUMD_UVICORN,
    GTHREAD,
    UVICORN_WORKER,
    BenchError,
    Running,
    Server,
    gunicorn,
    running,
    uvicorn,
)

LIMIT = 1.2
CAP = 60.0
RETRY = 0.002
"""Seconds after a refused or broken connection until the next one is tried."""
SUPERVISED_UVICORN = uvicorn("uvicorn --workers 2, both killed", least=2)
"""With one worker it has no supervisor."""


@dataclass(frozen=True, slots=True)
class Group:
    """Servers whose workers are the same, and a bare start of one such worker."""

    bare: Server
    ours: Server
    peers: tuple[Server, ...]


GROUPS = (
    Group(uvicorn("uvicorn, bare start"), DRUMD_UVICORN, (SUPERVISED_UVICORN, UVICORN_WORKER)),
    Group(gunicorn("gunicorn, bare start", "wsgi", "gthread"), DRUMD_GTHREAD, (GTHREAD,)),
)
APPS = {"tiny": "tiny", "slow": "0.5 s of import"}

COLUMNS = (
    Column("server", "server"),
    Column("app", "app"),
    Column("seconds", "ms", ".0f"),
    Column("worst", "worst ms", ".0f"),
    Column("ratio", "to bare start", ".2f"),
    Column("errors", "failed requests"),
)


@dataclass(slots=True)
class Samples:
    """One server's rounds: seconds each, and requests that failed meanwhile."""

    name: str
    seconds: list[float] = field(default_factory=list)
    errors: int = 0


def measure(effort: Effort) -> Result:
    """Kill each server's worker in turn, round by round, and ask until a new one answers."""
    rows: list[dict[str, Value]] = []
    wanted: list[Wanted] = []
    for app, title in APPS.items():
        for group in GROUPS:
            bare, ours, *peers = _samples(group, app, effort.kills)
            rows += [_row(each, bare, title) for each in (bare, ours, *peers)]
            ratio = ratios(ours.seconds, bare.seconds)
            wanted.append(Wanted(f"{ours.name}, {title}, to a bare start", ratio, LIMIT))
    return Result(
        "Replacement",
        "From kill -9 of the only worker to the first answer of its replacement, as a client sees "
        "it that connects at once and waits; and from the start of the server alone to its first "
        f"answer. Median of {effort.kills} interleaved rounds.",
        COLUMNS,
        rows,
        wanted,
        [
            (
                "gunicorn forks a process that has imported gunicorn already; drumd and uvicorn "
                "start an interpreter."
            )
        ],
    )


def _samples(group: Group, app: str, rounds: int) -> list[Samples]:
    bare = Samples(group.bare.name)
    with running((group.ours, *group.peers), workers=1, app=app) as servers:
        samples = [Samples(server.name) for server in servers]
        for _ in range(rounds):
            bare.seconds.append(_bare_start(group.bare, app))
            for server, each in zip(servers, samples, strict=True):
                seconds, errors = replacement(server)
                each.seconds.append(seconds)
                each.errors += errors
    return [bare, *samples]


def _bare_start(server: Server, app: str) -> float:
    """Return the seconds from the start of `server` to its first answer."""
    begun = time.monotonic()
    with running((server,), workers=1, app=app, wait=False) as (started,):
        answered, _ = asyncio.run(_first_answer(started))
        return answered - begun


def replacement(server: Running) -> tuple[float, int]:
    """Kill the worker; return the seconds to the first answer of a new one, and failed requests."""
    pids = server.wait_whole()
    # All before any is replaced: the first answer is a new worker's.
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    answered, errors = asyncio.run(_first_answer(server))
    return answered - killed, errors


async def _first_answer(server: Running) -> tuple[float, int]:
    """Ask until somebody answers; return when that was, and how many requests failed before."""
    errors = 0
    begun = time.monotonic()
    while time.monotonic() - begun < CAP:
        try:
            # Mostly one request waits in the queue all the time, and takes nobody's CPU.
            await get(server.port, "/pid")
        except ERRORS:
            errors += 1
            await asyncio.sleep(RETRY)
        else:
            return time.monotonic(), errors
    raise BenchError(f"cannot see a new worker of {server.name} after {CAP:g} s")


def _row(samples: Samples, bare: Samples, app: str) -> dict[str, Value]:
    return {
        "server": samples.name,
        "app": app,
        "seconds": median(samples.seconds) * 1e3,
        "worst": max(samples.seconds) * 1e3,
        "ratio": None if samples is bare else ratios(samples.seconds, bare.seconds),
        "errors": samples.errors,
    }
