"""One daemon that serves a tiny model by several pools: each server type, each with settings."""

import contextlib
import http.client
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.daemon import CHECKOUT, Daemon
from tests.e2e.served import Served, toml
from tests.waiting import CAP

CUSTOM = """
def load_model(code_dir):
    return "model"

def score_unstructured(model, data, **kwargs):
    if data == b"span":
        from opentelemetry import trace

        with trace.get_tracer("model").start_as_current_span("the model's own"):
            pass
    if data == b"modules":
        import sys

        return " ".join(name for name in sys.modules if name.startswith("opentelemetry."))
    return "scored"
"""
FLASK_EXTENSION = """
import os

from flask import Response, request

def init_app(app):
    @app.before_request
    def guard():
        if "GUARDED" in os.environ and "X-Deny" in request.headers:
            return Response("denied", 401)
"""
FASTAPI_EXTENSION = """
import os

from starlette.responses import Response

def init_app(app):
    if "GUARDED" in os.environ:
        @app.middleware("http")
        async def guard(request, call_next):
            if "X-Deny" in request.headers:
                return Response("denied", 401)
            return await call_next(request)
"""
SERVERS = ("flask", "gunicorn", "fastapi")
_RUNTIMES = {"flask": "flask", "gunicorn": "gunicorn", "fastapi": "uvicorn"}


@dataclass(frozen=True)
class Reply:
    """A complete answer; header names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for key, value in self.headers if key == name]

    @property
    def message(self) -> str:
        """Return what an error says."""
        assert self.all("content-type") == ["application/json"]
        document = json.loads(self.body)
        assert list(document) == ["message"]
        message: str = document["message"]
        return message


@dataclass(frozen=True)
class Site:
    """Where one pool serves."""

    port: int

    def ask(
        self,
        target: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Ask on a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CAP)
        with contextlib.closing(connection):
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            return reply_of(connection.getresponse())

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), CAP)

    def raw(self, request: bytes) -> Reply:
        """Send bytes on a new connection and read the answer."""
        with self.connect() as sock:
            sock.sendall(request)
            return read_reply(sock)


def read_reply(sock: socket.socket, method: str = "GET") -> Reply:
    """Read an answer."""
    response = http.client.HTTPResponse(sock, method=method)
    response.begin()
    return reply_of(response)


def reply_of(response: http.client.HTTPResponse) -> Reply:
    """Return a whole answer."""
    body = response.read()
    headers = [(name.lower(), value) for name, value in response.getheaders()]
    return Reply(response.status, headers, body)


class Models(Served):
    """The daemon; a pool's name is its server type, a dash and its variant."""

    def site(self, server: str, variant: str) -> Site:
        """Return where a pool serves."""
        return Site(self.addresses[f"{server}-{variant}"].port)


@contextlib.contextmanager
def models(
    directory: Path,
    variants: Mapping[str, Mapping[str, str]],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Models]:
    """Serve the model by each server type with each variant's environment, until the end.

    `options` are a variant's keys of its pools.
    """
    code_dir = directory / "model"
    code_dir.mkdir()
    (code_dir / "custom.py").write_text(CUSTOM)
    (code_dir / "custom_flask.py").write_text(FLASK_EXTENSION)
    (code_dir / "custom_fastapi.py").write_text(FASTAPI_EXTENSION)
    names = [f"{server}-{variant}" for server in SERVERS for variant in variants]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    pools = {}
    for name in names:
        server, _, variant = name.partition("-")
        app = "fastapi_app" if server == "fastapi" else "flask_app"
        pools[name] = {
            "app": f"drumd.modelserver.{app}:make_app",
            "app_dir": str(code_dir),
            "runtime": _RUNTIMES[server],
            "bind": [f"127.0.0.1:{ports[name]}"],
            "linger": 0,
            "threads": 8,
            "environment": {"TARGET_TYPE": "unstructured", **variants[variant]},
            **({"uvicorn": {"factory": True}} if server == "fastapi" else {}),
            **(options or {}).get(variant, {}),
        }
    config = directory / "drumd.toml"
    socket_path = directory / "admin.sock"
    config.write_text(toml({"supervisor": {"admin_socket": str(socket_path)}, "pools": pools}))
    daemon = Daemon(directory, ["run", "--config", str(config)], environ=_environ(directory))
    try:
        served = Models(daemon, directory, ports)
        for name in names:
            served.ready(name)
        yield served
    finally:
        daemon.end()
        sys.stdout.write(daemon.text())  # captured, and shown when a test failed


def _free_ports(count: int) -> list[int]:
    """Return different ports; one by one, the kernel may name one twice."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def _environ(directory: Path) -> dict[str, str]:
    theirs = ("DRUMD_", "OTEL_", "OPENAI_", "MLOPS_", "CODE_DIR", "TARGET_", "URL_PREFIX")
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(theirs)},
        "PYTHONPATH": str(CHECKOUT),
        "DRUMD_SOCKET": str(directory / "admin.sock"),
    }
