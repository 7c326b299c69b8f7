"""Daemons that serve releases of an app, under a load that no change may disturb."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from drumd.exitcodes import ControlExit
from tests.e2e.clients import Clients, Crowd, Report
from tests.e2e.delay import delayed
from tests.e2e.releases import Releases
from tests.e2e.served import Served
from tests.waiting import CAP, wait_until

Serve = Callable[..., Served]

FULL = os.environ.get("DRUMD_TEST_FULL") == "1"
"""Run the full numbers (20 reloads, 200 recycles, 8 workers, …) instead of what CI can bear."""

UVICORN: Mapping[str, Any] = {"app": "steady:asgi", "runtime": "uvicorn"}
GTHREAD: Mapping[str, Any] = {"app": "steady:wsgi", "runtime": "gunicorn"}
runtimes = pytest.mark.parametrize(
    "pool", [pytest.param(UVICORN, id="uvicorn"), pytest.param(GTHREAD, id="gthread")]
)
servers = pytest.mark.parametrize(
    "pool",
    [
        pytest.param(UVICORN, id="uvicorn"),
        pytest.param({**UVICORN, "preload": True}, id="uvicorn-preload"),
        pytest.param(GTHREAD, id="gthread"),
        pytest.param({**GTHREAD, "preload": True}, id="gthread-preload"),
    ],
)
one_of_each = (
    servers
    if FULL
    else pytest.mark.parametrize(
        "pool",
        [
            pytest.param({**UVICORN, "preload": True}, id="uvicorn-preload"),
            pytest.param(GTHREAD, id="gthread"),
        ],
    )
)
"""Each runtime, and preload on and off, in two tests instead of four."""
FEW = Crowd(kept=12, renewing=4)
"""For what is not about connections that race, such as bad releases."""


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    """Return where releases are made; version `1` is deployed."""
    made = Releases(tmp_path / "releases")
    made.deploy("1")
    return made


def serve_current(serve: Serve, releases: Releases, pool: Mapping[str, Any]) -> Served:
    """Serve the current release with 2 workers.

    Nothing lingers (see `serve`): an idle connection that is not handed over is closed at once.
    """
    served = serve(web={"app_dir": str(releases.current), "workers": 2, **pool})
    served.ready()
    return served


@contextlib.contextmanager
def crowded(served: Served, crowd: Crowd | None = None) -> Iterator[Clients]:
    """Have clients ask over a line of 20 ms while the block runs; no request may be lost.

    Nor may a connection be closed under a client that pauses.
    """
    with delayed(served.web.port) as far, Clients(far, crowd) as clients:
        try:
            yield clients
            clients.wait_more()
        finally:
            print(clients)  # noqa: T201 - captured, and shown when the test failed
    assert not clients.total.failed, clients
    assert not clients.total.idle_closes, clients


def succeed(served: Served, *arguments: str) -> str:
    """Run drumctl; return what it said on stdout."""
    done = served.daemon.drumctl(*arguments)
    assert done.returncode == ControlExit.OK, (arguments, done.stdout, done.stderr)
    return done.stdout


def refuse(served: Served, *arguments: str) -> str:
    """Run drumctl for an operation that fails; return all that it said."""
    done = served.daemon.drumctl(*arguments)
    assert done.returncode == ControlExit.DEGRADED, (arguments, done.stdout, done.stderr)
    return done.stdout + done.stderr


def wait_only(clients: Clients, version: str, cap: float = CAP) -> Report:
    """Wait until only that version answers; return the answers that show it."""
    seen: list[Report] = []

    def only() -> Report | None:
        seen.append(clients.wait_more(60))
        return seen[-1] if seen[-1].versions == {version} else None

    found = wait_until(only, cap=cap, what=f"answers of {version} alone; {clients}")
    assert found is not None
    return found
