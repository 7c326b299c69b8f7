"""`drumd serve --startup-probe`, with each of the servers that a worker can run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, free_port
from tests.e2e.served import Served, toml
from tests.e2e.visitor import Address, Visitor
from tests.waiting import wait_until

APP = """
asked = []


def answer(path):
    if path == "/healthz":
        asked.append(path)
        return (503, b"loading") if len(asked) < 2 else (200, b"well")
    return 200, str(len(asked)).encode()


def wsgi(environ, start_response):
    status, body = answer(environ["PATH_INFO"])
    start_response(f"{status} Status", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
    status, body = answer(scope["path"])
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


def connection(address: Address) -> Visitor | None:
    try:
        return address.connect()
    except ConnectionRefusedError:
        return None


@pytest.mark.parametrize(
    ("interface", "runtime", "options"),
    [
        pytest.param("asgi", "uvicorn", {"uvicorn": {"loop": "uvloop"}}, id="uvicorn-uvloop"),
        pytest.param("asgi", "uvicorn", {"uvicorn": {"loop": "asyncio"}}, id="uvicorn-asyncio"),
        *(
            pytest.param(interface, "gunicorn", {"gunicorn": {"worker_class": name}}, id=name)
            for interface, name in (
                ("wsgi", "gthread"),
                ("wsgi", "sync"),
                ("wsgi", "gevent"),
                ("asgi", "asgi"),
            )
        ),
        pytest.param("wsgi", "flask", {}, id="flask"),
    ],
)
def test_a_startup_probe_reaches_every_server(
    daemon: Callable[..., Daemon],
    tmp_path: Path,
    interface: str,
    runtime: str,
    options: dict[str, dict[str, str]],
) -> None:
    """A worker is asked until it answers well, serves nobody before, and then it is ready."""
    (tmp_path / "probed.py").write_text(APP)
    (tmp_path / "more.toml").write_text(toml({"pools": {"web": options}}))
    port = free_port()
    started = daemon(
        *("serve", f"probed:{interface}", "--app-dir", str(tmp_path), "--runtime", runtime),
        *("--bind", f"127.0.0.1:{port}", "--startup-probe", "/healthz"),
        *("--config", str(tmp_path / "more.toml")),
        *("--admin-socket", str(tmp_path / "daemon-0/admin.sock")),
    )
    served = Served(started, tmp_path, {"web": port})
    early = wait_until(lambda: connection(served.web), what="the listener")
    assert early is not None
    with early:
        assert early.get().body == "2"
    served.wait_state("ready")
    assert [worker["restarts"] for worker in served.workers()] == [0]
