"""Reloads with TLS in the worker, where no connection can be handed over: what is kept, what not.

All over a line of `ROUND_TRIP`, so that requests and the ends of connections cross. The numbers
that docs/limits.md shows are what these tests print: `DRUMD_TEST_FULL=1`, and pytest's `-rP`.
"""

import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients import Clients, Crowd
from tests.e2e.delay import delayed
from tests.e2e.releases import Releases
from tests.e2e.rolling import FULL, GTHREAD, UVICORN, Serve, releases, succeed, wait_only
from tests.e2e.served import Served, wait_gone
from tests.e2e.visitor import Visitor
from tests.waiting import wait_until

__all__ = ["releases"]

CERTIFICATE = str(Path(__file__).parents[1] / "apps" / "gunicorn_tls.pem")
UVICORN_TLS = {**UVICORN, "uvicorn": {"ssl_certfile": CERTIFICATE, "ssl_keyfile": CERTIFICATE}}
GTHREAD_TLS = {**GTHREAD, "gunicorn": {"certfile": CERTIFICATE, "keyfile": CERTIFICATE}}
servers = pytest.mark.parametrize(
    "pool", [pytest.param(UVICORN_TLS, id="uvicorn"), pytest.param(GTHREAD_TLS, id="gthread")]
)

ROUND_TRIP = 0.1
RELOADS = 10 if FULL else 2
CROWD = Crowd(
    kept=32 if FULL else 10,
    renewing=8 if FULL else 2,
    pause=1.0 if FULL else 0.6,
    trust=CERTIFICATE,
    odd=0.0,
)


@servers
def test_a_request_in_flight_is_answered(serve: Serve, pool: Mapping[str, Any]) -> None:
    """A request over TLS that a reload finds in flight is answered by the worker that has it."""
    app = str(pool["app"]).replace("steady", "unruly")
    served = serve(web={**pool, "app": app, "workers": 2, "linger": "0.1s"})
    old = served.ready()
    with socket.create_connection((served.web.host, served.web.port), 30) as plain:
        trusting = ssl.create_default_context(cafile=CERTIFICATE)
        with Visitor(trusting.wrap_socket(plain, server_hostname="localhost")) as visitor:
            visitor.send("/wait/gate")
            served.wait_begun("gate")
            succeed(served, "reload", "web", "--no-wait")
            wait_until(lambda: not set(old) & set(served.pids()), what="new workers", every=0.1)
            served.open("gate")
            answer = visitor.answer()
            assert answer.closes
            assert int(answer.body) in old
    wait_gone(old)


@servers
def test_a_linger_longer_than_the_pauses_loses_nothing(
    serve: Serve, releases: Releases, pool: Mapping[str, Any]
) -> None:
    """Clients that ask again within the linger are told to close, and lose no request."""
    served = serve_current(serve, releases, pool, linger=CROWD.pause + 0.6)
    with asking(served) as clients:
        reload(served, releases, clients)
    assert not clients.total.failed, clients
    assert not clients.total.idle_closes, clients
    assert not clients.total.moved, "a TLS session cannot go on in another process"
    assert clients.total.told_closes, clients


@servers
def test_a_short_linger_loses_only_what_crosses_the_close(
    serve: Serve, releases: Releases, pool: Mapping[str, Any]
) -> None:
    """Idle connections are closed after the linger, and only what crosses that is not answered.

    No such request has reached the app, and none is the first of its connection.
    """
    served = serve_current(serve, releases, pool, linger=0.1)
    with asking(served) as clients:
        reload(served, releases, clients)
    assert clients.total.idle_closes, clients
    assert not clients.total.failed_new, clients
    assert set(clients.total.failed) <= {"closed before an answer", "reset before an answer"}
    wait_until(
        lambda: requests_served(served) == clients.total.ok,
        what=f"as many requests served as were answered; {clients}",
        every=0.1,
    )


def serve_current(
    serve: Serve, releases: Releases, pool: Mapping[str, Any], linger: float
) -> Served:
    served = serve(
        web={"app_dir": str(releases.current), "workers": 2, **pool, "linger": f"{linger}s"}
    )
    served.ready()
    return served


@contextlib.contextmanager
def asking(served: Served) -> Iterator[Clients]:
    with delayed(served.web.port, ROUND_TRIP / 2) as far, Clients(far, CROWD) as clients:
        try:
            yield clients
            clients.wait_more()
        finally:
            print(clients)  # noqa: T201 - the measurement


def reload(served: Served, releases: Releases, clients: Clients) -> None:
    for number in range(2, 2 + RELOADS):
        before = served.pids()
        releases.deploy(str(number))
        succeed(served, "reload", "web")
        wait_only(clients, str(number))
        wait_gone(before)


def requests_served(served: Served) -> int:
    """Return how many requests workers have seen, whatever became of them."""
    return int(
        sum(
            value
            for (name, labels), value in served.metrics().items()
            if name == "drumd_requests_total" and ("pool", "web") in labels
        )
    )
