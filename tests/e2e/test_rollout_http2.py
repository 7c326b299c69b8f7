"""Reloads with HTTP/2, which gunicorn speaks: GOAWAY, and what is in flight is answered.

Over a line of `ROUND_TRIP`. The numbers that docs/limits.md shows are what these tests print:
`DRUMD_TEST_FULL=1`, and pytest's `-rP`.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.delay import delayed
from tests.e2e.http2 import Connection, Unanswered
from tests.e2e.rolling import FULL, Serve, succeed
from tests.e2e.served import Served, wait_gone
from tests.waiting import until

CERTIFICATE = str(Path(__file__).parents[1] / "apps" / "gunicorn_tls.pem")
CLIENTS = 32 if FULL else 8
HTTP2: Mapping[str, Any] = {
    "certfile": CERTIFICATE,
    "keyfile": CERTIFICATE,
    "http_protocols": "h2,h1",
}
# With gthread each HTTP/2 connection has a thread to itself for as long as it is open.
GTHREAD = {"app": "unruly:wsgi", "runtime": "gunicorn", "gunicorn": HTTP2, "threads": 2 * CLIENTS}
ASGI = {"app": "unruly:asgi", "runtime": "gunicorn", "gunicorn": HTTP2}
servers = pytest.mark.parametrize(
    "pool", [pytest.param(GTHREAD, id="gthread"), pytest.param(ASGI, id="asgi")]
)
ROUND_TRIP = 0.1
RELOADS = 10 if FULL else 2
PAUSE = 0.6


@servers
async def test_streams_in_flight_are_answered(serve: Serve, pool: Mapping[str, Any]) -> None:
    """A stream that a reload finds in flight is answered, and GOAWAY names none before it."""
    served = await serve_two(serve, pool, linger=0.1)
    old = served.pids()
    connection = await Connection.open(served.web.port, CERTIFICATE)
    waiting = asyncio.create_task(connection.ask("/wait/gate"))
    await asyncio.to_thread(served.wait_begun, "gate")
    reloading = asyncio.create_task(asyncio.to_thread(succeed, served, "reload", "web"))
    await until(lambda: not set(old) & set(served.pids()), what="a new generation", every=0.1)
    assert not waiting.done()
    served.open("gate")
    assert int(await waiting) in old
    await asyncio.wait_for(connection.over.wait(), 30)
    assert connection.last_served == 1
    await connection.close()
    await reloading
    wait_gone(old)


@servers
async def test_a_linger_longer_than_the_pauses_loses_nothing(
    serve: Serve, pool: Mapping[str, Any]
) -> None:
    """Clients that ask again within the linger get their answer and a GOAWAY, and lose nothing."""
    served = await serve_two(serve, pool, linger=PAUSE + 0.6)
    async with asking(served) as fates:
        await reload(served, fates)
    assert set(fates) <= {"answered", "opened", "GOAWAY"}, fates
    assert fates["GOAWAY"] >= CLIENTS


@servers
async def test_what_crosses_the_goaway_may_be_sent_again(
    serve: Serve, pool: Mapping[str, Any]
) -> None:
    """After the linger idle connections end with GOAWAY; what crosses it has reached nobody."""
    served = await serve_two(serve, pool, linger=0.1)
    async with asking(served) as fates:
        await reload(served, fates)
    assert set(fates) <= {"answered", "opened", "GOAWAY", "safe to send again"}, fates
    assert fates["GOAWAY"] >= CLIENTS


async def serve_two(serve: Serve, pool: Mapping[str, Any], linger: float) -> Served:
    served = serve(web={**pool, "workers": 2, "linger": f"{linger}s"})
    await asyncio.to_thread(served.ready)
    return served


async def reload(served: Served, fates: Counter[str]) -> None:
    for _ in range(RELOADS):
        old = served.pids()
        await asyncio.to_thread(succeed, served, "reload", "web")
        await asyncio.to_thread(wait_gone, old)
        await answers(fates)


async def answers(fates: Counter[str]) -> None:
    """Wait for some more, so that all have a connection again."""
    wanted = fates["answered"] + 3 * CLIENTS
    await until(lambda: fates["answered"] > wanted, what=f"answers; {fates}")


@contextlib.asynccontextmanager
async def asking(served: Served) -> AsyncIterator[Counter[str]]:
    """Let clients ask while the block runs; yield what becomes of their requests."""
    fates: Counter[str] = Counter()
    stop = asyncio.Event()
    with delayed(served.web.port, ROUND_TRIP / 2) as far:
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(_client(far, number, fates, stop))
                await answers(fates)
                yield fates
                stop.set()
        finally:
            print(fates)  # noqa: T201 - the measurement


async def _client(port: int, number: int, fates: Counter[str], stop: asyncio.Event) -> None:
    chance = random.Random(number)
    while not stop.is_set():
        connection = await Connection.open(port, CERTIFICATE)
        fates["opened"] += 1
        while not (stop.is_set() or connection.over.is_set()):
            try:
                await connection.ask("/")
                fates["answered"] += 1
            except Unanswered as lost:
                fates["safe to send again" if lost.safe else f"lost: {lost}"] += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.over.wait(), chance.uniform(0, PAUSE))
        if connection.over.is_set():
            fates["GOAWAY" if connection.last_served is not None else "no GOAWAY"] += 1
        await connection.close()
