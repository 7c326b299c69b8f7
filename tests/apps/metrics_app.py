"""An app that counts with prometheus_client, in itself and in children that it forks."""

import multiprocessing
import os
from typing import Any

from prometheus_client import Counter, Gauge

HITS = Counter("hits", "Requests.")
BUSY = Gauge("busy", "Requests in flight.", multiprocess_mode="livesum")
WORK = Counter("work", "What children did.", ["who"])


async def app(scope: Any, _receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"no {scope['type']} here")
    HITS.inc()
    BUSY.set(1)
    if scope["path"] == "/child":
        fork = multiprocessing.get_context("fork")
        child = fork.Process(target=count)
        child.start()
        child.join()
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def count() -> None:
    HITS.inc()
    for _ in range(10):
        WORK.labels("child").inc()
