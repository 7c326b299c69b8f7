"""An app that says what the path of a request asks for, on its stdout and stderr."""

import asyncio
import json
import os
import sys
from typing import Any


def say_lines(count: int) -> None:
    for number in range(count):
        print(f"line {number} of a flood", flush=number % 100 == 0)  # noqa: T201 - what it is for
    sys.stdout.flush()


def say_without_end(megabytes: int) -> None:
    for _ in range(megabytes):
        os.write(1, b"x" * 1_000_000)


def say_once(what: str) -> None:
    sys.stdout.write(f"out {what}\n")
    sys.stdout.flush()
    sys.stderr.write(f"err {what}\n")
    sys.stdout.write(json.dumps({"event": "worker.exited", "said": what}) + "\n")
    sys.stdout.flush()


async def app(scope: Any, _receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"no {scope['type']} here")
    name, argument = [*str(scope["path"]).split("/"), "", ""][1:3]
    match name:
        case "lines":
            await asyncio.to_thread(say_lines, int(argument))
        case "endless":
            await asyncio.to_thread(say_without_end, int(argument))
        case "once":
            say_once(argument)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
