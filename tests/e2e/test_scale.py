"""Autoscaling: a pool with `workers = { min, max }` follows its load, each step with its reason."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.e2e.rolling import Serve
from tests.e2e.served import Served
from tests.e2e.visitor import in_background
from tests.waiting import wait_until

Pool = Mapping[str, Any]

QUICK = {"up_after": 0.5, "down_after": 1.0, "cooldown": 0.5}
runtimes = pytest.mark.parametrize(
    "pool",
    [
        pytest.param({"app": "unruly:wsgi", "runtime": "gunicorn", "threads": 2}, id="gthread"),
        pytest.param(
            {
                "app": "unruly:wsgi",
                "runtime": "gunicorn",
                "threads": 1,
                "gunicorn": {"worker_class": "sync"},
            },
            id="sync",
        ),
    ],
)


@runtimes
def test_it_grows_while_busy_and_shrinks_while_idle(serve: Serve, pool: Pool) -> None:
    """Requests that keep all workers busy bring more, up to the most; quiet takes them away."""
    served = serve(web={**pool, "workers": {"min": 1, "max": 3}, "scale": QUICK, "stop_timeout": 1})
    served.ready()
    assert served.pool()["size"] == 1
    with in_background([(served.web, "/wait/gate")] * 12) as answers:
        wait_until(lambda: served.pool()["size"] == 3, cap=60, what=f"3 workers{said(served)}")
        served.ready()
        served.open("gate")
        assert all(answer.result().status == 200 for answer in answers)
    wait_until(lambda: served.pool()["size"] == 1, cap=60, what=f"1 worker{said(served)}")
    wait_until(lambda: len(served.pids()) == 1, what="one worker's pid")
    steps = served.events("pool.scaled")
    assert len(steps) >= 4
    assert all(step["reason"] for step in steps)
    assert served.web.answers()


def said(served: Served) -> str:
    return f"; {served.pool()['reason']}"
