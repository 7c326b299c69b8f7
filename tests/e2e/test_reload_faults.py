"""kill -9 at random, and random commands, amid reloads: the pool comes back to its wanted state."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from drumd.exitcodes import ControlExit
from tests.e2e.controlling import drumctl_running, first_operation
from tests.e2e.releases import Releases
from tests.e2e.rolling import (
    FULL,
    Serve,
    one_of_each,
    releases,
    serve_current,
    succeed,
)
from tests.e2e.served import Served, elapse
from tests.waiting import wait_until

__all__ = ["releases"]

Pool = Mapping[str, Any]

STORM_SECONDS = 30.0 if FULL else 8.0
EVERY = 0.25
"""Seconds between two kills."""
EXAMPLES = 20 if FULL else 2
WORKERS = 3
QUICK = {"backoff_initial": 0.05, "backoff_max": 0.5, "intensity": 1000, "stable_after": 0.5}
PREDICTABLE = {"restart": QUICK, "grace_period": 5, "stop_timeout": 1, "workers": WORKERS}


def is_warden(process: psutil.Process) -> bool:
    return any("wardenproc" in argument for argument in process.cmdline())


def crew(served: Served) -> list[psutil.Process]:
    """Return the daemon's children but for its warden: templates, and workers of any state."""
    found = []
    for process in psutil.Process(served.daemon.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if not is_warden(process):
                found.append(process)
    return found


def settle(served: Served, releases: Releases) -> None:
    """Roll out a good release at last: all is as wanted then, and nobody is left over."""
    releases.deploy("last")
    # An operation that was cancelled, or a fault, may have left it stopped, or of another size.
    served.daemon.drumctl("start", "web")
    succeed(served, "scale", "web", str(WORKERS))
    wait_until(
        lambda: served.daemon.drumctl("reload", "web").returncode == 0,
        cap=90,
        what=f"a reload that is done\n{served.daemon.text()}",
        every=0.2,
    )
    preload = int(bool(served.pool().get("preload") or "template" in served.daemon.text()))
    wait_until(
        lambda: len(served.pids()) == WORKERS and len(crew(served)) <= WORKERS + preload,
        what=f"{WORKERS} workers alone: {crew(served)} {served.workers()}\n{served.daemon.text()}",
    )
    assert served.pool()["state"] == "ready"
    assert {served.web.get("/").status for _ in range(20)} == {200}
    succeed(served, "stop", "--all")
    served.wait_exit()
    assert served.left() == []


# --- kill -9 ------------------------------------------------------------------------------------


@contextlib.contextmanager
def dice() -> Iterator[random.Random]:
    """Throw dice that can be thrown again: `FAULTS_SEED` is shown when the test fails."""
    seed = os.environ.get("FAULTS_SEED") or f"{random.getrandbits(32):x}"
    print(f"FAULTS_SEED={seed}")  # noqa: T201 - captured, and shown when the test failed
    yield random.Random(seed)


@one_of_each
def test_kills_amid_reloads_lose_no_slot(serve: Serve, releases: Releases, pool: Pool) -> None:
    """Workers, templates and new workers are killed while one reload follows the other."""
    served = serve_current(serve, releases, {**pool, **PREDICTABLE})
    killed = 0
    with dice() as chance, contextlib.ExitStack() as reloads:
        end = time.monotonic() + STORM_SECONDS
        reload = None
        number = 1
        while time.monotonic() < end:
            if reload is None or reload.poll() is not None:
                number += 1
                releases.deploy(str(number))
                reload = reloads.enter_context(drumctl_running(served.daemon, "reload", "web"))
            elapse(EVERY)
            living = crew(served)
            if living:
                with contextlib.suppress(psutil.Error):
                    chance.choice(living).send_signal(signal.SIGKILL)
                    killed += 1
    assert killed > 3
    settle(served, releases)


# --- random sequences ---------------------------------------------------------------------------

STEPS = (
    *("reload", "reload-broken", "reload-hanging", "sighup", "restart", "restart-slot"),
    *("scale-1", "scale-2", "scale-4", "stop-start", "cancel"),
    *("kill-worker", "kill-new", "stop-worker", "wait", "wait"),
)


class Doing:
    """Does the steps to a daemon, none of which waits for its outcome."""

    def __init__(self, served: Served, releases: Releases) -> None:
        self._served = served
        self._releases = releases
        self._count = 1
        self.last = ""
        """Id of the operation that was submitted last."""

    def do(self, step: str, chance: random.Random) -> None:
        name, _, argument = step.partition("-")
        getattr(self, f"_{name}")(argument, chance)

    def _submit(self, *arguments: str) -> None:
        done = self._served.daemon.drumctl("--json", *arguments, "--no-wait")
        if done.returncode == ControlExit.OK:  # what a pool is not up to is refused at once
            self.last = first_operation(done.stdout)["id"]

    def _reload(self, kind: str, _: random.Random) -> None:
        self._count += 1
        ailment = {"broken": "raise:no model", "hanging": "hang"}.get(kind, "")
        self._releases.deploy(str(self._count), ailment)
        self._submit("reload", "web")

    def _sighup(self, _: str, __: random.Random) -> None:
        self._served.daemon.signal(signal.SIGHUP)

    def _restart(self, slot: str, _: random.Random) -> None:
        self._submit("restart", "web/0" if slot else "web")

    def _scale(self, size: str, _: random.Random) -> None:
        self._submit("scale", "web", size)

    def _stop(self, what: str, chance: random.Random) -> None:
        if what == "worker":
            self._kill_one(signal.SIGSTOP, chance)
        else:
            self._submit("stop", "web")
            self._submit("start", "web")

    def _cancel(self, _: str, __: random.Random) -> None:
        if self.last:
            self._served.daemon.drumctl("cancel", self.last)

    def _kill(self, which: str, chance: random.Random) -> None:
        self._kill_one(signal.SIGKILL, chance, new=which == "new")

    def _kill_one(self, number: int, chance: random.Random, *, new: bool = False) -> None:
        living = crew(self._served)
        starting = {w["pid"] for w in self._served.workers() if w["state"] == "starting"}
        chosen = [process for process in living if process.pid in starting] if new else living
        if chosen:
            with contextlib.suppress(psutil.Error):
                chance.choice(chosen).send_signal(number)

    def _wait(self, _: str, chance: random.Random) -> None:
        elapse(chance.uniform(0.1, 1.0))


@pytest.mark.timeout(600)
def test_random_sequences_end_as_wanted(serve: Serve, tmp_path_factory: Any) -> None:
    """Whatever is done to it in whatever order, a good release brings the pool to its state."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # real daemons are slow to shrink
        suppress_health_check=list(HealthCheck),
    )
    @given(
        preload=st.booleans(),
        app=st.sampled_from([("steady:asgi", "uvicorn"), ("steady:wsgi", "gunicorn")]),
        steps=st.lists(st.sampled_from(STEPS), min_size=4, max_size=8),
        chance=st.randoms(use_true_random=False),
    )
    def check(preload: bool, app: tuple[str, str], steps: list[str], chance: random.Random) -> None:
        made = Releases(tmp_path_factory.mktemp("random") / "releases")
        made.deploy("1")
        pool = {"app": app[0], "runtime": app[1], "preload": preload, **PREDICTABLE}
        hangs = {"start_timeout": 15, "health": {"hang_timeout": 3, "stall_after": 0.5}}
        served = serve_current(serve, made, {**pool, **hangs})
        doing = Doing(served, made)
        for step in steps:
            doing.do(step, chance)
        settle(served, made)

    check()
