"""An ASGI app that does what a test asks for in the path; its lifespan does what APP_START says."""

import asyncio
import os
from pathlib import Path
from typing import Any

started = False


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    else:
        await http(scope, send)


async def lifespan(receive: Any, send: Any) -> None:
    global started
    await receive()
    start = os.environ.get("APP_START", "")
    if start == "raise":
        raise RuntimeError("asked to fail at startup")
    if start == "refuse":
        await send({"type": "lifespan.startup.failed", "message": "asked to refuse"})
        return
    if start == "slow":
        await asyncio.sleep(float(os.environ["APP_START_SECONDS"]))
    started = True
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("lifespan ended", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def websocket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def http(scope: dict[str, Any], send: Any) -> None:
    path = scope["path"]
    if path == "/hang":
        await asyncio.Event().wait()
    if path == "/until":
        gate = Path(scope["query_string"].decode())
        Path(f"{gate}.begun").touch()
        while not gate.exists():
            await asyncio.sleep(0.005)
    if path == "/raise":
        raise RuntimeError("asked to raise")
    body = (f"{os.getpid()} started={started}" if path == "/started" else str(os.getpid())).encode()
    status = 404 if path == "/missing" else 200
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def without_lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await http(scope, send)
