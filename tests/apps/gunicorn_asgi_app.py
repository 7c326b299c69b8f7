"""An ASGI app that does what a test asks for in the path; its lifespan does what APP_START says."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

started: list[bool] = []
GATE_INTERVAL = 0.005


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    else:
        await http(scope, send)


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    start = os.environ.get("APP_START", "")
    if start == "raise":
        raise RuntimeError("asked to fail at startup")
    if start == "refuse":
        await send({"type": "lifespan.startup.failed", "message": "asked to refuse"})
        return
    if start == "slow":
        await asyncio.sleep(float(os.environ["APP_START_SECONDS"]))
    started.append(True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    os.write(1, b"lifespan ended\n")
    await send({"type": "lifespan.shutdown.complete"})


async def websocket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def http(scope: dict[str, Any], send: Any) -> None:
    path = scope["path"]
    if path == "/block":
        while True:
            time.sleep(60)  # noqa: ASYNC251 - blocking the loop is the point
    if path == "/hang":
        await asyncio.Event().wait()
    if path == "/until":
        await until(Path(scope["query_string"].decode()))
    if path == "/stream":
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        await until(Path(scope["query_string"].decode()))
        await send({"type": "http.response.body", "body": b"2"})
        return
    if path == "/raise":
        raise RuntimeError("asked to raise")
    body = (
        f"{os.getpid()} started={bool(started)}" if path == "/started" else str(os.getpid())
    ).encode()
    status = 404 if path == "/missing" else 200
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def until(gate: Path) -> None:
    gate.with_name(f"{gate.name}.begun").touch()
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(GATE_INTERVAL)


async def without_lifespan(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await http(scope, send)
