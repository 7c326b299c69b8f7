"""The smallest ASGI app: the server around it is what is measured."""

import os
from typing import Any

OK = b"ok"


async def app(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """Answer "ok", and at /pid the pid of the worker."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])  # no lifespan
    body = str(os.getpid()).encode() if scope["path"] == "/pid" else OK
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
