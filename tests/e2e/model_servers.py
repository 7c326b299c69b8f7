"""`drumd server` with each server type, and clients that compare what these answer."""

import contextlib
import http.client
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.daemon import CHECKOUT, Daemon, Document, free_port
from tests.models import Built
from tests.waiting import CAP

TYPES = ("flask", "gunicorn", "fastapi")
PARAMETER = "MLOPS_RUNTIME_PARAM_"
RELEVANT = (
    "allow",
    "cache-control",
    "content-length",
    "content-type",
    "location",
    "retry-after",
    "www-authenticate",
    "x-request-id",
)
"""Headers that clients of a model go by; others are the servers' own (Date, Server, Connection)."""
MADE_ID = "made"
"""Stands for an id that the server made."""


@dataclass(frozen=True)
class Asked:
    """A request, and the status that it must be answered with."""

    method: str
    path: str
    status: int = 200
    body: bytes | None = None
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False
    """The body is sent in chunks of 64 KiB, without its length."""


@dataclass(frozen=True)
class Told:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def comparable(self) -> Document:
        """Return what clients can tell answers apart by."""
        headers = {key: value for key, value in self.headers.items() if key in RELEVANT}
        made = headers.get("x-request-id", "")
        if len(made) == 32 and set(made) <= set("0123456789abcdef"):
            headers["x-request-id"] = MADE_ID
        body: Any = self.body
        if headers.get("content-type") == "application/json" and self.body:
            body = self.json()
        return {"status": self.status, "headers": headers, "body": body}


class ModelServer:
    """A running `drumd server`."""

    def __init__(self, daemon: Daemon, port: int, prefix: str = "") -> None:
        self.daemon = daemon
        self.port = port
        self.prefix = prefix

    def ask(self, asked: Asked) -> Told:
        """Ask on a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            return self.ask_on(connection, asked)

    def ask_on(self, connection: http.client.HTTPConnection, asked: Asked) -> Told:
        self.send(connection, asked)
        response = connection.getresponse()
        headers = {key.lower(): value for key, value in response.getheaders()}
        return Told(response.status, headers, response.read())

    def send(self, connection: http.client.HTTPConnection, asked: Asked) -> None:
        headers = dict(asked.headers)
        if asked.content_type is not None:
            headers["Content-Type"] = asked.content_type
        body: Any = asked.body
        if asked.chunked:
            body = pieces(asked.body or b"")
        connection.request(
            asked.method, self.prefix + asked.path, body, headers, encode_chunked=asked.chunked
        )

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=CAP)

    def get(self, path: str) -> Told:
        return self.ask(Asked("GET", path))

    def post(self, path: str, body: bytes, content_type: str | None = "text/csv") -> Told:
        return self.ask(Asked("POST", path, body=body, content_type=content_type))

    def output(self) -> list[str]:
        """Return what the worker wrote so far."""
        return [line["line"] for line in self.daemon.log() if line["event"] == "worker.output"]


def pieces(body: bytes, size: int = 64 * 1024) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@contextlib.contextmanager
def model_server(
    directory: Path,
    built: Built,
    server_type: str,
    *,
    prefix: str = "",
    parameters: Mapping[str, object] | None = None,
    arguments: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Iterator[ModelServer]:
    """Serve a model directory; `directory` is for what the daemon writes."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    said = {"DRUM_SERVER_TYPE": server_type, **(parameters or {})}
    variables = {
        **{key: value for key, value in os.environ.items() if not key.startswith("DRUMD_")},
        "PYTHONPATH": str(CHECKOUT),
        "DRUMD_SOCKET": str(directory / "admin.sock"),
        "URL_PREFIX": prefix,
        **built.environ,
        **{f"{PARAMETER}{name}": str(value) for name, value in said.items()},
        **(environ or {}),
    }
    daemon = Daemon(
        directory,
        ["server", f"--code-dir={built.directory}", f"--address=127.0.0.1:{port}", *arguments],
        environ=variables,
    )
    try:
        daemon.wait_for("daemon.ready")
        yield ModelServer(daemon, port, prefix)
    finally:
        daemon.end()


@contextlib.contextmanager
def all_types(directory: Path, built: Built, **options: Any) -> Iterator[dict[str, ModelServer]]:
    """Serve a model directory by each server type; they start at the same time."""
    with contextlib.ExitStack() as stack:
        servers = [model_server(directory / each, built, each, **options) for each in TYPES]
        with ThreadPoolExecutor(len(TYPES)) as pool:
            started = list(pool.map(stack.enter_context, servers))
        yield dict(zip(TYPES, started, strict=True))


def answers(server: ModelServer, requests: Mapping[str, Asked]) -> dict[str, Document]:
    """Return what a server answers, by the requests' names."""
    return {name: server.ask(asked).comparable() for name, asked in requests.items()}
