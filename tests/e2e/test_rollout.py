"""Rollouts, and what bad releases, other orders, and clients that hang on do to them."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.e2e.controlling import outcome, submit
from tests.e2e.releases import Releases
from tests.e2e.rolling import (
    FEW,
    Serve,
    crowded,
    one_of_each,
    refuse,
    releases,
    runtimes,
    serve_current,
    succeed,
    wait_only,
)
from tests.e2e.served import Served, wait_gone
from tests.e2e.visitor import Visitor
from tests.waiting import wait_until

__all__ = ["releases"]

Pool = Mapping[str, Any]

BAD = {
    "raise:no model in this release": "no model in this release",
    "exit:0": "sys.exit(0)",
    "exit:3": "sys.exit(3)",
    "hang": "start_timeout",
    "unhealthy": "503 Service Unavailable",
}
"""What ails a release, and what the operator is told."""
START_TIMEOUT = 6.0
GRACE = 1.0
SOON_GONE = {"grace_period": GRACE, "stop_timeout": 1.0}


# --- bad releases -------------------------------------------------------------------------------


@one_of_each
def test_bad_releases_never_replace_a_good_one(
    serve: Serve, releases: Releases, pool: Pool
) -> None:
    """Each bad release is refused with the reason, loses no request, and harms no old worker."""
    served = serve_current(
        serve,
        releases,
        {**pool, "start_timeout": START_TIMEOUT, "health": {"startup_probe": "/healthy"}},
    )
    old = served.pids()
    with crowded(served, FEW) as clients:
        for ailment, told in BAD.items():
            releases.deploy("bad", ailment)
            assert told in refuse(served, "reload", "web"), ailment
            assert served.pids() == old, ailment
            assert served.pool()["generation"] == 1, ailment
            clients.wait_more(20)
        assert clients.total.versions == {"1"}
        releases.deploy("2")
        succeed(served, "reload", "web")
        wait_only(clients, "2")
        assert not set(served.pids()) & set(old)


@runtimes
def test_an_aborted_reload_shows_the_workers_last_lines(
    serve: Serve, releases: Releases, pool: Pool
) -> None:
    """`drumctl reload` of a release that raises shows the traceback, and so does the journal."""
    served = serve_current(serve, releases, pool)
    releases.deploy("bad", "raise:no model in this release")
    said = refuse(served, "reload", "web")
    assert "RuntimeError: no model in this release" in said
    assert "steady.py" in said
    aborted = served.wait_for("rollout.aborted")
    assert "no model in this release" in aborted["reason"]


@runtimes
def test_after_an_abort_a_template_replaces_from_its_own_generation(
    serve: Serve, releases: Releases, pool: Pool
) -> None:
    """With preload an old worker that is killed is replaced with the code that it had."""
    release = releases.deploy("1")
    served = serve_current(serve, releases, {**pool, "preload": True})
    victim, other = served.pids()
    releases.rewrite(release, "bad", "raise:no model")
    refuse(served, "reload", "web")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in served.pids() and len(served.pids()) == 2, what="another one")
    assert other in served.pids()
    with crowded(served, FEW) as clients:
        clients.wait_more()
    assert clients.total.versions == {"1"}
    assert clients.total.pids == set(served.pids())


@runtimes
def test_after_an_abort_without_preload_a_slot_backs_off(
    serve: Serve, releases: Releases, pool: Pool
) -> None:
    """What is on disk is broken: the killed worker's slot says so, and the others serve on."""
    release = releases.deploy("1")
    restart = {"backoff_initial": 0.1, "backoff_max": 60, "intensity": 1000}
    served = serve_current(serve, releases, {**pool, "restart": restart})
    victim, other = served.pids()
    releases.rewrite(release, "bad", "raise:no model")
    refuse(served, "reload", "web")
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: any("no model" in told["reason"] for told in served.events("slot.backoff")),
        what=f"the reason\n{served.daemon.text()}",
    )
    with crowded(served, FEW) as clients:
        clients.wait_more()
        assert clients.total.pids == {other}
        assert "no model" in served.pool()["reason"]
        releases.rewrite(release, "2")
        succeed(served, "reload", "web")
        wait_only(clients, "2")
    assert len(served.ready()) == 2


@runtimes
def test_a_symlink_pins_a_release(serve: Serve, releases: Releases, pool: Pool) -> None:
    """Workers, and what replaces them, are of their generation's release until a reload."""
    served = serve_current(serve, releases, pool)
    first, second = served.pids()
    releases.deploy("2")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: first not in served.pids() and len(served.pids()) == 2, what="another one")
    assert second in served.pids()
    with crowded(served, FEW) as clients:
        assert clients.wait_more().versions == {"1"}
        assert {served.web.get("/late").body for _ in range(20)} == {"1"}
        succeed(served, "reload", "web")
        wait_only(clients, "2")
        assert {served.web.get("/late").body for _ in range(20)} == {"2"}


# --- slow releases ------------------------------------------------------------------------------


@one_of_each
def test_a_slow_import_slows_no_request(serve: Serve, releases: Releases, pool: Pool) -> None:
    """While a release imports for 3 s, requests take what they took without a reload."""
    served = serve_current(serve, releases, pool)
    with crowded(served) as clients:
        clients.cut()
        quiet = clients.wait_more(800)
        releases.deploy("2", "sleep:3")
        succeed(served, "reload", "web")
        loud = clients.wait_more(200)
        wait_only(clients, "2")
    # A request that waits for the import waits for most of 3 s; the machine is never that late.
    assert loud.latency(1.0) < quiet.latency(1.0) + 1.5, (str(quiet), str(loud))


def test_a_second_reload_supersedes_the_first(serve: Serve, releases: Releases) -> None:
    """A reload during a rollout ends that one, which says so, and brings its own release."""
    served = serve_current(serve, releases, {"app": "steady:asgi", "start_timeout": 300})
    releases.deploy("hangs", "hang")
    with crowded(served, FEW) as clients:
        first = submit(served.daemon, "reload", "web")
        starting = wait_until(lambda: not_ready(served), what="a worker of the release that hangs")
        releases.deploy("3")
        succeed(served, "reload", "web")
        wait_only(clients, "3")
    code, ended = outcome(served.daemon, first)
    assert code == 1
    assert "superseded" in ended["reason"]
    wait_gone(starting)


@runtimes
def test_sigterm_during_a_rollout_stops(serve: Serve, releases: Releases, pool: Pool) -> None:
    """SIGTERM while new workers start ends everything, though they would need minutes more."""
    served = serve_current(serve, releases, {**pool, "start_timeout": 300})
    releases.deploy("hangs", "hang")
    submit(served.daemon, "reload", "web")
    wait_until(lambda: not_ready(served), what="a worker of the release that hangs")
    served.daemon.signal(signal.SIGTERM)
    assert served.wait_exit() == 0
    assert served.left() == []


def not_ready(served: Served) -> list[int]:
    return [each["pid"] for each in served.workers() if each["state"] == "starting"]


# --- clients that hang on -----------------------------------------------------------------------


def read_for_ever(visitor: Visitor) -> None:
    visitor.send("/stream")
    assert visitor.sock.recv(1)


def never_read(visitor: Visitor) -> None:
    visitor.send("/large/50000000")
    assert visitor.sock.recv(1)


def dribble(visitor: Visitor) -> None:
    """Send a byte of a request each second, in the background, until the server has enough."""

    def send() -> None:
        with contextlib.suppress(OSError):
            for byte in b"GET / HTTP/1.1\r\n" + b"X-Slow: y\r\n" * 1000:
                visitor.sock.sendall(bytes([byte]))
                if pace.wait(1):
                    return

    pace = threading.Event()
    visitor.sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert visitor.answer().status == 200
    threading.Thread(target=send, daemon=True).start()


HANGERS_ON = {"stream": read_for_ever, "never-reads": never_read, "dribbles": dribble}


@contextlib.contextmanager
def hanging_on(served: Served) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for behave in HANGERS_ON.values():
            for _ in range(3):
                visitor = stack.enter_context(served.web.connect())
                visitor.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                behave(visitor)
        yield


@one_of_each
def test_who_hangs_on_holds_up_no_rollout(serve: Serve, releases: Releases, pool: Pool) -> None:
    """Endless streams, clients that never read, and slow ones end at the grace period."""
    served = serve_current(serve, releases, {**pool, **SOON_GONE, "threads": 16})
    old = served.pids()
    with crowded(served, FEW) as clients, hanging_on(served):
        releases.deploy("2")
        succeed(served, "reload", "web")
        wait_gone(old)
        wait_only(clients, "2")


@runtimes
def test_who_hangs_on_holds_up_no_stop(serve: Serve, releases: Releases, pool: Pool) -> None:
    """At SIGTERM they end at the grace period too, and drumd ends with 0."""
    served = serve_current(serve, releases, {**pool, **SOON_GONE, "threads": 16})
    with hanging_on(served):
        served.daemon.signal(signal.SIGTERM)
        assert served.wait_exit() == 0
    assert served.left() == []


def test_a_reload_without_any_change_is_a_rollout(serve: Serve, releases: Releases) -> None:
    """What is on disk may have changed without the config: the workers are new ones."""
    served = serve_current(serve, releases, {"app": "steady:asgi"})
    old = served.pids()
    releases.rewrite(Path(releases.current).resolve(), "1b")
    with crowded(served, FEW) as clients:
        succeed(served, "reload")
        wait_only(clients, "1b")
    assert not set(served.pids()) & set(old)
