"""The smallest WSGI app that says who answered."""

import os
from collections.abc import Callable, Iterable
from typing import Any


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def create_app() -> Callable[..., Iterable[bytes]]:
    return app
