"""Reloads with websockets, which no other process can go on with: each is told, none is cut."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.e2e.delay import delayed
from tests.e2e.rolling import FULL, Serve, succeed
from tests.e2e.served import wait_gone
from tests.waiting import until

SERVICE_RESTART = 1012
"""WebSocket Close Code Number Registry (IANA, from RFC 6455 §11.7)."""
CERTIFICATE = str(Path(__file__).parents[1] / "apps" / "gunicorn_tls.pem")
TLS = {"ssl_certfile": CERTIFICATE, "ssl_keyfile": CERTIFICATE}
UVICORN = {"app": "speaking:asgi", "runtime": "uvicorn"}
GUNICORN = {"app": "speaking:asgi", "runtime": "gunicorn"}
CLIENTS = 32 if FULL else 8
RELOADS = 10 if FULL else 2


@dataclass(slots=True)
class Fates:
    """What became of websockets and of what was said on them."""

    opened: int = 0
    echoed: int = 0
    unanswered: int = 0
    """Messages that crossed the close, or came before it and were not answered any more."""
    told: Counter[int | None] = field(default_factory=Counter)
    """Ends by the code of the server's close frame; None: there was none."""
    refused: Counter[str] = field(default_factory=Counter)
    """Handshakes that failed, by the error."""


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(UVICORN, id="uvicorn"),
        pytest.param({**UVICORN, "uvicorn": TLS}, id="uvicorn-tls"),
        pytest.param(GUNICORN, id="gunicorn-asgi"),
    ],
)
async def test_websockets_are_told_and_come_back(serve: Serve, pool: Mapping[str, Any]) -> None:
    """Each websocket ends with a close frame of 1012, and its client is taken in at once."""
    fates, stop = Fates(), asyncio.Event()
    served = serve(web={**pool, "workers": 2, "linger": "0.2s"})
    await asyncio.to_thread(served.ready)
    tls = ssl.create_default_context(cafile=CERTIFICATE) if "ssl_certfile" in str(pool) else None
    with delayed(served.web.port, 0.02) as far:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(talk(far, tls, fates, stop))
            for _ in range(RELOADS):
                await echoes(fates)
                old = served.pids()
                await asyncio.to_thread(succeed, served, "reload", "web")
                await asyncio.to_thread(wait_gone, old)
            await echoes(fates)
            stop.set()
    print(fates)  # noqa: T201 - the measurement
    assert not fates.refused, fates
    # In a rollout one may land on the other worker that is still to go, and is told again.
    assert set(fates.told) == {SERVICE_RESTART}, fates
    assert fates.told.total() >= CLIENTS * RELOADS, fates


async def echoes(fates: Fates) -> None:
    """Wait for some more, so that all have a connection again."""
    wanted = fates.echoed + 5 * CLIENTS
    await until(lambda: fates.echoed > wanted, what=f"echoes; {fates}")


async def talk(port: int, tls: ssl.SSLContext | None, fates: Fates, stop: asyncio.Event) -> None:
    """Talk until the end; come back as soon as the server ends the connection."""
    while not stop.is_set():
        try:
            connection = await connect(
                f"{'wss' if tls else 'ws'}://localhost:{port}/", ssl=tls, proxy=None
            )
        except Exception as error:  # noqa: BLE001 - each is a finding
            fates.refused[repr(error)] += 1
            await asyncio.sleep(0.1)
            continue
        fates.opened += 1
        async with connection:
            await say_until_the_end(connection, fates, stop)


async def say_until_the_end(
    connection: ClientConnection, fates: Fates, stop: asyncio.Event
) -> None:
    said = 0
    try:
        while not stop.is_set():
            said += 1
            await connection.send(str(said))
            answer = str(await connection.recv())
            assert answer.split()[1] == str(said)
            fates.echoed += 1
    except ConnectionClosed as end:
        fates.unanswered += 1
        fates.told[end.rcvd.code if end.rcvd else None] += 1
