"""An ASGI app with a path for each thing that a test needs: `/name` or `/name/argument`."""

import asyncio
import gc
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from drumd.workers.meter import Meter

Answer = tuple[int, str]


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["path"].startswith("/stream/"):
        await stream(send, float(scope["path"].removeprefix("/stream/")))
    elif scope["path"] == "/wait":
        await wait_for_disconnect(receive)
    elif scope["path"] == "/headers":
        await name_headers(scope, receive, send)
    else:
        _, name, *argument = scope["path"].split("/")
        status, body = await ANSWERS[name](argument[0] if argument else "", receive)
        headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"text/plain"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    if "STARTUP_SECONDS" in os.environ:
        say("starting")
        await asyncio.sleep(float(os.environ["STARTUP_SECONDS"]))
    if "STARTUP_FAILS" in os.environ:
        await send({"type": "lifespan.startup.failed", "message": os.environ["STARTUP_FAILS"]})
        return
    if "STARTUP_RAISES" in os.environ:
        raise RuntimeError(os.environ["STARTUP_RAISES"])
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("shutting down")
    await asyncio.sleep(float(os.environ.get("SHUTDOWN_SECONDS", "0")))
    await send({"type": "lifespan.shutdown.complete"})


async def echo(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def stream(send: Any, seconds: float) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b"end"})


async def name_headers(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        pass
    body = b" ".join(name for name, _ in scope["headers"])
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


async def wait_for_disconnect(receive: Any) -> None:
    say("waiting")
    while (await receive())["type"] != "http.disconnect":
        pass
    say("the client went away")


async def pid(_argument: str, _receive: Any) -> Answer:
    return 200, str(os.getpid())


async def slow(seconds: str, _receive: Any) -> Answer:
    say("slow")
    await asyncio.sleep(float(seconds))
    return 200, "slow"


async def status(code: str, _receive: Any) -> Answer:
    return int(code), "" if code in ("204", "304") else "status"


async def upload(_argument: str, receive: Any) -> Answer:
    count = 0
    while (message := await receive())["more_body"]:
        count += len(message["body"])
    return 200, str(count + len(message["body"]))


async def fail(_argument: str, _receive: Any) -> Answer:
    raise RuntimeError("raised in a request")


async def block_loop(seconds: str, _receive: Any) -> Answer:
    say("blocking")
    time.sleep(float(seconds))  # noqa: ASYNC251 - that is the point
    return 200, "blocked"


async def hold_gil(_argument: str, _receive: Any) -> Answer:
    say("holding the GIL")
    re.match(r"(a+)+$", "a" * 60 + "b")
    return 200, "never"


async def close_fds(_argument: str, _receive: Any) -> Answer:
    os.closerange(3, 65_536)
    return 200, "closed"


async def fork(_argument: str, _receive: Any) -> Answer:
    """Fork a child that goes on metering, as one that serves on would; wait for it."""
    child = os.fork()
    if child == 0:
        for meter in [each for each in gc.get_objects() if isinstance(each, Meter)]:
            for _ in range(50):
                meter.end(meter.begin(), 200)
            meter.connections(99)
        os._exit(0)
    os.waitpid(child, 0)  # noqa: ASYNC222 - nobody else asks
    return 200, str(child)


async def fds_of_program(_argument: str, _receive: Any) -> Answer:
    code = "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in range(3, 30) if os.path.exists(f'/proc/self/fd/{n}')])"  # noqa: E501 - one line of Python
    child = subprocess.run(  # noqa: ASYNC221 - nobody else asks
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, close_fds=False
    )
    return 200, child.stdout.strip()


ANSWERS: dict[str, Callable[[str, Any], Awaitable[Answer]]] = {
    "": pid,
    "slow": slow,
    "status": status,
    "upload": upload,
    "raise": fail,
    "block": block_loop,
    "gil": hold_gil,
    "closefds": close_fds,
    "fork": fork,
    "fds": fds_of_program,
}
