"""An app of which releases are made: `release.txt` beside it has its version, and what ails it.

It answers a path with itself and the body that was sent, and says who answers. `asgi` and `wsgi`
do the same. What may ail a release, as `name:argument`: see `AILMENTS`.
"""

import asyncio
import importlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
VERSION, AILMENT = (*HERE.joinpath("release.txt").read_text().split("\n"), "")[:2]
NAME, _, ARGUMENT = AILMENT.partition(":")


def fail(text: str) -> NoReturn:
    raise RuntimeError(text)


def hang(_: str) -> NoReturn:
    while True:
        time.sleep(1000)


AILMENTS: dict[str, Callable[[str], object]] = {
    "": lambda _: None,
    "raise": fail,
    "exit": lambda code: sys.exit(int(code)),
    "hang": hang,
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "unhealthy": lambda _: None,
}
AILMENTS[NAME](ARGUMENT)
GROWN: list[bytes] = []


def answer(path: str, body: bytes) -> tuple[int, bytes]:
    """Return the status and the content for a request that is answered at once."""
    if path == "/healthy":
        return (503, b"still no model") if NAME == "unhealthy" else (200, b"well")
    if path == "/pid":
        return 200, str(os.getpid()).encode()
    if path == "/late":
        # Imported on first use: from the release that this process was started from.
        return 200, importlib.import_module("part").NAME.encode()
    if path.startswith("/grow/"):
        GROWN.append(b"x" * int(path.removeprefix("/grow/")))
        return 200, str(os.getpid()).encode()
    return 200, path.encode() + body


def headers() -> list[tuple[str, str]]:
    return [("X-Served-By", f"{VERSION} {os.getpid()}")]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path = scope["path"]
    body = b"".join([part async for part in uploaded(receive)])
    status, content = answer(path, body)
    told = [(name.lower().encode(), value.encode()) for name, value in headers()]
    if path == "/stream":
        await send({"type": "http.response.start", "status": status, "headers": told})
        while True:
            await send({"type": "http.response.body", "body": b".", "more_body": True})
            await asyncio.sleep(0.02)
    if path.startswith("/large/"):
        content = bytes(int(path.removeprefix("/large/")))
    told.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": content})


async def uploaded(receive: Any) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        yield message.get("body", b"")
        more = message.get("more_body", False)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", headers())
        return endless()
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    status, content = answer(path, body)
    if path.startswith("/large/"):
        content = bytes(int(path.removeprefix("/large/")))
    start_response(
        "200 OK" if status == 200 else f"{status} Bad",
        [*headers(), ("Content-Length", str(len(content)))],
    )
    return [content]


def endless() -> Iterator[bytes]:
    while True:
        yield b"."
        time.sleep(0.02)
