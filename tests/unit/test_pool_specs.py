from typing import Any

import pytest

from drumd.config.settings import PoolSettings
from drumd.supervisor.core.model import Policy, Scaling, Tight
from drumd.supervisor.pool.specs import policy


def pool(**keys: Any) -> PoolSettings:
    return PoolSettings.model_validate({"app": "main:app", **keys})


def test_both_sides_have_the_same_defaults() -> None:
    """A pool of which nothing was said is run as the core's own defaults say."""
    assert policy(pool()) == Policy()
    assert policy(pool(workers="1-2")) == Policy(scaling=Scaling(least=1, most=2))


@pytest.mark.parametrize("memory", ["refuse", "no-surge", "ignore"])
def test_the_budget_reaches_the_core(memory: str) -> None:
    """What `rollout` and `spares` say is what the core replaces workers by."""
    rollout = {"max_surge": 0, "max_unavailable": 2, "min_ready": "3s", "memory": memory}
    made = policy(pool(spares=3, rollout=rollout))
    assert (made.max_surge, made.max_unavailable, made.spares) == (0, 2, 3)
    assert made.min_ready == 3.0
    assert made.tight is Tight(memory)


def test_scaling_reaches_the_core() -> None:
    """A range of workers and the keys of `scale` are what the core scales by."""
    scale = {
        "up_at": 0.9,
        "down_at": 0.1,
        "queue": 3,
        "up_after": "1s",
        "down_after": "2s",
        "cooldown": "3s",
    }
    assert policy(pool(workers={"min": 2, "max": 8}, scale=scale)).scaling == Scaling(
        least=2,
        most=8,
        up_at=0.9,
        down_at=0.1,
        queue=3,
        up_after=1.0,
        down_after=2.0,
        cooldown=3.0,
    )


@pytest.mark.parametrize("workers", [4, "auto"])
def test_a_pool_without_a_range_is_of_a_fixed_size(workers: object) -> None:
    """Without a range of workers nothing scales by itself, whatever `scale` says."""
    assert policy(pool(workers=workers, scale={"up_at": 0.9})).scaling is None
