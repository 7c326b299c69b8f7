"""A slot that is down strands nobody: what waits at its listener is answered by a sibling."""

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.served import Served, wait_gone, wait_stopped
from tests.e2e.visitor import Address, Visitor, many
from tests.waiting import wait_until

Serve = Callable[..., Served]

UVICORN: dict[str, Any] = {"runtime": "uvicorn", "workers": 2}
ASGI: dict[str, Any] = {
    "runtime": "gunicorn",
    "workers": 2,
    "gunicorn": {"worker_class": "asgi"},
}
GTHREAD: dict[str, Any] = {
    "app": "unruly:wsgi",
    "runtime": "gunicorn",
    "workers": 2,
    "balance": "per-slot",
}
NEVER = {"stall_after": 60, "hang_timeout": 60}
"""A health section by which no worker stalls within a test."""
SOON = {"stall_after": 0.3}


def put_into_queue(served: Served, visitors: list[Visitor]) -> None:
    """Send a request on each connection, some of which a stopped worker's listener holds."""
    for visitor in visitors:
        visitor.send("/", close=True)
    wait_until(lambda: served.pool()["queue"], what="connections in the stopped worker's queue")


def answered_by(visitors: list[Visitor]) -> set[int]:
    return {int(visitor.answer().body) for visitor in visitors}


def since(document: dict[str, Any]) -> float:
    """Return the seconds since a log line was written."""
    return time.time() - datetime.fromisoformat(document["time"]).timestamp()


def serves_again(address: Address, pid: int) -> None:
    wait_until(lambda: address.get().body == str(pid), what=f"an answer of {pid}")


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(UVICORN, id="uvicorn"),
        pytest.param(ASGI, id="asgi"),
        pytest.param(GTHREAD, id="gthread"),
    ],
)
def test_stopped_worker(serve: Serve, pool: dict[str, Any]) -> None:
    """What waits for a worker under SIGSTOP is answered by its sibling, and it serves on later."""
    served = serve(web={**pool, "health": SOON})
    stopped, sibling = served.ready()
    os.kill(stopped, signal.SIGSTOP)
    wait_stopped(stopped)
    with many(served.web, 32) as visitors:
        for visitor in visitors:
            visitor.send("/", close=True)
        assert answered_by(visitors) == {sibling}
    fell = served.wait_for("worker.stalled", slot=0)
    sys.stdout.write(f"answered {since(fell):.2f} s after the stall was noticed\n")
    with many(served.web, 32) as visitors:  # from now on it gets no new ones
        for visitor in visitors:
            visitor.send("/", close=True)
        assert answered_by(visitors) == {sibling}
    os.kill(stopped, signal.SIGCONT)
    served.wait_for("worker.recovered", slot=0)
    serves_again(served.web, stopped)
    assert served.pids() == [stopped, sibling]
    assert not served.events("worker.exited", "worker.hung")


def test_slot_in_backoff_and_failed(serve: Serve) -> None:
    """What waited for a worker that fell, and comes while its slot is down, a sibling answers."""
    restart = {"intensity": 1, "backoff_initial": 0.2, "backoff_max": 0.3}
    served = serve(web={**UVICORN, "health": NEVER, "restart": restart})
    fallen, sibling = served.ready()
    os.kill(fallen, signal.SIGSTOP)
    wait_stopped(fallen)
    with many(served.web, 32) as visitors:
        put_into_queue(served, visitors)
        served.steer("raise:not today")
        os.kill(fallen, signal.SIGKILL)
        assert answered_by(visitors) == {sibling}
        fell = served.wait_for("worker.exited", slot=0)
        sys.stdout.write(f"answered {since(fell):.2f} s after the fall\n")
    served.wait_for("slot.backoff", slot=0)
    assert served.web.get().body == str(sibling)
    failed = served.wait_for("slot.failed", slot=0)
    assert "not today" in failed["reason"]
    with many(served.web, 32) as visitors:
        for visitor in visitors:
            visitor.send("/", close=True)
        assert answered_by(visitors) == {sibling}
    assert served.pool()["state"] == "degraded"


def test_failed_slot_is_tried_again(serve: Serve) -> None:
    """A failed slot is tried again slowly, and serves as soon as its app does."""
    restart = {"intensity": 0, "backoff_initial": 0.05, "retry_after": 0.5}
    served = serve(web={**UVICORN, "restart": restart})
    fallen, sibling = served.ready()
    served.steer("raise:not today")
    os.kill(fallen, signal.SIGKILL)
    served.wait_for("slot.failed", slot=0)
    served.steer("")
    first, second = served.ready()
    assert second == sibling
    serves_again(served.web, first)


def test_no_worker_at_all(serve: Serve) -> None:
    """Connections wait with the kernel while no worker lives, and the next one answers them."""
    served = serve(web={"runtime": "uvicorn", "workers": 1})
    (fallen,) = served.ready()
    served.steer("startup-waits:gate")
    os.kill(fallen, signal.SIGKILL)
    wait_gone([fallen])
    with many(served.web, 8) as visitors:
        for visitor in visitors:
            visitor.send("/", close=True)
        (successor,) = served.wait_begun("gate")
        assert served.pool()["queue"] == 8
        served.open("gate")
        assert answered_by(visitors) == {successor}
