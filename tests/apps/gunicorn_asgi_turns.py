"""An ASGI app for what one connection sees from request to request; other paths say their name."""

import asyncio
import gc
import os
from pathlib import Path
from typing import Any

GATE_INTERVAL = 0.005

if "GC_THRESHOLD" in os.environ:
    gc.set_threshold(int(os.environ["GC_THRESHOLD"]))


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    path = scope["path"]
    if path in FACTS:
        await answer(send, str(FACTS[path]()).encode())
    elif path in GATED:
        await GATED[path](path.encode(), receive, send, Path(scope["query_string"].decode()))
    elif path in PLAIN:
        await PLAIN[path](receive, send)
    else:
        await answer(send, path.encode())


async def silent(_receive: Any, _send: Any) -> None:
    """End without an answer."""


async def half(_receive: Any, send: Any) -> None:
    await begin(send, 10)
    await send({"type": "http.response.body", "body": b"12345", "more_body": True})
    raise RuntimeError("asked to raise")


async def echo(receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    await answer(send, body)


async def chunks(_receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (b"one", b"two"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


async def before(name: bytes, _receive: Any, send: Any, gate: Path) -> None:
    """Wait for the gate, then answer."""
    await until(gate)
    await answer(send, name)


async def amid(_name: bytes, _receive: Any, send: Any, gate: Path) -> None:
    """Begin the answer, and end it when the gate is open."""
    await begin(send, 2)
    await send({"type": "http.response.body", "body": b"1", "more_body": True})
    await until(gate)
    await send({"type": "http.response.body", "body": b"2"})


async def after(name: bytes, _receive: Any, send: Any, gate: Path) -> None:
    """Answer, then go on until the gate is open."""
    await answer(send, name)
    await until(gate)


async def gone(_name: bytes, receive: Any, _send: Any, gate: Path) -> None:
    """Wait until the client is gone, then open the gate."""
    await receive()
    begun(gate)
    assert (await receive())["type"] == "http.disconnect"
    gate.touch()  # noqa: ASYNC240 - an empty file


async def begin(send: Any, length: int) -> None:
    headers = [(b"content-length", str(length).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def answer(send: Any, body: bytes) -> None:
    await begin(send, len(body))
    await send({"type": "http.response.body", "body": body})


async def until(gate: Path) -> None:
    begun(gate)
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(GATE_INTERVAL)


def begun(gate: Path) -> None:
    gate.with_name(f"{gate.name}.begun").touch()


FACTS = {"/tasks": lambda: len(asyncio.all_tasks()), "/collector": lambda: gc.get_threshold()[0]}
PLAIN = {"/silent": silent, "/half": half, "/echo": echo, "/chunks": chunks}
GATED = {"/before": before, "/amid": amid, "/after": after, "/gone": gone}
