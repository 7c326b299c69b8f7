"""Reloads, recycles, restarts, scaling and re-exec under load: no client notices.

32 clients keep their connections, and half of them pause for up to 2 s between requests; 8 open a
new one for each request; all over a line of 20 ms. `DRUMD_TEST_FULL=1` for the full numbers.
"""

import signal
from collections.abc import Mapping
from typing import Any

from tests.e2e.releases import Releases
from tests.e2e.rolling import (
    FULL,
    Serve,
    crowded,
    one_of_each,
    releases,
    runtimes,
    serve_current,
    servers,
    succeed,
    wait_only,
)
from tests.e2e.served import Served, elapse, wait_gone
from tests.waiting import wait_until

__all__ = ["releases"]

Pool = Mapping[str, Any]

RELOADS = 20 if FULL else 4
RECYCLES = 200 if FULL else 12
WORKERS = 8 if FULL else 4
REEXECS = 5 if FULL else 2


@servers
def test_reloads_lose_no_request(serve: Serve, releases: Releases, pool: Pool) -> None:
    """Each reload, by drumctl and by SIGHUP, puts its release in service and loses no request."""
    served = serve_current(serve, releases, pool)
    with crowded(served) as clients:
        for number in range(2, 2 + RELOADS):
            releases.deploy(str(number))
            if number % 2:
                served.daemon.signal(signal.SIGHUP)
            else:
                succeed(served, "reload", "web")
            wait_only(clients, str(number))
    assert served.pool()["generation"] == 1 + RELOADS


@servers
def test_recycles_lose_no_request(serve: Serve, releases: Releases, pool: Pool) -> None:
    """Worker after worker goes when it has answered its requests, and no request is lost."""
    recycle = {"max_requests": 60, "max_requests_jitter": 20}
    served = serve_current(serve, releases, {**pool, "recycle": recycle})
    with crowded(served) as clients:
        wait_until(
            lambda: bool(clients.cut()) and len(clients.total.pids) >= 2 + RECYCLES,
            cap=30 + 3 * RECYCLES,
            what=f"{RECYCLES} recycled workers",
            every=0.2,
        )


@one_of_each
def test_restarts_lose_no_request(serve: Serve, releases: Releases, pool: Pool) -> None:
    """`drumctl restart` replaces all workers, and no request is lost."""
    served = serve_current(serve, releases, pool)
    with crowded(served) as clients:
        for _ in range(RELOADS // 2):
            before = served.pids()
            succeed(served, "restart", "web")
            wait_gone(before)
            clients.wait_more()


@runtimes
def test_scaling_loses_no_request(serve: Serve, releases: Releases, pool: Pool) -> None:
    """From 1 worker to many and back to 1, and no request is lost."""
    served = serve_current(serve, releases, {**pool, "workers": 1})
    with crowded(served) as clients:
        first = served.pids()
        succeed(served, "scale", "web", str(WORKERS))
        all_of_them = served.ready()
        assert len(all_of_them) == WORKERS
        if pool["runtime"] == "uvicorn":  # connections are pushed: each gets some
            wait_until(
                lambda: bool(clients.cut()) and clients.total.pids >= set(all_of_them),
                what="answers from each worker",
                every=0.1,
            )
        succeed(served, "scale", "web", "1")
        wait_gone([pid for pid in all_of_them if pid not in first])
        _let_listeners_go(served)
        clients.cut()
        assert clients.wait_more(200).pids == set(first)


def _let_listeners_go(served: Served) -> None:
    """Wait until what a scale-down leaves behind is gone: a listener goes after a quiet second."""
    elapse(1.5)
    assert served.pool()["state"] == "ready"


@servers
def test_reexecs_lose_no_request(serve: Serve, releases: Releases, pool: Pool) -> None:
    """drumd replaces its own program again and again, amid a reload too, and no request is lost."""
    served = serve_current(serve, releases, pool)
    with crowded(served) as clients:
        before = served.pids()
        for _ in range(REEXECS - 1):
            succeed(served, "re-exec")
            clients.wait_more()
        assert served.pids() == before
        releases.deploy("2")
        succeed(served, "reload", "web", "--no-wait")
        succeed(served, "re-exec")
        wait_only(clients, "2")
    assert served.pool()["generation"] == 2
