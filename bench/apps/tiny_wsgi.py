"""The smallest WSGI app: the server around it is what is measured."""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

OK = b"ok"
SERVICE = 0.05
"""Seconds that a request for /work takes; `bench.measures.queueing` computes with it."""


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer "ok", at /pid the pid of the worker, and at /work only after 50 ms."""
    path = environ["PATH_INFO"]
    if path == "/work":
        time.sleep(SERVICE)
    body = str(os.getpid()).encode() if path == "/pid" else OK
    headers = [("Content-Length", str(len(body))), ("Content-Type", "text/plain")]
    start_response("200 OK", headers)
    return [body]
