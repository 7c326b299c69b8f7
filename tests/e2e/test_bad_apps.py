"""Apps that fail in all the ways they do: each ends as designed, and the supervisor stays up."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from drumd.exitcodes import DaemonExit
from tests.e2e.daemon import Daemon, free_port
from tests.e2e.served import Served, wait_gone, wait_stopped
from tests.processes import alive
from tests.waiting import wait_until

Serve = Callable[..., Served]

UVICORN: dict[str, Any] = {"app": "unruly:asgi", "runtime": "uvicorn"}
GTHREAD: dict[str, Any] = {"app": "unruly:wsgi", "runtime": "gunicorn"}
FLASK: dict[str, Any] = {"app": "unruly:wsgi", "runtime": "flask"}
GUNICORN_ASGI: dict[str, Any] = {
    "app": "unruly:asgi",
    "runtime": "gunicorn",
    "gunicorn": {"worker_class": "asgi"},
}
QUICK = {"intensity": 1, "backoff_initial": 0.05, "backoff_max": 0.1}
PATIENCE = {"grace_period": 0.5, "stop_timeout": 0.5}


def unruly(pool: Mapping[str, Any], mode: str, **more: Any) -> dict[str, Any]:
    return {**pool, "restart": QUICK, **more, "environment": {"UNRULY": mode}}


# --- start --------------------------------------------------------------------------------------


FAILURES = {
    "raise:no model": "cannot import unruly:{}: RuntimeError: no model (unruly.py, line",
    "exit:0": "cannot import unruly:{}: it called sys.exit(0)",
    "exit:3": "cannot import unruly:{}: it called sys.exit(3)",
    "exit:4": "cannot import unruly:{}: it called sys.exit(4)",
    "_exit:0": "exit 0 before it was ready",
    "_exit:3": "exit 3 before it was ready",
    "_exit:4": "exit 4 before it was ready",
}


def test_all_ways_to_fail_at_import(serve: Serve) -> None:
    """However an app ends at import, its slot fails with the reason, and drumd stays up."""
    cases = {f"u{number}": (UVICORN, mode) for number, mode in enumerate(FAILURES)}
    cases |= {f"g{number}": (GTHREAD, mode) for number, mode in enumerate(FAILURES)}
    cases |= {
        f"f{number}": (FLASK, mode) for number, mode in enumerate(("raise:no model", "exit:3"))
    }
    once = {"intensity": 0}
    served = serve(
        web=UVICORN,
        **{
            name: unruly(pool, mode, restart=once, essential=False)
            for name, (pool, mode) in cases.items()
        },
    )
    served.ready()
    for name, (pool, mode) in cases.items():
        said = FAILURES[mode].format(pool["app"].partition(":")[2])
        assert said in served.wait_for("slot.failed", pool=name)["reason"]
    assert served.web.answers()
    assert not [each for each in served.events("worker.exited") if each["pool"] == "web"]


@pytest.mark.parametrize(
    ("pool", "mode"),
    [
        pytest.param(UVICORN, "raise:no model", id="raises"),
        pytest.param(GTHREAD, "exit:0", id="exits with 0"),
        pytest.param(UVICORN, "_exit:4", id="ends with 4"),
    ],
)
def test_app_that_never_starts(serve: Serve, pool: dict[str, Any], mode: str) -> None:
    """An essential pool is tried again, then ends drumd with 3, whatever its app exits with."""
    served = serve(web=unruly(pool, mode))
    assert served.wait_exit() == DaemonExit.START_FAILED
    said = FAILURES[mode].format(pool["app"].partition(":")[2])
    assert len(served.events("worker.spawned")) == 2
    backoff, failed = served.events("slot.backoff", "slot.failed")
    assert said in backoff["reason"]
    assert said in failed["reason"]
    assert any(
        line.startswith("drumd: cannot go on: pool web never became ready: ") and said in line
        for line in served.daemon.text().splitlines()
    )


def test_last_words(serve: Serve) -> None:
    """The last that drumd writes are the last lines of the worker: here its traceback."""
    served = serve(web=unruly(GTHREAD, "raise:no model"))
    assert served.wait_exit() == DaemonExit.START_FAILED
    *_, message = served.daemon.text().rpartition("drumd: cannot go on")
    assert "the last lines of a worker of pool web:\n  Traceback" in message
    assert "\n  RuntimeError: no model\n" in message


def test_hang_at_import(serve: Serve) -> None:
    """An import that hangs ends at start_timeout, with its stacks in the log, and drumd with 3."""
    served = serve(web=unruly(UVICORN, "hang", start_timeout=1.2))
    assert served.wait_exit() == DaemonExit.START_FAILED
    (stacks,) = served.events("worker.stacks")
    assert "in sleep_for_ever" in stacks["reason"]
    (failed,) = served.events("slot.failed")
    assert failed["reason"].startswith("not ready within start_timeout (1.2 s)")
    assert failed["reason"].endswith("; to let it take longer, set start_timeout")
    assert not served.left()


def test_all_ways_to_hang_at_import(serve: Serve) -> None:
    """Neither the GIL, nor an ignored SIGTERM, nor a SIGSTOP keeps a hanging start alive."""
    pools = {
        "gil": unruly(UVICORN, "gil"),
        "deaf": unruly(UVICORN, "ignoreterm"),
        "gthread": unruly(GTHREAD, "hang"),
        "stopped": unruly(UVICORN, "hang"),
    }
    more = {"start_timeout": 2, "essential": False}
    served = serve(web=UVICORN, **{name: {**pool, **more} for name, pool in pools.items()})
    served.ready()
    pids = {name: served.workers(name)[0]["pid"] for name in pools}
    os.kill(pids["stopped"], signal.SIGSTOP)
    for name in pools:
        failed = served.wait_for("slot.failed", pool=name)
        assert failed["reason"].startswith("not ready within start_timeout (2 s)")
    assert not any(map(alive, pids.values()))
    stacks = {each["pool"]: each["reason"] for each in served.events("worker.stacks")}
    assert "in hold_gil" in stacks["gil"]
    assert "in ignore_sigterm_for_ever" in stacks["deaf"]
    assert "in sleep_for_ever" in stacks["gthread"]
    assert served.web.answers()


@pytest.mark.parametrize("pool", [UVICORN, GUNICORN_ASGI], ids=["uvicorn", "asgi"])
def test_lifespan_that_raises(serve: Serve, pool: dict[str, Any]) -> None:
    """An exception in the lifespan's startup is a failed start, told with its text."""
    served = serve(web=unruly(pool, "startup-raises:no model"))
    assert served.wait_exit() == DaemonExit.START_FAILED
    (failed,) = served.events("slot.failed")
    assert "no model" in failed["reason"] + served.daemon.text().rpartition("cannot go on")[2]


def test_fds_closed_at_import(serve: Serve) -> None:
    """An app that closes all fds when it is imported has failed its start: drumd ends with 3."""
    served = serve(web=unruly(GTHREAD, "closefds", start_timeout=5))
    assert served.wait_exit() == DaemonExit.START_FAILED
    (failed,) = served.events("slot.failed")
    assert "control socket" in failed["reason"]


# --- later --------------------------------------------------------------------------------------


def test_crash_soon_after_ready(serve: Serve) -> None:
    """A worker that crashes 50 ms after it is ready backs off, then loses the pool: exit 4."""
    served = serve(web=unruly(UVICORN, "soon:7"))
    assert served.wait_exit() == DaemonExit.POOL_LOST
    assert len(served.events("worker.ready")) == 2
    (backoff,) = served.events("slot.backoff")
    assert "exit 7 while it served" in backoff["reason"]
    (failed,) = served.events("slot.failed")
    assert "exit 7 while it served" in failed["reason"]
    end = served.daemon.text().splitlines()[-1]
    assert end.startswith("drumd: cannot go on: pool web has no slot left: 2 crashes within")


def test_pool_that_is_not_essential(serve: Serve) -> None:
    """A pool that is not essential fails alone: drumd and the other pool go on undisturbed."""
    served = serve(web=UVICORN, side=unruly(UVICORN, "soon:7", essential=False))
    served.wait_state("failed", "side")
    (worker,) = served.workers()
    assert served.web.get().body == str(worker["pid"])
    assert (worker["state"], worker["restarts"]) == ("ready", 0)
    served.daemon.signal(signal.SIGTERM)
    assert served.wait_exit() == DaemonExit.STOPPED


def test_essential_pool_that_never_starts_beside_another(serve: Serve) -> None:
    """One essential pool that cannot start ends drumd with 3, though the other one serves."""
    served = serve(web=UVICORN, side=unruly(GTHREAD, "raise:no model"))
    assert served.wait_exit() == DaemonExit.START_FAILED
    *_, message = served.daemon.text().rpartition("drumd: cannot go on")
    assert "pool side never became ready" in message
    assert "last lines of a worker of pool side" in message
    assert "pool web" not in message
    assert not served.left()


@pytest.mark.parametrize(
    ("exhausted", "ends"),
    [pytest.param("exit", True, id="exit"), pytest.param("degrade", False, id="degrade")],
)
def test_lost_slot(serve: Serve, exhausted: str, ends: bool) -> None:
    """With on_exhausted = "exit" one lost slot ends drumd; else the pool goes on without it."""
    served = serve(web={**UVICORN, "workers": 2, "restart": {**QUICK, "on_exhausted": exhausted}})
    first, second = served.ready()
    served.steer("raise:no model")
    os.kill(first, signal.SIGKILL)
    if ends:
        assert served.wait_exit() == DaemonExit.POOL_LOST
        assert "pool web has lost slot 0: 2 " in served.daemon.text().splitlines()[-1]
    else:
        served.wait_for("slot.failed", slot=0)
        assert served.web.get().body == str(second)
        assert served.pool()["state"] == "degraded"


@pytest.mark.parametrize("pool", [UVICORN, GTHREAD], ids=["uvicorn", "gthread"])
def test_fds_closed_in_a_request(serve: Serve, pool: dict[str, Any]) -> None:
    """A worker whose app closes all its fds has crashed, and is replaced."""
    served = serve(web={**pool, "restart": QUICK})
    (before,) = served.ready()
    with served.web.connect() as visitor:
        visitor.send("/closefds")
        exited = served.wait_for("worker.exited")
    assert exited["cause"] == "crash"
    served.wait_state("ready")
    assert int(served.web.get().body) != before


@pytest.mark.parametrize("pool", [UVICORN, GTHREAD], ids=["uvicorn", "gthread"])
def test_worker_that_ends_itself(serve: Serve, pool: dict[str, Any]) -> None:
    """A worker that exits with 0 by itself has crashed all the same, and is replaced at once."""
    served = serve(web={**pool, "restart": QUICK})
    (before,) = served.ready()
    served.web.get()
    # Its client has the answer before its thread has noted that.
    wait_until(lambda: served.workers()[0]["requests"], what="the request counted")
    with served.web.connect() as visitor:
        visitor.send("/exit/0")
        assert visitor.ended()
    exited = served.wait_for("worker.exited")
    assert (exited["cause"], exited["reason"]) == ("crash", "exit 0 while it served")
    wait_until(lambda: served.pids() not in ([], [before]), what="a replacement")
    assert not served.events("slot.backoff")


@pytest.mark.parametrize("pool", [UVICORN, GTHREAD], ids=["uvicorn", "gthread"])
def test_children_go_with_their_worker(serve: Serve, pool: dict[str, Any]) -> None:
    """Children that an app forked, also in sessions of their own, are gone after the stop."""
    served = serve(web=unruly(pool, "children"))
    served.ready()
    children = served.children_at_import()
    assert len(children) == 3
    assert all(map(alive, children))
    served.daemon.signal(signal.SIGTERM)
    assert served.wait_exit() == DaemonExit.STOPPED
    assert not any(map(alive, children))
    assert not served.left()


def test_children_go_with_a_killed_worker(serve: Serve) -> None:
    """Children of a worker that was killed are gone before its replacement has grown old."""
    served = serve(web=unruly(UVICORN, "children"))
    (worker,) = served.ready()
    children = served.children_at_import()
    os.kill(worker, signal.SIGKILL)
    wait_gone(children)
    strays = served.wait_for("worker.strays")
    assert all(str(pid) in strays["reason"] for pid in children[1:])
    served.wait_state("ready")
    assert all(map(alive, set(served.children_at_import()) - set(children)))


@pytest.mark.parametrize("path", ["/ignoreterm", "/gil"])
def test_worker_that_ignores_sigterm(serve: Serve, path: str) -> None:
    """A worker that ignores SIGTERM is killed after its grace period and stop_timeout: exit 0."""
    served = serve(web={**UVICORN, **PATIENCE})
    served.ready()
    with served.web.connect() as visitor:
        visitor.send(path)
        wait_until(lambda: served.workers()[0]["in_flight"], what="the request")
        if path == "/ignoreterm":
            wait_until(served.file("ignoring").exists, what="SIGTERM ignored")
        served.daemon.signal(signal.SIGTERM)
        assert served.wait_exit() == DaemonExit.STOPPED
    stopping, killing = served.events("worker.stopping", "worker.killing")
    assert "did not finish within its grace period (0.5 s)" in stopping["reason"]
    assert "SIGTERM had no effect" in killing["reason"]


def test_stopped_worker_is_replaced(serve: Serve) -> None:
    """A worker that stays under SIGSTOP is hung after hang_timeout, and replaced."""
    served = serve(web={**UVICORN, **PATIENCE, "health": {"stall_after": 0.3, "hang_timeout": 1}})
    (worker,) = served.ready()
    os.kill(worker, signal.SIGSTOP)
    wait_stopped(worker)
    hung = served.wait_for("worker.hung")
    assert "without a request in flight (hang_timeout 1 s)" in hung["reason"]
    exited = served.wait_for("worker.exited")
    assert exited["cause"] == "hung"
    assert int(served.web.get().body) != worker


def test_children_without_the_mark_go_at_the_stop(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """A child in a session of its own, with a cleaned environment, and its own are gone too."""
    (tmp_path / "escape.py").write_text(
        "import subprocess, pathlib\n"
        "script = f'sleep 3600 & echo $! > {pathlib.Path(__file__).parent}/pid; wait'\n"
        "subprocess.Popen(['env', '-i', 'PATH=/usr/bin:/bin', 'setsid', 'sh', '-c', script])\n"
        "async def app(scope, receive, send): raise RuntimeError\n"
    )
    started = daemon(
        "serve", "escape:app", f"--app-dir={tmp_path}", f"--bind=127.0.0.1:{free_port()}"
    )
    started.wait_ready(1)
    noted = tmp_path / "pid"
    wait_until(lambda: noted.exists() and noted.read_text().strip(), what="the child's pid")
    child = int(noted.read_text())
    assert alive(child)
    started.signal(signal.SIGTERM)
    assert started.wait() == 0
    assert not alive(child)
