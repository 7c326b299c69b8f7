"""The ASGI app, in a gunicorn whose own limit for a lifespan's start is shrunk to nearly nothing.

The limit is the timeout that gunicorn.asgi.lifespan gives to asyncio.wait_for, 30 s.
"""

import asyncio
import os
import types
from typing import Any

from gunicorn.asgi import lifespan
from gunicorn_asgi_app import app  # type: ignore[import-not-found]  # beside this file

__all__ = ["app"]


async def wait_for(awaitable: Any, timeout: float) -> Any:  # noqa: ASYNC109 - asyncio's own
    os.write(1, b"limited\n")
    return await asyncio.wait_for(awaitable, min(timeout, 0.01))


hurried = types.SimpleNamespace(**{name: getattr(asyncio, name) for name in dir(asyncio)})
hurried.wait_for = wait_for
lifespan.asyncio = hurried
