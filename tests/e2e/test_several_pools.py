"""One daemon with pools of every runtime and worker class, on every kind of address."""

import http.client
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import APPS, CHECKOUT, Daemon, UnixConnection, free_port
from tests.e2e.served import Served, toml
from tests.e2e.visitor import in_background
from tests.needs import needs
from tests.waiting import wait_until

Serve = Callable[..., Served]

ASGI = {"app": "unruly:asgi"}
WSGI = {"app": "unruly:wsgi"}
BACKLOG = 77
"""A length that nothing has by default."""


def gunicorn(interface: dict[str, str], worker_class: str) -> dict[str, Any]:
    options = {"worker_class": worker_class}
    return {**interface, "runtime": "gunicorn", "gunicorn": options, "backlog": BACKLOG}


POOLS: dict[str, dict[str, Any]] = {
    "uvicorn": {**ASGI, "runtime": "uvicorn", "workers": 2, "backlog": BACKLOG},
    "sync": gunicorn(WSGI, "sync"),
    "gthread": {**gunicorn(WSGI, "gthread"), "workers": 2},
    "gevent": gunicorn(WSGI, "gevent"),
    "asgi": {**gunicorn(ASGI, "asgi"), "workers": 2},
    "flask": {**WSGI, "runtime": "flask", "backlog": BACKLOG},
}


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon with a pool of each kind, each one on IPv4, IPv6 and a Unix socket at once."""
    directory = tmp_path_factory.mktemp("kinds")
    ports = {name: free_port() for name in POOLS}
    config = directory / "drumd.toml"
    config.write_text(
        toml(
            {
                "pools": {
                    name: {
                        **pool,
                        "app_dir": str(APPS),
                        "linger": 0,
                        "bind": [
                            f"127.0.0.1:{ports[name]}",
                            f"[::1]:{ports[name]}",
                            f"unix:{directory}/{name}.sock",
                        ],
                    }
                    for name, pool in POOLS.items()
                }
            }
        )
    )
    daemon = Daemon(directory, ["run", "--config", str(config)])
    served = Served(daemon, directory, ports)
    for name in POOLS:
        served.ready(name)
    yield served
    daemon.end()


def ask(connection: http.client.HTTPConnection) -> str:
    with closing(connection):
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.status == 200
        return response.read().decode()


@pytest.mark.parametrize("pool", POOLS)
def test_each_pool_answers_on_each_address(every_kind: Served, pool: str) -> None:
    """Pools of all kinds run at once, and each answers on IPv4, on IPv6 and on a Unix socket."""
    port = every_kind.addresses[pool].port
    workers = set(map(str, every_kind.pids(pool)))
    assert len(workers) == POOLS[pool].get("workers", 1)
    assert ask(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) in workers
    assert ask(http.client.HTTPConnection("::1", port, timeout=30)) in workers
    assert ask(UnixConnection(every_kind.daemon.directory / f"{pool}.sock")) in workers


@pytest.mark.parametrize("pool", POOLS)
def test_backlog_stays_what_the_config_says(every_kind: Served, pool: str) -> None:
    """The accept queue is as long as the config says under every worker class, restarts included.

    gunicorn's asgi class and asyncio listen again, with 100, unless they are kept from it.
    """
    assert backlogs(every_kind, pool) == {BACKLOG}
    assert every_kind.daemon.drumctl("restart", pool).returncode == 0
    assert backlogs(every_kind, pool) == {BACKLOG}
    assert every_kind.addresses[pool].answers()


def backlogs(served: Served, pool: str) -> set[int]:
    """Return the backlogs of all sockets that a pool listens on: what ss calls Send-Q (ss(8))."""
    ss = needs("ss", "iproute2")
    port, path = served.addresses[pool].port, served.daemon.directory / f"{pool}.sock"
    done = subprocess.run([ss, "-lntxH"], capture_output=True, text=True, check=True)
    rows = [row.split() for row in done.stdout.splitlines()]
    mine = [
        int(row[3])
        for row in rows
        if row[1] == "LISTEN" and (row[4].endswith(f":{port}") or row[4] == str(path))
    ]
    # One for each address, and for each slot of a pool whose connections are pushed.
    per_slot = served.pool(pool)["balance"] == "per-slot"
    assert len(mine) == 1 + 2 * (POOLS[pool].get("workers", 1) if per_slot else 1), done.stdout
    return set(mine)


def test_runtimes_and_balance_are_in_the_status(every_kind: Served) -> None:
    """Event loops have connections pushed to them, one listener a slot; the others pull."""
    found = {
        pool["name"]: (pool["runtime"], pool["balance"]) for pool in every_kind.status()["pools"]
    }
    assert found == {
        "uvicorn": ("uvicorn", "per-slot"),
        "asgi": ("gunicorn", "per-slot"),
        "gevent": ("gunicorn", found["gevent"][1]),
        "sync": ("gunicorn", "shared"),
        "gthread": ("gunicorn", "shared"),
        "flask": ("flask", "shared"),
    }


def test_flask_is_said_to_be_for_development(every_kind: Served) -> None:
    """The log says once that the flask pool is a development server, and what to use instead."""
    said = [event["reason"] for event in every_kind.events("config.warning")]
    (notice,) = [reason for reason in said if "development server" in reason]
    assert notice.startswith("pools.flask.runtime")
    assert 'use "gunicorn"' in notice
    assert every_kind.daemon.text().count("development server") == 1


def test_restart_of_one_pool_leaves_the_others(every_kind: Served) -> None:
    """A restart of one pool changes no worker of another one."""
    before = {name: every_kind.pids(name) for name in POOLS}
    assert every_kind.daemon.drumctl("restart", "sync").returncode == 0
    after = {name: every_kind.pids(name) for name in POOLS}
    assert [name for name in POOLS if before[name] != after[name]] == ["sync"]


def test_auto_looks_at_the_app(serve: Serve) -> None:
    """`runtime = "auto"` serves an ASGI app by uvicorn and a WSGI app by gunicorn's gthread."""
    served = serve(one=ASGI, two={**WSGI, "threads": 3})
    (one,) = served.ready("one")
    (two,) = served.ready("two")
    assert (served.pool("one")["runtime"], served.pool("two")["runtime"]) == ("uvicorn", "gunicorn")
    assert served.addresses["one"].get().body == str(one)
    assert served.addresses["two"].get().body == str(two)
    served.wait_for("worker.loaded", pool="one", reason="the app speaks asgi; uvicorn serves it")
    served.wait_for("worker.loaded", pool="two", reason="the app speaks wsgi; gunicorn serves it")
    # Three threads: only gthread answers a request while two others wait in the only worker.
    with in_background([(served.addresses["two"], "/block/gate")] * 2) as blocked:
        wait_until(lambda: served.workers("two")[0]["in_flight"] == 2, what="two in flight")
        assert served.addresses["two"].get().body == str(two)
        served.open("gate")
        assert {answer.result().status for answer in blocked} == {200}


# --- sockets that the starter passes ------------------------------------------------------------


PASSER = """
import os, signal, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=16)
if os.fork() == 0:
    os.dup2(listener.fileno(), 3)
    os.set_inheritable(3, True)
    if sys.argv[2] == "named":
        os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    os.execv(sys.argv[3], sys.argv[3:])
os.wait()
while True:
    signal.pause()
"""
"""Listens, starts a command with the socket as fd 3 (sd_listen_fds(3)), and holds it for ever."""


@pytest.mark.parametrize(
    ("bind", "passed"), [("fd://3", "unnamed"), ("fd://web", "named"), ("{address}", "named")]
)
def test_passed_sockets_are_served_and_outlive_drumd(
    daemon: Callable[..., Daemon], tmp_path: Path, bind: str, passed: str
) -> None:
    """A socket passed by number, by name or by its address is served, and is not ours to end."""
    port = free_port()
    started = daemon(
        "serve",
        "unruly:asgi",
        f"--app-dir={APPS}",
        f"--bind={bind.format(address=f'127.0.0.1:{port}')}",
        "--workers=2",
        prefix=[sys.executable, "-c", PASSER, str(port), passed],
    )
    served = Served(started, tmp_path, {"web": port})
    workers = set(map(str, served.ready()))
    assert {served.web.get().body for _ in range(20)} <= workers
    assert str(port) in str(served.pool()["bind"])
    assert served.daemon.drumctl("stop", "--all").returncode == 0
    with served.web.connect() as visitor:
        visitor.send()  # who comes now waits for the next one that the starter starts


def test_a_passed_socket_that_no_pool_binds_is_told(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """A socket that was passed for nothing is closed, and the log says so."""
    started = daemon(
        "serve",
        "unruly:asgi",
        f"--app-dir={APPS}",
        f"--bind=127.0.0.1:{free_port()}",
        prefix=[sys.executable, "-c", PASSER, str(free_port()), "named"],
        environ={**os.environ, "PYTHONPATH": str(CHECKOUT), "STEER": str(tmp_path)},
    )
    reason = "a socket was passed as fd://web, but no pool binds it; it is closed"
    started.wait_for("daemon.notice", reason=reason)
