"""Recycling: planned replacement at an age, or above an amount of memory."""

from collections.abc import Mapping
from typing import Any

from tests.e2e.releases import Releases
from tests.e2e.rolling import (
    FEW,
    Serve,
    crowded,
    releases,
    runtimes,
    serve_current,
)
from tests.e2e.served import Served
from tests.waiting import wait_until

__all__ = ["releases"]

Pool = Mapping[str, Any]


def watch_until_replaced(served: Served, workers: int) -> tuple[int, int]:
    """Watch until all workers have been replaced; return the fewest ready, the most starting."""
    old = set(served.pids())
    assert len(old) == workers
    ready, starting = [workers], [0]

    def replaced() -> bool:
        states = [each["state"] for each in served.workers()]
        ready.append(states.count("ready"))
        starting.append(states.count("starting"))
        return not old & set(served.pids()) and states.count("ready") == workers

    wait_until(replaced, cap=60, what=f"others than {old}\n{served.daemon.text()}")
    return min(ready), max(starting)


@runtimes
def test_old_workers_are_replaced_one_after_the_other(
    serve: Serve, releases: Releases, pool: Pool
) -> None:
    """All are due at once, and still no two are replaced at once, nor one before its successor."""
    served = serve_current(serve, releases, {**pool, "workers": 3, "recycle": {"max_age": 3}})
    with crowded(served, FEW):
        fewest, starting = watch_until_replaced(served, 3)
    assert fewest == 3
    assert starting == 1


def test_two_at_once_where_the_budget_allows(serve: Serve, releases: Releases) -> None:
    """With `max_surge = 2` two successors start at a time, and the pool stays at full strength."""
    served = serve_current(
        serve,
        releases,
        {
            "app": "steady:asgi",
            "workers": 4,
            "recycle": {"max_age": 4},
            "rollout": {"max_surge": 2},
        },
    )
    fewest, starting = watch_until_replaced(served, 4)
    assert fewest == 4
    assert starting <= 2


@runtimes
def test_a_worker_that_has_grown_is_replaced(serve: Serve, releases: Releases, pool: Pool) -> None:
    """Private memory above `max_memory` is the reason, with its figures; the others stay."""
    served = serve_current(serve, releases, {**pool, "recycle": {"max_memory": "300MB"}})
    before = set(served.pids())
    with crowded(served, FEW):
        grown = int(served.web.get("/grow/400000000").body)
        wait_until(lambda: grown not in served.pids(), cap=90, what=f"the end of {grown}")
        served.ready()
    assert before - {grown} < set(served.pids())
    told = served.wait_for("worker.draining", pid=grown)
    assert "of private memory" in told["reason"]
    assert "max_memory" in told["reason"]
