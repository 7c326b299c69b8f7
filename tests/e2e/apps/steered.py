"""An ASGI app that the tests steer by files in the directory that STEER names."""

import asyncio
import os
import subprocess
import time
from pathlib import Path
from typing import Any

STEER = Path(os.environ.get("STEER", "/nonexistent"))

if (STEER / "broken").exists():
    raise RuntimeError("told to break")


def wait_for_release() -> None:
    while not (STEER / "release").exists():
        time.sleep(0.01)


def orphans(count: int) -> str:
    """Start processes whose parents are gone at once, and which end soon; return their pids."""
    script = f"for i in $(seq {count}); do sleep 0.1 >/dev/null & echo $!; done"
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = str(os.getpid())
    if scope["path"] == "/held":
        await asyncio.to_thread((STEER / "held").touch)
        await asyncio.to_thread(wait_for_release)
    if scope["path"] == "/orphans":
        body = orphans(20)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})
