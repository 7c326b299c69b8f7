"""kill -9: of workers while clients keep asking, of the daemon, of its warden."""

import contextlib
import http.client
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import psutil
import pytest

from tests.e2e.served import Served, elapse, wait_stopped
from tests.e2e.visitor import Address, Visitor
from tests.processes import alive
from tests.waiting import wait_until

Serve = Callable[..., Served]

STORM_SECONDS = float(os.environ.get("DRUMD_TESTS_STORM_SECONDS", "20"))
EVERY = 0.2

GTHREAD = {"app": "unruly:wsgi", "runtime": "gunicorn"}
UVICORN = {"app": "unruly:asgi", "runtime": "uvicorn"}


@dataclass
class Crowd:
    """Clients that keep asking: some on a new connection each time, some on one that they keep.

    A failure is kept with the local port of its connection, which tells whose it was.
    """

    address: Address
    answers: int = 0
    failures: list[tuple[int, BaseException]] = field(default_factory=list)
    slowest: float = 0.0

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._ask_anew) for _ in range(3)]
        self._clients += [threading.Thread(target=self._ask_again) for _ in range(2)]
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()

    def _ask_anew(self) -> None:
        while not self._stop.wait(0.005):
            with self.address.connect() as visitor:
                self._ask(visitor, close=True)

    def _ask_again(self) -> None:
        while not self._stop.is_set():
            with self.address.connect() as visitor:
                while not self._stop.wait(0.005) and self._ask(visitor, close=False):
                    pass

    def _ask(self, visitor: Visitor, *, close: bool) -> bool:
        began = time.monotonic()
        try:
            answer = visitor.get("/", close=close)
        except (OSError, http.client.HTTPException) as error:
            self.failures.append((visitor.port, error))
            return False
        if answer.status != 200:  # no kill explains that
            self.failures.append((0, AssertionError(answer)))
        self.answers += 1
        self.slowest = max(self.slowest, time.monotonic() - began)
        return not answer.closes


def kill(pid: int) -> set[int]:
    """SIGKILL a worker; return the client's ports of all connections that it had accepted.

    It is stopped for the moment of that look, so that it accepts no further ones.
    """
    try:
        os.kill(pid, signal.SIGSTOP)
        wait_stopped(pid)
        accepted = psutil.Process(pid).net_connections(kind="tcp")
        os.kill(pid, signal.SIGKILL)
    except (OSError, psutil.Error):
        return set()  # it was gone before
    return {each.raddr.port for each in accepted if len(each.raddr)}


@dataclass
class Storm:
    """Kills a random worker again and again, and watches the counters of `/metrics` meanwhile."""

    served: Served
    kills: int = 0
    last: int = 0
    """The pid that was killed last."""
    victims: set[int] = field(default_factory=set)
    """Client's ports of the connections that died with their workers."""
    regressions: list[str] = field(default_factory=list)
    """Counters that went back."""
    counters: dict[Any, float] = field(default_factory=dict)

    def rage(self, seconds: float) -> None:
        due = time.monotonic()
        end = due + seconds
        while time.monotonic() < end:
            due += EVERY
            elapse(max(0.0, due - time.monotonic()))
            living = [each["pid"] for each in self.served.workers() if each["pid"]]
            if living:
                self.last = random.choice(living)
                self.victims |= kill(self.last)
                self.kills += 1
            if self.kills % 5 == 0:
                self.compare()

    def compare(self) -> None:
        now = self.served.metrics()
        self.regressions += [
            f"{key}: {value} -> {now.get(key)}"
            for key, value in self.counters.items()
            if now.get(key, -1.0) < value
        ]
        self.counters = now


@pytest.mark.parametrize(
    ("pool", "seconds"),
    [
        pytest.param(UVICORN, STORM_SECONDS, id="uvicorn"),
        pytest.param(GTHREAD, STORM_SECONDS * 0.3, id="gthread"),
    ],
)
def test_storm_of_kills(serve: Serve, pool: Mapping[str, Any], seconds: float) -> None:
    """While workers are killed all the time, only connections that these had accepted fail."""
    served = serve(web={**pool, "workers": 4})
    served.ready()
    fds = psutil.Process(served.daemon.pid).num_fds()
    with Crowd(served.web) as crowd:
        wait_until(lambda: crowd.answers > 50 or crowd.failures, what="answers")
        storm = Storm(served)
        storm.rage(seconds)
        ended = time.monotonic()
        # The fact is one second; on a busy machine the starts alone may take longer.
        wait_until(
            lambda: len(pids := served.pids()) == 4 and storm.last not in pids,
            cap=5,
            what="the pool whole again",
        )
        whole = time.monotonic() - ended
        known = crowd.answers
        wait_until(lambda: crowd.answers > known + 50, what="answers")
    sys.stdout.write(
        f"{storm.kills} kills, {crowd.answers} answers, {len(crowd.failures)} of "
        f"{len(storm.victims)} connections of killed workers failed, whole after {whole:.2f} s, "
        f"slowest answer {crowd.slowest:.2f} s\n"
    )
    storm.compare()
    assert storm.kills > seconds / EVERY / 4
    assert [failure for failure in crowd.failures if failure[0] not in storm.victims] == []
    assert not any(
        isinstance(error, (ConnectionRefusedError, TimeoutError)) for _, error in crowd.failures
    )
    assert storm.regressions == []
    assert not served.events("slot.failed")
    wait_until(
        lambda: psutil.Process(served.daemon.pid).num_fds() <= fds,
        what=f"only {fds} open files of drumd, as before",
    )


def test_kill_of_the_daemon_leaves_nothing(serve: Serve) -> None:
    """kill -9 of drumd takes a worker that holds the GIL, and children in any session, along."""
    served = serve(
        web={"workers": 2, "runtime": "uvicorn"}, other={"app": "unruly:wsgi", "runtime": "flask"}
    )
    served.ready("web")
    served.ready("other")
    children = [int(pid) for pid in served.addresses["other"].get("/children").body.split()]
    assert len(children) == 3
    assert all(map(alive, children))
    with served.web.connect() as visitor:
        visitor.send("/gil")
        wait_until(lambda: any(each["in_flight"] for each in served.workers()), what="the request")
        everyone = {each.pid for each in served.daemon.remember()} | {*children, *served.left()}
        killed = time.monotonic()
        served.daemon.signal(signal.SIGKILL)
        # The fact is one second.
        wait_until(lambda: not any(map(alive, everyone)), cap=5, what="nobody left")
        sys.stdout.write(f"nothing left after {time.monotonic() - killed:.3f} s\n")
    assert served.left() == []


@pytest.mark.parametrize("event", ["daemon.started", "worker.spawned", "worker.loaded"])
def test_kill_of_the_daemon_while_it_starts(serve: Serve, event: str) -> None:
    """kill -9 of drumd at any moment of its start leaves nothing behind either."""
    served = serve(web={"workers": 4, "runtime": "uvicorn"})
    served.wait_for(event)
    served.daemon.signal(signal.SIGKILL)
    # A worker that was just forked carries the mark from its exec on.
    wait_until(lambda: not served.left(), cap=5, what="nobody left")
    elapse(0.3)
    assert served.left() == []


def test_warden_is_replaced(serve: Serve) -> None:
    """A warden that is killed is replaced by another one, which does its work."""
    served = serve(web={"workers": 1})
    (worker,) = served.ready()
    warden = wait_until(lambda: wardens(served), what="a warden")[0]
    os.kill(warden, signal.SIGKILL)
    served.wait_for("daemon.notice")
    wait_until(lambda: set(wardens(served)) - {warden}, what="another warden")
    os.kill(worker, signal.SIGSTOP)  # so that it cannot go by itself
    served.daemon.signal(signal.SIGKILL)
    wait_until(lambda: not served.left(), what="nobody left")


def wardens(served: Served) -> list[int]:
    found = []
    for process in psutil.Process(served.daemon.pid).children():
        with contextlib.suppress(psutil.Error):
            if any("wardenproc" in argument for argument in process.cmdline()):
                found.append(process.pid)
    return found
