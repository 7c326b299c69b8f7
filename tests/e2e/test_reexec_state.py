"""What the daemon knows goes on over a re-exec: its config, its pools, what it was about to do."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drumd.exitcodes import ControlExit, DaemonExit
from tests.e2e.daemon import APPS, Daemon, free_port, get
from tests.e2e.rolling import Serve, succeed
from tests.e2e.served import Served, signal_all, wait_gone
from tests.e2e.visitor import Address
from tests.waiting import wait_until


def reexec(served: Served) -> None:
    succeed(served, "re-exec")


def edit(tmp_path: Path, change: Callable[[str], str]) -> None:
    config = tmp_path / "drumd-1.toml"
    config.write_text(change(config.read_text()))


def pools(served: Served) -> dict[str, Any]:
    return {pool["name"]: pool for pool in served.status()["pools"]}


def test_the_config_can_be_reloaded_after_it(serve: Serve, tmp_path: Path) -> None:
    """The same file is read again, and compared with what was in force before the re-exec."""
    served = serve(web={"workers": 1})
    served.ready()
    edit(tmp_path, lambda text: text.replace("workers = 1", "workers = 2"))
    reexec(served)
    assert len(served.ready()) == 1  # a re-exec is no reload
    served.post("/reload")
    wait_until(lambda: len(served.pids()) == 2, what="the second worker")


def test_pools_that_came_later_go_on(serve: Serve, tmp_path: Path) -> None:
    """A pool that a reload has brought serves on, and one that leaves with a request is let go."""
    served = serve(web={}, old={"grace_period": 60})
    served.ready()
    served.ready("old")
    port = free_port()
    with served.addresses["old"].connect() as visitor:
        visitor.send("/wait/gate")
        served.wait_begun("gate")
        edit(
            tmp_path,
            lambda text: (
                "".join(
                    line
                    for line in text.splitlines(keepends=True)
                    if not line.startswith("pools.old.")
                )
                + f'pools.new.app = "unruly:asgi"\npools.new.app_dir = "{APPS}"\n'
                f'pools.new.bind = ["127.0.0.1:{port}"]\n'
            ),
        )
        served.post("/reload")
        before = served.ready("new")
        assert "old" in pools(served)
        reexec(served)
        assert served.ready("new") == before
        assert Address(port).answers()
        served.open("gate")
        assert visitor.answer().status == 200
    wait_until(lambda: set(pools(served)) == {"web", "new"}, what="the end of the old pool")
    reexec(served)
    assert set(pools(served)) == {"web", "new"}


def test_templates_fork_on(serve: Serve) -> None:
    """A template that the old program started forks workers for the new one."""
    served = serve(web={"preload": True, "workers": 1})
    first = served.ready()
    reexec(served)
    succeed(served, "scale", "web", "3")
    assert len(served.ready()) == 3
    assert len(served.events("template.spawned")) == 1
    assert first[0] in served.pids()


def test_starts_that_are_under_way_go_on(serve: Serve) -> None:
    """A worker that is loading meanwhile becomes ready, and one that takes too long is ended."""
    served = serve(web={"workers": 1})
    served.ready()
    served.steer("startup-waits:gate")
    succeed(served, "scale", "web", "2", "--no-wait")
    served.wait_begun("gate")
    reexec(served)
    served.open("gate")
    assert len(served.ready()) == 2


def test_probes_are_asked_again(serve: Serve) -> None:
    """A worker that was being probed is asked by the new program, and becomes ready."""
    served = serve(web={"workers": 1, "health": {"startup_probe": "/wait/probe"}})
    served.wait_begun("probe")
    reexec(served)
    assert not served.pids()
    served.open("probe")
    assert len(served.ready()) == 1


def test_a_failed_slot_stays_failed(serve: Serve) -> None:
    """A slot that was given up for now is so after a re-exec, with its reason, until told."""
    served = serve(web={"workers": 1, "essential": False, "restart": {"intensity": 0}})
    pids = served.ready()
    served.steer("raise:no more")
    signal_all(pids, signal.SIGSEGV)
    served.wait_for("slot.failed")
    reexec(served)
    slot = served.pool()["slots"][0]
    assert slot["state"] == "failed"
    assert slot["retry_in"] > 0
    assert "crash" in slot["reason"] or "no more" in slot["reason"]
    served.steer("")
    succeed(served, "restart", "web/0")
    assert len(served.ready()) == 1


def test_metrics_never_go_back(serve: Serve) -> None:
    """No counter is smaller after a re-exec, those of ended workers included."""
    served = serve(web={"workers": 2})
    before_restart = served.ready()
    for _ in range(5):
        served.web.get()
    succeed(served, "restart", "web/0")
    wait_gone(before_restart[:1])
    served.ready()
    before = served.metrics()
    reexec(served)
    after = served.metrics()
    assert {name: value for name, value in before.items() if after.get(name, -1) < value} == {}
    assert served.status()["since"] > 0


def test_other_sockets_go_on(daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """The address of metrics and probes answers as before, and a Unix socket keeps its file."""
    port, path = free_port(), tmp_path / "web.sock"
    running = daemon(
        *("serve", "steered:app", "--app-dir", str(APPS), "--bind", f"unix:{path}"),
        *("--admin-bind", f"127.0.0.1:{port}"),
    )
    running.wait_ready(1)
    assert running.drumctl("re-exec").returncode == ControlExit.OK
    assert get("/", over=path)[0] == 200
    assert Address(port).get("/metrics").status == 200
    running.signal(signal.SIGTERM)
    assert running.wait() == DaemonExit.STOPPED
    assert not path.exists()
