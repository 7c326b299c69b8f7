"""Rollouts where memory is short: they need room for a worker more, and for a template."""

from drumd.supervisor.core.actions import Drain
from drumd.supervisor.core.model import (
    OperationState,
    Policy,
    Room,
    Tight,
)
from tests.unit.core_world import World, no_room, serving, settle, spawned, state, told_to

NO_SURGE = Policy(tight=Tight.NO_SURGE)
IN_PLACE = Policy(max_surge=0, max_unavailable=1)


def test_reload_without_room_is_refused() -> None:
    """Where memory has no room for another worker, a reload fails at once and says the figures."""
    world = World(size=2).begin()
    no_room(world)
    before = world.pool.workers
    number = world.reload()
    assert state(world, number) is OperationState.FAILED
    assert world.finished[number].reason == (
        "no memory for another worker (1 GB free, a worker takes 2 GB); free some, or set "
        'rollout.memory to "no-surge" to end each old worker before its successor starts'
    )
    assert world.pool.workers == before
    assert world.pool.generation == 1


def test_reload_without_room_may_be_done_in_place() -> None:
    """With `no-surge` each old worker has ended before its successor starts."""
    world = World(size=2, policy=NO_SURGE).begin()
    no_room(world)
    number = world.reload()
    assert told_to(world, Drain) == [1]
    for _ in range(5):
        world.pass_time(0.1)
        assert not spawned(world, 2), "the old one still takes its memory"
        assert told_to(world, Drain) == [1]
    world.exit(1, "exit 0")
    assert len(spawned(world, 2)) == 1
    no_room(world)
    settle(world)
    assert state(world, number) is OperationState.DONE


def test_reload_without_room_may_be_done_all_the_same() -> None:
    """With `ignore` nobody asks how much room there is."""
    world = World(size=2, policy=Policy(tight=Tight.IGNORE)).begin()
    no_room(world)
    world.reload()
    assert len(spawned(world, 2)) == 1
    assert serving(world) == {1, 2}


def test_budget_without_surge_needs_no_room() -> None:
    """With `max_surge = 0` the old worker goes first anyway, so nothing is refused."""
    world = World(size=2, policy=IN_PLACE).begin()
    no_room(world)
    number = world.reload()
    assert state(world, number) is OperationState.RUNNING
    assert not spawned(world, 2)


def test_room_for_a_template_is_asked_of_what_comes() -> None:
    """A new generation that preloads needs room for its template, whatever the old one did."""
    world = World(size=2, policy=NO_SURGE, preload=False).begin()
    no_room(world)
    number = world.reload(preload=True)
    assert state(world, number) is OperationState.FAILED
    assert "no memory for another template" in world.finished[number].reason


def test_generation_without_a_template_needs_no_room_for_one() -> None:
    """A new generation that does not preload can be done in place, though the old one preloads."""
    world = World(size=2, policy=NO_SURGE, preload=True).begin()
    no_room(world)
    number = world.reload(preload=False)
    assert state(world, number) is OperationState.RUNNING


def test_rollout_that_runs_out_of_memory_is_aborted() -> None:
    """A rollout that no other worker fits for, when nobody is about to go, ends with the reason."""
    world = World(size=3).begin()
    no_room(world, workers=1)
    number = world.reload()
    world.ready(4)
    no_room(world, workers=-1)
    assert state(world, number) is OperationState.RUNNING, "the old one is about to free its memory"
    world.exit(1, "exit 0")
    world.pass_time(1.0)
    assert state(world, number) is OperationState.FAILED
    assert "no memory for another worker" in world.finished[number].reason
    assert serving(world) == {4, 2, 3}


def test_memory_of_a_worker_that_ended_counts_as_room() -> None:
    """Until it is measured again, the end of a worker makes room for one."""
    world = World(size=2, policy=Policy(min_ready=0.0)).begin()
    no_room(world, workers=1)
    number = world.reload()
    world.ready(3)
    assert len(spawned(world, 2)) == 1, "the first one took the room"
    world.exit(1, "exit 0")
    assert len(spawned(world, 2)) == 2
    settle(world)
    assert state(world, number) is OperationState.DONE


def test_failed_starts_use_up_no_room() -> None:
    """A start that failed gives its room back."""
    world = World(size=1, policy=Policy(intensity=50)).begin()
    no_room(world, workers=1)
    for _ in range(3):
        world.reload()
        world.exit(spawned(world, world.pool.latest)[-1].attempt, "exit 3")
    assert world.pool.room == Room(workers=1, why="1 GB free, a worker takes 2 GB")
