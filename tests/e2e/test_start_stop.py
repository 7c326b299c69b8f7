"""From the first start to the last stop: what clients, signals and exit codes tell."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from drumd.exitcodes import DaemonExit
from tests.e2e.daemon import APPS, CHECKOUT, Daemon, free_port
from tests.e2e.served import Served, wait_gone
from tests.e2e.visitor import Address, in_background, many
from tests.waiting import wait_until

Serve = Callable[..., Served]

UVICORN: dict[str, Any] = {"app": "unruly:asgi", "runtime": "uvicorn"}
GTHREAD: dict[str, Any] = {"app": "unruly:wsgi", "runtime": "gunicorn"}
GUNICORN_ASGI: dict[str, Any] = {
    "app": "unruly:asgi",
    "runtime": "gunicorn",
    "gunicorn": {"worker_class": "asgi"},
}
BOTH = [pytest.param(UVICORN, id="uvicorn"), pytest.param(GTHREAD, id="gthread")]


def after(mode: str) -> dict[str, Any]:
    return {"environment": {"UNRULY": mode}}


def refuses(address: Address) -> bool:
    try:
        address.connect(timeout=5).sock.close()
    except ConnectionRefusedError:
        return True
    return False


# --- start --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", [UVICORN, GUNICORN_ASGI], ids=["uvicorn", "asgi"])
def test_nothing_is_accepted_before_ready(serve: Serve, pool: dict[str, Any]) -> None:
    """A connection that comes while the app starts waits, and is answered once it is ready."""
    served = serve(web={**pool, **after("startup-waits:gate")})
    (worker,) = served.wait_begun("gate")
    with many(served.web, 4) as visitors:
        for visitor in visitors:
            visitor.send("/", close=True)
        wait_until(lambda: served.pool()["queue"] == 4, what="the queue")
        assert psutil.Process(worker).net_connections(kind="tcp") == []
        assert [each["state"] for each in served.workers()] == ["starting"]
        assert served.pool()["state"] == "starting"
        served.open("gate")
        assert {visitor.answer().body for visitor in visitors} == {str(worker)}
    assert served.ready() == [worker]


def test_lifespan_of_36_seconds(serve: Serve) -> None:
    """An app whose lifespan takes 36 s starts, under uvicorn and under gunicorn's asgi class."""
    slow = after("startup-takes:36")
    served = serve(web={**UVICORN, **slow}, other={**GUNICORN_ASGI, **slow})
    for name, address in served.addresses.items():
        wait_until(
            lambda name=name: served.pool(name)["state"] == "ready",  # type: ignore[misc]
            cap=120,
            every=0.5,
            what=f"{name} ready",
        )
        assert address.answers()
    assert not served.events("worker.exited", "worker.failed")


@pytest.mark.parametrize("pool", BOTH)
def test_sigterm_during_start(serve: Serve, pool: dict[str, Any]) -> None:
    """SIGTERM ends drumd at once while its worker is in an import that takes for ever."""
    served = serve(web={**pool, **after("hang"), "start_timeout": 900, "grace_period": 900})
    (worker,) = wait_until(served.workers, what="a worker")
    served.daemon.signal(signal.SIGTERM)
    assert served.wait_exit() == DaemonExit.STOPPED
    wait_gone([worker["pid"]])


# --- stop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", BOTH)
def test_graceful_stop(serve: Serve, pool: dict[str, Any]) -> None:
    """SIGTERM: what is in flight is finished, an idle connection has one more request, then 0."""
    served = serve(web={**pool, "grace_period": 60, "linger": 60})
    served.ready()
    with served.web.connect() as busy, served.web.connect() as idle:
        assert not idle.get("/").closes
        busy.send("/wait/gate")
        served.wait_begun("gate")
        served.daemon.signal(signal.SIGTERM)
        served.wait_for("worker.draining")
        last = idle.get("/")
        assert (last.status, last.closes) == (200, True)
        assert idle.ended()
        served.open("gate")
        answer = busy.answer()
        assert (answer.status, answer.closes) == (200, True)
    assert served.wait_exit() == DaemonExit.STOPPED
    assert refuses(served.web)
    (exited,) = served.events("worker.exited")
    assert exited["cause"] == "shutdown"
    assert exited["reason"] == "drumd stops: got SIGTERM; exit 0"


@pytest.mark.parametrize("pool", BOTH)
@pytest.mark.parametrize("path", ["/block/never", "/stream/never"], ids=["stuck", "stream"])
def test_request_that_never_ends(serve: Serve, pool: dict[str, Any], path: str) -> None:
    """A request that is stuck at the stop ends with the grace period, and drumd with 0."""
    served = serve(web={**pool, "grace_period": 0.5, "stop_timeout": 0.5})
    served.ready()
    with served.web.connect() as visitor:
        visitor.send(path)
        served.wait_begun("never")
        served.daemon.signal(signal.SIGTERM)
        assert served.wait_exit() == DaemonExit.STOPPED
    assert not served.left()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(signal.SIGTERM, signal.SIGTERM, id="TERM TERM"),
        pytest.param(signal.SIGTERM, signal.SIGINT, id="TERM INT"),
        pytest.param(None, signal.SIGQUIT, id="QUIT"),
    ],
)
def test_stop_at_once(serve: Serve, first: signal.Signals | None, second: signal.Signals) -> None:
    """A second SIGTERM or SIGINT, or a SIGQUIT, waits for no request."""
    served = serve(web={**UVICORN, "grace_period": 900, "stop_timeout": 900})
    served.ready()
    with served.web.connect() as visitor:
        visitor.send("/wait/never")
        served.wait_begun("never")
        if first is not None:
            served.daemon.signal(first)
            served.wait_for("worker.draining")
        served.daemon.signal(second)
        assert served.wait_exit() == DaemonExit.STOPPED
        assert visitor.ended()
    assert "at once" in served.events("daemon.stopping")[-1]["reason"]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Open a terminal; yield the fd of the keyboard, and that of the programs."""
    keyboard, programs = os.openpty()
    yield keyboard, programs
    os.close(keyboard)
    os.close(programs)


@pytest.mark.parametrize("pool", BOTH)
def test_ctrl_c_in_a_terminal(
    serve: Serve, terminal: tuple[int, int], pool: dict[str, Any]
) -> None:
    """Ctrl-C reaches drumd alone: its workers finish what they do and are told by it to go."""
    keyboard, programs = terminal
    served = serve(terminal=programs, web=pool)
    served.ready()
    with in_background([(served.web, "/wait/gate")]) as (answer,):
        served.wait_begun("gate")
        os.write(keyboard, b"\x03")
        stopping = served.wait_for("daemon.stopping")
        assert stopping["reason"] == "got SIGINT"
        draining = served.wait_for("worker.draining")
        assert draining["reason"] == "drumd stops: got SIGINT"  # it got none from elsewhere itself
        served.open("gate")
        assert answer.result().status == 200
    assert served.wait_exit() == DaemonExit.STOPPED


# --- several daemons ----------------------------------------------------------------------------


def test_two_daemons_of_one_user(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Two daemons that were given no admin socket are both reachable, and tell their places."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)}
    environ["XDG_RUNTIME_DIR"] = str(tmp_path)
    arguments = ["serve", "unruly:asgi", "--app-dir", str(APPS), "--bind"]
    two = [daemon(*arguments, f"127.0.0.1:{free_port()}", environ=environ) for _ in range(2)]
    for each in two:
        each.wait_for("daemon.ready")
    choice = two[0].drumctl("status")
    assert choice.returncode != 0
    sockets = {
        int(line.split("pid ")[1].rstrip(")")): line.split()[1]
        for line in choice.stderr.splitlines()
        if "--socket /" in line
    }
    for each in two:
        done = each.drumctl("--socket", sockets[each.pid], "--json", "status")
        assert json.loads(done.stdout)["pid"] == each.pid


def test_admin_socket_of_another_daemon(serve: Serve, daemon: Callable[..., Daemon]) -> None:
    """A second daemon on the admin socket of a first is refused, with the first one's pid."""
    served = serve(web=UVICORN)
    served.ready()
    bind = ["--app-dir", str(APPS), "--bind", f"127.0.0.1:{free_port()}"]
    second = daemon("serve", "unruly:asgi", *bind, "--admin-socket", str(served.socket))
    assert second.wait() == DaemonExit.START_FAILED
    assert str(served.socket) in second.text()
    assert str(served.daemon.pid) in second.text()
    assert served.web.answers()
    assert served.status()["pid"] == served.daemon.pid


# --- replacing ----------------------------------------------------------------------------------


class Asking:
    """A client that asks on new connections until it is stopped; all are answered, or it tells."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pool = ThreadPoolExecutor(2)
        self._stop = False
        self.answers = 0
        self._clients = [self._pool.submit(self._ask) for _ in range(2)]

    def _ask(self) -> None:
        while not self._stop:
            assert self._address.get("/").status == 200
            self.answers += 1
            time.sleep(0.002)  # pace, not a wait

    def close(self) -> None:
        self._stop = True
        for client in self._clients:
            client.result()


@pytest.mark.parametrize("pool", BOTH)
def test_sighup_replaces_all(serve: Serve, pool: dict[str, Any]) -> None:
    """SIGHUP replaces each worker by one that is ready before, and no new connection fails."""
    served = serve(web={**pool, "workers": 2})
    before = served.ready()
    with closing(Asking(served.web)) as asking:
        wait_until(lambda: asking.answers > 20, what="answers")
        served.daemon.signal(signal.SIGHUP)
        served.wait_for("operation.done", by="SIGHUP")
        known = asking.answers
        wait_until(lambda: asking.answers > known + 20, what="answers")
    assert not set(before) & set(served.pids())
    states = [
        (line["event"], line["attempt"])
        for line in served.events("worker.ready", "worker.draining")
    ]
    assert [event for event, _ in states] == [
        *["worker.ready"] * 2,
        *["worker.ready", "worker.draining"] * 2,
    ]
    assert not served.events("pool.degraded")


def test_sigterm_during_a_reload(serve: Serve) -> None:
    """SIGTERM stops drumd in the middle of a SIGHUP whose new worker does not get ready."""
    served = serve(web={**UVICORN, "workers": 2, "start_timeout": 900, "grace_period": 900})
    before = served.ready()
    served.steer("hang")
    served.daemon.signal(signal.SIGHUP)
    wait_until(lambda: len(served.workers()) == 3, what="a successor that starts")
    assert served.pids() == before
    served.daemon.signal(signal.SIGTERM)
    assert served.wait_exit() == DaemonExit.STOPPED
    assert not served.left()


def test_sigterm_during_a_backoff(serve: Serve) -> None:
    """SIGTERM stops drumd while its only slot waits for another try."""
    slow = {"backoff_initial": 1000, "backoff_max": 1000}
    served = serve(web={**UVICORN, "restart": slow, **after("exit:1")})
    served.wait_for("slot.backoff")
    served.daemon.signal(signal.SIGTERM)
    assert served.wait_exit() == DaemonExit.STOPPED


@pytest.mark.parametrize("pool", BOTH)
def test_foreign_sigterm_to_a_worker(serve: Serve, pool: dict[str, Any]) -> None:
    """A worker that gets a SIGTERM from elsewhere drains and is replaced at once."""
    served = serve(web={**pool, "workers": 2, "grace_period": 60})
    served.ready()
    with in_background([(served.web, "/wait/gate")]) as (answer,):
        (worker,) = served.wait_begun("gate")
        with closing(Asking(served.web)) as asking:
            os.kill(worker, signal.SIGTERM)
            draining = served.wait_for("worker.draining")
            assert draining["reason"] == "got SIGTERM from elsewhere"
            wait_until(lambda: len(served.pids()) == 2, what="a replacement")
            known = asking.answers
            wait_until(lambda: asking.answers > known + 20, what="answers")
        assert worker not in served.pids()
        served.open("gate")
        assert answer.result().body == str(worker)
    exited = served.wait_for("worker.exited")
    assert exited["cause"] == "signalled"


def test_ttin_and_ttou_scale(serve: Serve) -> None:
    """SIGTTIN adds a worker to the only pool, SIGTTOU takes one away, and never the last."""
    served = serve(web=UVICORN)
    (first,) = served.ready()
    served.daemon.signal(signal.SIGTTIN)
    wait_until(lambda: len(served.pids()) == 2, what="two workers")
    assert first in served.pids()
    served.daemon.signal(signal.SIGTTOU)
    wait_until(lambda: served.pids() == [first] and len(served.workers()) == 1, what="one worker")
    served.daemon.signal(signal.SIGTTOU)
    wait_until(lambda: len(served.events("signal.received")) == 3, what="the third signal")
    assert "its last worker" in served.events("signal.received")[-1]["reason"]
    assert served.pids() == [first]


def test_ttin_with_several_pools(serve: Serve) -> None:
    """With several pools SIGTTIN is refused, with the command to use instead."""
    served = serve(web=UVICORN, other=GTHREAD)
    served.ready()
    served.ready("other")
    served.daemon.signal(signal.SIGTTIN)
    received = served.wait_for("signal.received")
    assert "drumctl scale POOL N" in received["reason"]
    assert (len(served.pids()), len(served.pids("other"))) == (1, 1)
