"""How long requests wait for workers that serve one at a time: pulled from one queue, or pushed."""

import asyncio
import heapq
import random
from dataclasses import dataclass

import uvloop

from bench.apps.tiny_wsgi import SERVICE
from bench.client import ERRORS, get
from bench.effort import Effort
from bench.report import Column, Result, Value, Wanted, percentile
from bench.servers import Running, drumd, gunicorn, running

WORKERS = 4
LOAD = 0.6
RATE = LOAD * WORKERS / SERVICE
"""Requests a second."""
LIMIT = 1.1
SEED = 20_25
STAGGER = 0.0037
"""Seconds between the starts of the servers' schedules: the same arrivals, but not at once."""

IDEAL = "one ideal queue (computed)"
ONE_QUEUE = gunicorn("gunicorn, sync", "wsgi", "sync")
"""Pulls from one listener, too: the ideal as this machine and this client can measure it."""
PULLED = (
    drumd("drumd, sync", "wsgi", gunicorn_class="sync"),
    drumd("drumd, gthread", "wsgi", gunicorn_class="gthread"),
)
CONTRAST = (
    gunicorn("gunicorn, gthread", "wsgi", "gthread"),
    drumd('drumd, sync, balance = "per-slot"', "wsgi", gunicorn_class="sync", balance="per-slot"),
    drumd(
        'drumd, gthread, balance = "per-slot"',
        "wsgi",
        gunicorn_class="gthread",
        balance="per-slot",
    ),
)

COLUMNS = (
    Column("server", "server"),
    Column("p50", "p50 ms", ".1f"),
    Column("p50_ratio", "to ideal", ".3f"),
    Column("p99", "p99 ms", ".1f"),
    Column("p99_ratio", "to ideal", ".3f"),
    Column("errors", "errors"),
)


@dataclass(frozen=True, slots=True)
class Waits:
    """Answer times in seconds, and how many requests failed."""

    times: list[float]
    errors: int = 0

    @property
    def p50(self) -> float:
        """Return the median."""
        return percentile(self.times, 0.50)

    @property
    def p99(self) -> float:
        """Return what one in a hundred exceeds."""
        return percentile(self.times, 0.99)


def measure(effort: Effort) -> Result:
    """Send all servers the same Poisson arrivals, and compute what one queue would do with them."""
    arrivals = _arrivals(effort.queueing_seconds)
    ideal = Waits(one_queue(arrivals, WORKERS, SERVICE))
    measured: dict[str, Waits] = {}
    for servers in ((ONE_QUEUE, *PULLED), CONTRAST):  # few at once: the client needs CPU as well
        with running(servers, workers=WORKERS, threads=1) as started:
            waits = uvloop.run(_all(started, arrivals))
        measured |= {server.name: each for server, each in zip(servers, waits, strict=True)}
    one = measured[ONE_QUEUE.name]
    return Result(
        "One request at a time",
        f"Requests of {SERVICE * 1e3:.0f} ms, each on a connection of its own, arrive at random "
        f"(Poisson) at {LOAD:.0%} load of {WORKERS} workers with one thread: {len(arrivals)} to "
        "each server, at the same moments. The ideal is computed from these moments.",
        COLUMNS,
        [_row(IDEAL, ideal, ideal), *(_row(name, each, ideal) for name, each in measured.items())],
        [
            Wanted(f"{name} of {server.name} to {ONE_QUEUE.name}", ratio, LIMIT)
            for server in PULLED
            for name, ratio in (
                ("p50", measured[server.name].p50 / one.p50),
                ("p99", measured[server.name].p99 / one.p99),
            )
        ],
    )


def one_queue(arrivals: list[float], workers: int, service: float) -> list[float]:
    """Return the times in a system with one queue, first come first served.

    `arrivals`: seconds, in order.
    """
    free = [0.0] * workers
    times = []
    for arrival in arrivals:
        done = max(arrival, heapq.heappop(free)) + service
        heapq.heappush(free, done)
        times.append(done - arrival)
    return times


def _arrivals(seconds: float) -> list[float]:
    chance = random.Random(SEED)
    arrivals = []
    now = 0.0
    while (now := now + chance.expovariate(RATE)) < seconds:
        arrivals.append(now)
    return arrivals


async def _all(servers: list[Running], arrivals: list[float]) -> list[Waits]:
    return await asyncio.gather(
        *(_one(server.port, arrivals, STAGGER * n) for n, server in enumerate(servers))
    )


async def _one(port: int, arrivals: list[float], later: float) -> Waits:
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.5 + later
    outcomes = await asyncio.gather(*(_request(port, start + arrival) for arrival in arrivals))
    times = [outcome for outcome in outcomes if outcome is not None]
    return Waits(times, len(outcomes) - len(times))


async def _request(port: int, due: float) -> float | None:
    """Ask at the loop's time `due`; return the seconds since then, None if it failed."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(due - loop.time())
    try:
        await get(port, "/work")
    except ERRORS:
        return None
    # From when it was due: a client that is late itself must not hide a queue.
    return loop.time() - due


def _row(name: str, waits: Waits, ideal: Waits) -> dict[str, Value]:
    return {
        "server": name,
        "p50": waits.p50 * 1e3,
        "p50_ratio": waits.p50 / ideal.p50,
        "p99": waits.p99 * 1e3,
        "p99_ratio": waits.p99 / ideal.p99,
        "errors": waits.errors,
    }
