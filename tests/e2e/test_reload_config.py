"""What a reload makes of a changed config: who rolls, what counts at once, what comes and goes."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.configured import Configured, port_of
from tests.e2e.daemon import free_port
from tests.e2e.releases import Releases
from tests.e2e.rolling import FEW, crowded, releases, runtimes
from tests.e2e.served import wait_gone
from tests.e2e.visitor import Address
from tests.waiting import wait_until

__all__ = ["releases"]

Configure = Callable[..., Configured]


@pytest.fixture
def configure(daemon: Any, tmp_path: Path, releases: Releases) -> Configure:
    """Start a daemon with the given pools, each of which becomes ready."""

    def start(**pools: Any) -> Configured:
        served = Configured(daemon, tmp_path, releases.current, **pools)
        for name in pools:
            served.ready(name)
        return served

    return start


def pool_metrics(served: Configured, name: str) -> set[str]:
    return {metric for metric, labels in served.metrics() if ("pool", name) in labels}


# --- who rolls ----------------------------------------------------------------------------------


def test_only_a_changed_pool_rolls(configure: Configure) -> None:
    """A key that takes new workers rolls its pool; the workers of the other one stay."""
    served = configure(web={"workers": 2}, api={"workers": 2})
    web, api = served.pids("web"), served.pids("api")
    served.pools["api"]["environment"] = {"MODE": "other"}
    served.write()
    said = served.ctl("config", "diff", code=1)
    assert 'MODE = not set -> "other"' in said
    assert "new workers" in said
    said = served.reload()
    assert "reload api: done, 2 of 2 on generation 2\n" in said
    assert "not rolled, since the config says the same of their workers: web; " in said
    assert served.pids("web") == web
    assert not set(served.pids("api")) & set(api)
    assert served.ctl("config", "diff") == "nothing has changed\n"


def test_a_moved_link_rolls_the_pool_that_follows_it(
    configure: Configure, releases: Releases
) -> None:
    """With an equal config only the pool whose `app_dir` leads to a new release rolls."""
    other = str(releases.make("other"))
    served = configure(web={}, fixed={"app_dir": other})
    fixed = served.pids("fixed")
    second = releases.deploy("2")
    assert f"pool web: app_dir leads to {second} by now" in served.ctl("config", "diff", code=1)
    assert "reload web: done" in served.reload()
    assert served.web.get("/late").body == "2"
    assert served.pids("fixed") == fixed


def test_reload_of_one_pool_takes_only_its_changes(configure: Configure) -> None:
    """`drumctl reload POOL` leaves alone what the file says of the others, until they reload."""
    served = configure(web={}, api={}, gone={})
    pids = {name: served.pids(name) for name in served.pools}
    for name in ("web", "api"):
        served.pools[name]["threads"] = 9
    del served.pools["gone"]
    served.write()
    served.reload("web")
    assert served.pids("web") != pids["web"]
    assert [served.pids(name) for name in ("api", "gone")] == [pids["api"], pids["gone"]]
    in_force = served.in_force()
    assert (in_force["pools.web.threads"], in_force["pools.api.threads"]) == (9, 4)
    assert in_force["pools.gone.threads"] == 4
    left = json.loads(served.ctl("config", "diff", "--json", code=1))
    assert [(pool["name"], pool["fate"]) for pool in left["pools"]] == [
        ("gone", "removed"),
        ("api", "changed"),
    ]


# --- what counts at once ------------------------------------------------------------------------


def test_live_keys_need_no_new_workers(configure: Configure) -> None:
    """Times, health limits and what follows crashes count from the reload on, for all workers."""
    slow = {"grace_period": 300, "health": {"hang_timeout": 300, "stall_after": 0.5}}
    served = configure(web={"workers": 2, **slow})
    before = served.pids()
    served.pools["web"] |= {"grace_period": 0.2, "health": {"hang_timeout": 1, "stall_after": 0.5}}
    served.pools["web"]["restart"] = {"backoff_initial": 60, "backoff_max": 60}
    served.write()
    assert "reloaded: no worker had to be replaced" in served.reload()
    assert served.pids() == before
    with served.web.connect() as visitor:
        visitor.send("/stream")
        assert visitor.sock.recv(1)
        served.ctl("restart", "web")  # it would wait for the stream, for 300 s
    hangs, _ = served.pids()
    os.kill(hangs, signal.SIGSTOP)
    served.wait_for("worker.hung", pid=hangs)
    wait_gone([hangs])


def test_the_size_follows_the_config(configure: Configure) -> None:
    """Another number of workers scales; a range keeps the size that is within it."""
    served = configure(web={"workers": 1})
    first = served.pids()
    for workers, size in ((3, 3), ({"min": 2, "max": 4}, 3), ("4-5", 4), (1, 1)):
        served.pools["web"]["workers"] = workers
        served.write()
        served.reload()
        assert len(served.pids()) == size
        assert served.pool()["size"] == size
    assert served.pids() == first


def test_the_log_level_is_live(configure: Configure) -> None:
    """`supervisor.log_level` counts at once, and the daemon is not restarted for it."""
    served = configure(web={})
    served.supervisor["log_level"] = "error"
    served.write()
    served.reload()
    told = len(served.daemon.log())
    served.ctl("restart", "web")
    later = [line for line in served.daemon.log()[told:] if line["event"] != "worker.output"]
    assert later == []
    served.supervisor["log_level"] = "info"
    served.write()
    served.reload()
    served.ctl("restart", "web")
    assert served.daemon.log()[-1]["level"] == "info"


def test_what_takes_a_restart_of_drumd_is_said_and_still_differs(configure: Configure) -> None:
    """Such a key is told of; it stays a difference, and does not keep a reload from rolling."""
    served = configure(web={})
    before = served.pids()
    served.supervisor["admin_bind"] = f"127.0.0.1:{free_port()}"
    served.write()
    said = served.reload()
    assert "takes effect when drumd is restarted: supervisor.admin_bind\n" in said
    assert served.pids() != before  # nothing else changed, so the code did
    assert served.in_force()["supervisor.admin_bind"] is None
    assert "restart of drumd" in served.ctl("config", "diff", code=1)


# --- what comes and goes ------------------------------------------------------------------------


@runtimes
def test_an_address_comes_and_goes_unseen_at_the_other(
    configure: Configure, pool: dict[str, Any]
) -> None:
    """Opening and closing one address loses no request at another, and takes no new worker."""
    served = configure(web={"workers": 2, **pool})
    pids = served.pids()
    [first] = served.pools["web"]["bind"]
    second = f"127.0.0.1:{free_port()}"
    further = Address(port_of(second))
    everyone = set(map(str, pids))
    with crowded(served, FEW) as clients:
        for _ in range(3):
            served.pools["web"]["bind"] = [first, second]
            served.write()
            assert f"opens {second}" in served.reload()
            wait_until(lambda: {further.get("/pid").body for _ in range(9)} == everyone)
            served.pools["web"]["bind"] = [first]
            served.write()
            assert f"closes {second}" in served.reload()
            wait_until(lambda: not further.answers(), what=f"the end of {second}")
            clients.wait_more()
    assert served.pids() == pids
    assert served.pool()["bind"] == [first]


def test_pools_come_and_go_beside_another(configure: Configure) -> None:
    """A pool of the new config serves, one that it has no more drains and is forgotten."""
    served = configure(web={"workers": 2})
    pids = served.pids()
    with crowded(served, FEW) as clients:
        for _ in range(2):
            served.pools["late"] = served.pool_of(workers=2)
            served.write()
            assert "start late: done, 2 of 2 ready\n" in served.reload()
            late = Address(port_of(served.pools["late"]["bind"][0]))
            assert late.get("/late").body == "1"
            workers = served.pids("late")
            assert "drumd_requests_total" in pool_metrics(served, "late")
            del served.pools["late"]
            served.write()
            assert "stop late: done, stopped\n" in served.reload()
            wait_until(lambda: served.names() == ["web"], what="late forgotten")
            wait_gone(workers)
            assert not late.answers()
            assert not pool_metrics(served, "late")
            clients.wait_more()
    assert served.pids() == pids
    assert "cannot find pool 'late'" in served.ctl("restart", "late", code=2)


def test_a_pool_that_goes_waits_for_nothing(configure: Configure) -> None:
    """A pool that is stopped, or in the middle of an operation, is forgotten all the same."""
    served = configure(web={}, stopped={}, rolling={"start_timeout": 300})
    served.ctl("stop", "stopped")
    (served.app_dir / "release.txt").write_text("bad\nhang")
    served.ctl("reload", "rolling", "--no-wait")
    wait_until(
        lambda: any(each["state"] == "starting" for each in served.workers("rolling")),
        what="a worker of the release that hangs",
    )
    for name in ("stopped", "rolling"):
        del served.pools[name]
    served.write()
    assert served.reload().count("done, stopped\n") == 2
    wait_until(lambda: served.names() == ["web"], what="both forgotten")


def test_a_new_pool_that_fails_ends_nothing_else(configure: Configure, releases: Releases) -> None:
    """A broken pool that a reload adds is reported with its last lines; the others serve on."""
    served = configure(web={})
    bad = releases.make("bad", "raise:no model here")
    served.pools["late"] = served.pool_of(app_dir=str(bad), restart={"intensity": 0})
    served.write()
    said = served.reload(code=1)
    assert "start late: failed" in said
    assert "    RuntimeError: no model here\n" in said
    assert served.pool("late")["state"] == "failed"
    assert served.web.answers()
    releases.rewrite(bad, "good")
    served.ctl("restart", "late")
    served.wait_state("ready", "late")
