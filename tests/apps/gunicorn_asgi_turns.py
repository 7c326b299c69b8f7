"""An ASGI app for what one connection sees from request to request."""

import asyncio
import gc
import os
from pathlib import Path
from typing import Any

GATE_INTERVAL = 0.005


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    path, gate = scope["path"], Path(scope["query_string"].decode())
    if path == "/silent":
        return
    if path == "/half":
        await begin(send, 10)
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        raise RuntimeError("asked to raise")
    if path == "/gone":
        await receive()
        await send_nothing_until_gone(receive, gate)
        return
    if path == "/echo":
        await answer(send, await whole_body(receive))
        return
    if path == "/collector":
        await answer(send, str(gc.get_threshold()[0]).encode())
        return
    if path == "/chunks":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})
        return
    await answer(send, scope["path"].encode())
    if path == "/after":
        await until(gate)


async def whole_body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            return body


async def send_nothing_until_gone(receive: Any, gate: Path) -> None:
    gate.with_name(f"{gate.name}.begun").touch()
    assert (await receive())["type"] == "http.disconnect"
    gate.touch()  # noqa: ASYNC240 - an empty file


async def begin(send: Any, length: int) -> None:
    headers = [(b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def answer(send: Any, body: bytes) -> None:
    await begin(send, len(body))
    await send({"type": "http.response.body", "body": body})


async def until(gate: Path) -> None:
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(GATE_INTERVAL)


if "GC_THRESHOLD" in os.environ:
    gc.set_threshold(int(os.environ["GC_THRESHOLD"]))
