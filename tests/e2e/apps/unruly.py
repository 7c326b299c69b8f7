"""An app that misbehaves: at import as `STEER/mode` or UNRULY says, in a request as its path says.

`asgi` and `wsgi` do the same, both in the thread that serves the request; with `asgi` that is the
event loop's, but for `/wait` and `/stream`, which wait as an ASGI app should.
"""

import asyncio
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

STEER = Path(os.environ.get("STEER", "/nonexistent"))


def mode() -> tuple[str, str]:
    """Return what to do, and its argument. The file wins: it may change while the daemon runs."""
    path = STEER / "mode"
    text = path.read_text() if path.exists() else os.environ.get("UNRULY", "")
    name, _, argument = text.partition(":")
    return name, argument


def hold_gil() -> NoReturn:
    re.match(r"(a+)+$", "a" * 60 + "b")
    raise AssertionError("the match takes years")


def sleep_for_ever() -> NoReturn:
    while True:
        time.sleep(1000)


def ignore_sigterm_for_ever() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (STEER / "ignoring").touch()
    sleep_for_ever()


def spawn_children() -> str:
    """Fork a child in the group, one in a session of its own, and one whose parent is gone."""
    pids: list[str] = []
    for own_session in (False, True, True):
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            if own_session:
                os.setsid()
            if len(pids) == 2 and os.fork():
                os._exit(0)
            os.write(theirs, str(os.getpid()).encode())
            sleep_for_ever()
        if len(pids) == 2:
            os.waitpid(child, 0)
        pids.append(os.read(ours, 20).decode())
    return " ".join(pids)


def close_all_fds() -> str:
    os.closerange(3, 65_536)
    return "closed"


def fail(text: str) -> NoReturn:
    raise RuntimeError(text)


def die(code: str) -> NoReturn:
    os._exit(int(code))


def block(gate: str) -> str:
    """Keep the thread until the test opens the gate; say that it has begun."""
    (STEER / f"{gate}.begun.{os.getpid()}").touch()
    while not (STEER / gate).exists():
        time.sleep(0.005)
    return str(os.getpid())


AT_IMPORT: dict[str, Callable[[str], object]] = {
    "raise": fail,
    "exit": lambda code: sys.exit(int(code)),
    "_exit": die,
    "hang": lambda _: sleep_for_ever(),
    "gil": lambda _: hold_gil(),
    "closefds": lambda _: close_all_fds(),
    "ignoreterm": lambda _: ignore_sigterm_for_ever(),
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "children": lambda _: (STEER / f"children.{os.getpid()}").write_text(spawn_children()),
}
IN_A_REQUEST: dict[str, Callable[[str], str]] = {
    "": lambda _: str(os.getpid()),
    "block": block,
    "gil": lambda _: hold_gil(),
    "ignoreterm": lambda _: ignore_sigterm_for_ever(),
    "children": lambda _: spawn_children(),
    "closefds": lambda _: close_all_fds(),
    "exit": die,
    "sigterm": lambda _: str(signal.getsignal(signal.SIGTERM)),
}

NAME, ARGUMENT = mode()
if NAME in AT_IMPORT:
    AT_IMPORT[NAME](ARGUMENT)


def answer(path: str) -> bytes:
    _, name, argument = (*path.split("/"), "", "")[:3]
    return IN_A_REQUEST[name](argument).encode()


def stream_parts(gate: str) -> Iterator[bytes]:
    (STEER / f"{gate}.begun.{os.getpid()}").touch()
    while not (STEER / gate).exists():
        yield b"."
        time.sleep(0.02)
    yield b"end"


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    parts = body(scope["path"])
    first = await anext(parts)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": first, "more_body": True})
    async for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


async def body(path: str) -> AsyncIterator[bytes]:
    _, name, gate = (*path.split("/"), "", "")[:3]
    if name == "wait":
        (STEER / f"{gate}.begun.{os.getpid()}").touch()
        while not (STEER / gate).exists():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.005)
        yield str(os.getpid()).encode()
    elif name == "stream":
        for part in stream_parts(gate):
            yield part
            await asyncio.sleep(0.02)
    elif name == "later":
        # Nothing is in flight while the loop is blocked.
        asyncio.get_running_loop().call_later(0.1, block, gate)
        yield b"soon"
    else:
        yield answer(path)


async def lifespan(receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    await receive()
    if NAME == "startup-raises":
        try:
            fail(ARGUMENT)
        except RuntimeError:  # as Starlette and FastAPI do
            text = traceback.format_exc()
            await send({"type": "lifespan.startup.failed", "message": text})
            raise
    if NAME == "startup-takes":
        await asyncio.sleep(float(ARGUMENT))
    if NAME == "startup-waits":
        await asyncio.to_thread(block, ARGUMENT)
    await send({"type": "lifespan.startup.complete"})
    if NAME == "soon":
        threading.Timer(0.05, os._exit, [int(ARGUMENT)]).start()
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path.startswith("/stream/"):
        start_response("200 OK", [])
        return stream_parts(path.removeprefix("/stream/"))
    content = answer(path.replace("/wait/", "/block/"))
    start_response("200 OK", [("Content-Length", str(len(content)))])
    return [content]
