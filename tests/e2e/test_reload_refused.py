"""Reloads that are refused change nothing; reloads that meet another end say so."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.configured import Configured
from tests.e2e.controlling import drumctl_running, read_line
from tests.e2e.daemon import free_port
from tests.e2e.releases import Releases
from tests.e2e.rolling import releases
from tests.waiting import CAP, wait_until

__all__ = ["releases"]

Configure = Callable[..., Configured]


@pytest.fixture
def configure(daemon: Any, tmp_path: Path, releases: Releases) -> Configure:
    """Start a daemon with the given pools, each of which becomes ready."""

    def start(environ: dict[str, str] | None = None, **pools: Any) -> Configured:
        served = Configured(daemon, tmp_path, releases.current, environ=environ, **pools)
        for name in pools:
            served.ready(name)
        return served

    return start


def starting(served: Configured, pool: str = "web") -> list[int]:
    return [each["pid"] for each in served.workers(pool) if each["state"] == "starting"]


def rollouts(served: Configured) -> dict[str, float]:
    return {
        dict(labels)["outcome"]: value
        for (name, labels), value in served.metrics().items()
        if name == "drumd_rollouts_total"
    }


# --- refused ------------------------------------------------------------------------------------


def test_an_invalid_file_changes_nothing_and_lists_all_problems(configure: Configure) -> None:
    """All that is wrong is said at once, by `reload`, `config diff` and, at SIGHUP, in the log."""
    served = configure(web={"workers": 2})
    before = served.pids()
    served.pools["web"] |= {"workers": "many", "grace_perod": 3, "threads": 9}
    served.write()
    refused = served.reload(code=1)
    assert refused.startswith("drumctl: cannot use the changed config: 2 problems; drumd goes on")
    for told in (refused, served.ctl("config", "diff", code=4)):
        assert "\n  pools.web.workers = 'many'" in told
        assert "\n  pools.web.grace_perod" in told
        assert "grace_period" in told
    served.daemon.signal(signal.SIGHUP)
    wait_until(
        lambda: any(
            "grace_perod" in each["reason"] and "pools.web.workers" in each["reason"]
            for each in served.events("signal.received")
        ),
        what="the problems in the log",
    )
    assert served.pids() == before
    assert served.pool()["generation"] == 1
    assert served.in_force()["pools.web.threads"] == 4


def test_an_address_in_use_changes_nothing(configure: Configure) -> None:
    """Where one new address is taken, nothing of the file is carried out; it says who has it."""
    served = configure(web={"workers": 1}, api={})
    before = served.pids(), served.pids("api")
    free = f"127.0.0.1:{free_port()}"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        served.pools["web"] |= {"workers": 2, "bind": [*served.pools["web"]["bind"], free]}
        served.pools["api"] |= {"threads": 9, "bind": [*served.pools["api"]["bind"], taken]}
        served.write()
        refused = served.reload(code=1)
    assert f"cannot reload: cannot listen on {taken}: in use by pid {os.getpid()} (" in refused
    assert refused.endswith("; nothing has changed\n")
    assert (served.pids(), served.pids("api")) == before
    assert served.pool()["bind"] == served.pools["web"]["bind"][:1]
    wait_until(lambda: is_free(free), what=f"{free} let go")
    assert "reload api: done" in served.reload()


def is_free(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        except OSError:
            return False
    return True


def test_a_misspelt_pool_is_told_with_the_nearest_one(configure: Configure) -> None:
    """`drumctl reload wbe` rolls nothing, and asks whether web was meant."""
    served = configure(web={"workers": 1})
    before = served.pids()
    assert "cannot find pool 'wbe': the pools are web; did you mean web?" in served.ctl(
        "reload", "wbe", code=2
    )
    assert served.pids() == before


def test_an_address_does_not_move_between_pools_at_once(configure: Configure) -> None:
    """To move an address, or to rename a pool, takes two reloads; one is refused, and says so."""
    served = configure(web={}, api={})
    [moving] = served.pools["api"]["bind"]
    own = served.pools["web"]["bind"]
    served.pools["api"]["bind"] = [f"127.0.0.1:{free_port()}"]
    served.pools["web"]["bind"] = [*own, moving]
    served.write()
    assert f"{moving} would move from pool api to pool web" in served.reload(code=1)
    renamed = {"web": {**served.pools["web"], "bind": own}, "shop": served.pools["api"]}
    renamed["shop"]["bind"] = [moving]
    served.pools = renamed
    served.write()
    assert f"{moving} would move from pool api to pool shop" in served.reload(code=1)
    del served.pools["shop"]
    served.write()
    served.reload()
    served.pools["shop"] = served.pool_of(bind=[moving])
    served.write()
    wait_until(lambda: served.names() == ["web"], what="api forgotten")
    served.reload()
    assert served.names() == ["web", "shop"]


def test_a_pool_that_is_still_ending_does_not_come_back_at_once(configure: Configure) -> None:
    """While an old pool drains, one of its name is refused; the old one is not disturbed."""
    served = configure(web={}, api={"grace_period": 300})
    [worker] = served.pids("api")
    with served.addresses["api"].connect() as visitor:
        visitor.send("/stream")
        assert visitor.sock.recv(1)
        api = served.pools.pop("api")
        served.write()
        served.ctl("reload", "--no-wait")
        wait_until(lambda: served.pool("api")["state"] == "stopping", what="api stopping")
        served.pools["api"] = {**api, "bind": [f"127.0.0.1:{free_port()}"]}
        served.write()
        assert "pool api is still ending" in served.reload(code=1)
        assert visitor.sock.recv(1)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: served.names() == ["web"], what="api forgotten")
    assert "start api: done" in served.reload()


# --- aborted ------------------------------------------------------------------------------------


def test_a_syntax_error_is_shown_without_the_import_machinery(
    configure: Configure, releases: Releases
) -> None:
    """The last lines of a release that is no Python are its own, and nothing of importlib's."""
    served = configure(web={})
    (releases.deploy("bad") / "steady.py").write_text("def broken(:\n")
    said = served.reload(code=1)
    assert "    SyntaxError: invalid syntax\n" in said
    assert "importlib" not in said
    assert "drumd/workers" not in said


def test_a_release_that_hangs_is_said_to_be_where_it_is(
    configure: Configure, releases: Releases
) -> None:
    """At `start_timeout` the reason names the app's line, and the stacks begin with why."""
    served = configure(web={"start_timeout": 3})
    releases.deploy("bad", "hang")
    said = served.reload(code=1)
    assert "not ready within start_timeout (3 s); it was in hang (steady.py, line " in said
    assert "ended by drumd with SIGTERM" in said
    stacks = served.wait_for("worker.stacks")["reason"].splitlines()
    assert stacks[0] == "where its threads were, since it is not ready within start_timeout (3 s)"
    assert "steady.py" in "".join(stacks[1:])


def test_a_restart_that_fails_comes_with_the_last_lines_too(configure: Configure) -> None:
    """A restart, and a scale, onto broken code fail with what the worker wrote."""
    served = configure(web={"restart": {"intensity": 0}})
    before = served.pids()
    (served.app_dir / "release.txt").write_text("bad\nraise:no model here")
    for order in (("restart", "web"), ("scale", "web", "2")):
        assert "    RuntimeError: no model here\n" in served.ctl(*order, code=1), order
    assert served.pids() == before


# --- other ends ---------------------------------------------------------------------------------


def test_the_first_of_two_reloads_says_that_it_was_superseded(
    configure: Configure, releases: Releases
) -> None:
    """`drumctl reload` of a rollout that makes way for a later one exits with 1 and says so."""
    served = configure(web={"start_timeout": 300})
    releases.deploy("bad", "hang")
    with drumctl_running(served.daemon, "reload") as first:
        wait_until(lambda: starting(served), what="a worker that hangs")
        releases.deploy("3")
        assert "reload web: done" in served.reload()
        assert "superseded by web-2" in read_line(first.stdout, "reload web: cancelled")
        assert first.wait(CAP) == 1
    assert served.web.get("/late").body == "3"
    assert rollouts(served) == {"done": 1, "aborted": 0, "superseded": 1}


def test_a_cancelled_reload_leaves_the_old_generation(
    configure: Configure, releases: Releases
) -> None:
    """`drumctl cancel` ends what had begun; who waited for the reload learns of it by its code."""
    served = configure(web={"start_timeout": 300, "workers": 2})
    before = served.pids()
    releases.deploy("bad", "hang")
    with drumctl_running(served.daemon, "reload") as first:
        wait_until(lambda: starting(served), what="a worker that hangs")
        assert "cancelled by" in served.ctl("cancel", "web-1")
        assert "cancelled by" in read_line(first.stdout, "reload web: cancelled")
        assert first.wait(CAP) == 1
    wait_until(lambda: not starting(served), what="the end of the new worker")
    assert served.pids() == before
    assert rollouts(served) == {"done": 0, "aborted": 1, "superseded": 0}


def test_a_reload_that_is_interrupted_goes_on(configure: Configure, releases: Releases) -> None:
    """Ctrl-C ends drumctl alone: the rollout is complete later."""
    served = configure(web={})
    releases.deploy("2", "sleep:2")
    with drumctl_running(served.daemon, "reload") as first:
        read_line(first.stderr, "0 of 1 on generation 2")  # it waits for the outcome by now
        first.send_signal(signal.SIGINT)
        read_line(first.stderr, "web-1 goes on without you")
        assert first.wait(CAP) == 130
    assert "on generation 2" in served.ctl("wait", "web-1")
    assert served.web.get("/late").body == "2"


def test_sigterm_in_the_middle_of_a_reload_ends_all(
    configure: Configure, releases: Releases
) -> None:
    """SIGTERM while a reload has just begun stops at once; whoever waits for it gets no 0."""
    served = configure(web={"start_timeout": 300}, api={"start_timeout": 300})
    releases.deploy("bad", "hang")
    with drumctl_running(served.daemon, "reload") as waiting:
        wait_until(lambda: starting(served) and starting(served, "api"), what="both rollouts")
        served.daemon.signal(signal.SIGTERM)
        assert served.wait_exit() == 0
        assert waiting.wait(CAP) in (1, 4)
    assert served.left() == []


# --- systemd ------------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Return the socket of a service manager that drumd tells how it is (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(CAP)
        yield listener


def told(manager: socket.socket) -> str:
    """Return the next READY or RELOADING."""
    while True:
        for line in manager.recv(65536).decode().splitlines():
            if line in ("READY=1", "RELOADING=1"):
                return line


def test_overlapping_reloads_are_one_to_systemd(
    configure: Configure, releases: Releases, manager: socket.socket, tmp_path: Path
) -> None:
    """A second SIGHUP tells RELOADING again, and READY comes once: when the last reload is over."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "DRUMD_SOCKET": str(tmp_path / "daemon-0" / "admin.sock"),
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
    }
    served = configure(environ, web={"start_timeout": 300})
    assert told(manager) == "READY=1"
    releases.deploy("bad", "hang")
    served.daemon.signal(signal.SIGHUP)
    assert told(manager) == "RELOADING=1"
    wait_until(lambda: starting(served), what="a worker that hangs")
    releases.deploy("3")
    served.daemon.signal(signal.SIGHUP)
    assert [told(manager), told(manager)] == ["RELOADING=1", "READY=1"]
    assert served.web.get("/late").body == "3"
    served.daemon.signal(signal.SIGHUP)
    assert [told(manager), told(manager)] == ["RELOADING=1", "READY=1"]
    assert served.pool()["generation"] == 4
