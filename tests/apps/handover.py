"""One app, spoken in ASGI and in WSGI, for clients that must not notice who serves them.

`/` the pid · `/ask?N` N and the pid · `/addresses` client, server, scheme · `/upload` the body's
length · `/refuse` 403, body unread · `/big/N` N bytes · `/hold?FILE` the pid, once FILE exists ·
`/stream?FILE` the same in chunks, of which the first comes at once. FILE.begun: a request waits.
"""

import asyncio
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

POLL = 0.005


def who() -> bytes:
    return str(os.getpid()).encode()


def begin(gate: str) -> Path:
    Path(f"{gate}.begun").touch()
    return Path(gate)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path, query = scope["path"], scope["query_string"].decode()
    status, body = 200, who()
    if path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
        await wait_in_loop(query)
        await send({"type": "http.response.body", "body": body})
        return
    if path == "/upload":
        body = str(await length_of_body(receive)).encode()
    elif path == "/hold":
        await wait_in_loop(query)
    elif path == "/addresses":
        body = json.dumps([scope["client"], scope["server"], scope["scheme"]]).encode()
    else:
        status, body = answer(path, query)
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Any, send: Any) -> None:
    message = await receive()
    while message["type"] != "lifespan.shutdown":
        await send({"type": message["type"] + ".complete"})
        message = await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def length_of_body(receive: Any) -> int:
    message = await receive()
    size = len(message["body"])
    while message["more_body"]:
        message = await receive()
        size += len(message["body"])
    return size


async def wait_in_loop(query: str) -> None:
    gate = begin(query)
    while not gate.exists():  # noqa: ASYNC110 - another process opens it
        await asyncio.sleep(POLL)


def answer(path: str, query: str) -> tuple[int, bytes]:
    if path == "/ask":
        return 200, f"{query} ".encode() + who()
    if path.startswith("/big/"):
        return 200, b"x" * int(path.removeprefix("/big/"))
    return (403 if path == "/refuse" else 200), who()


def wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    status, body = 200, who()
    if path == "/stream":
        start_response("200 OK", [])
        return stream(query)
    if path == "/upload":
        body = str(len(environ["wsgi.input"].read())).encode()
    elif path == "/hold":
        wait(begin(query))
    elif path == "/addresses":
        server = [environ["SERVER_NAME"], int(environ["SERVER_PORT"] or 0)]
        client = [environ["REMOTE_ADDR"], int(environ.get("REMOTE_PORT") or 0)]
        body = json.dumps([client, server, environ["wsgi.url_scheme"]]).encode()
    else:
        status, body = answer(path, query)
    start_response(f"{status} Status", [("Content-Length", str(len(body)))])
    return [body]


def stream(query: str) -> Iterator[bytes]:
    gate = begin(query)
    yield b"begun "
    wait(gate)
    yield who()


def wait(gate: Path) -> None:
    while not gate.exists():
        time.sleep(POLL)
