"""A WSGI app that does what a test asks for in the path."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

StartResponse = Callable[..., Any]


def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/hang":
        while True:
            time.sleep(60)
    if path == "/until":
        until(Path(environ["QUERY_STRING"]))
    if path == "/stream":
        return stream(Path(environ["QUERY_STRING"]), start_response)
    if path == "/exit":
        sys.exit("asked to exit")
    if path == "/hang-up":
        return hang_up(environ["gunicorn.socket"], start_response)
    if path == "/raise":
        raise RuntimeError("asked to raise")
    if path == "/missing":
        start_response("404 Not Found", [("Content-Length", "0")])
        return []
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def until(gate: Path) -> None:
    """Be in flight until the test makes the file: no time has to be guessed."""
    gate.with_name(f"{gate.name}.begun").touch()
    while not gate.exists():
        time.sleep(0.005)


def stream(gate: Path, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    yield b"1"
    until(gate)
    yield b"2"


def hang_up(client: socket.socket, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "2")])
    yield b"ok"
    client.close()
