"""Autoscaling: steps with a reason, hysteresis, cool-down, and bounds."""

import pytest

from drumd.supervisor.core.actions import Spawn
from drumd.supervisor.core.events import LoadMeasured, Reconfigured, RoomMeasured
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import (
    OperationKind,
    OperationState,
    Policy,
    Room,
    Scaling,
    Tight,
    WorkerState,
)
from tests.unit.core_world import World, settle

SCALING = Scaling(least=1, most=8, up_after=5.0, down_after=60.0, cooldown=15.0)


def pool(size: int = 2, scaling: Scaling = SCALING, tight: Tight = Tight.REFUSE) -> World:
    return World(size=size, policy=Policy(scaling=scaling, tight=tight)).begin()


def load(world: World, seconds: float, *, busy: float, queued: int = 0) -> None:
    """Let the pool be measured once a second for some time; who starts gets ready at once."""
    for _ in range(int(seconds)):
        world.now += 1.0
        world.post(LoadMeasured(busy=busy, queued=queued))


# --- growing ------------------------------------------------------------------------------------


def test_busy_pool_grows_after_a_while() -> None:
    """A pool that is busy for `up_after` grows, and says how busy it was."""
    world = pool()
    load(world, 5, busy=0.9)
    assert world.pool.size == 2
    load(world, 1, busy=0.9)
    assert world.pool.size == 3
    assert world.told(Happened.POOL_SCALED) == [
        "the pool is scaled from 2 to 3: busy 90%, 0 waiting for 5 s"
    ]
    assert world.actions[-1] == Spawn(attempt=3, slot=2, generation=1)


def test_full_queue_counts_as_busy() -> None:
    """As many waiting connections as workers make the pool grow, however idle they look."""
    world = pool()
    load(world, 10, busy=0.1, queued=1)
    assert world.pool.size == 2
    load(world, 6, busy=0.1, queued=2)
    assert world.pool.size == 3


def test_pause_in_the_load_begins_anew() -> None:
    """One measurement below the bound, and the time above it counts from the start."""
    world = pool()
    load(world, 4, busy=0.9)
    load(world, 1, busy=0.5)
    load(world, 5, busy=0.9)
    assert world.pool.size == 2


def test_steps_keep_their_distance() -> None:
    """Between two steps there are at least `cooldown` seconds."""
    world = pool()
    load(world, 6, busy=1.0)
    world.all_ready()
    load(world, 14, busy=1.0)
    assert world.pool.size == 3
    load(world, 1, busy=1.0)
    assert world.pool.size == 4


def test_growth_is_by_half() -> None:
    """A large pool grows by half of its size, so that it does not lag behind a rush."""
    world = pool(size=4)
    load(world, 6, busy=1.0)
    assert world.pool.size == 6


def test_pool_does_not_grow_beyond_its_most() -> None:
    """A pool that has all its workers stays so, and says nothing."""
    world = pool(size=8)
    load(world, 60, busy=1.0, queued=50)
    assert world.pool.size == 8
    assert not world.told(Happened.POOL_SCALED)


def test_busy_pool_that_an_operator_made_larger_does_not_shrink() -> None:
    """Load never makes a pool smaller that is above its most already."""
    world = pool(size=4)
    number = world.submit(OperationKind.SCALE, size=10)
    settle(world)
    assert world.operation(number).state is OperationState.DONE
    load(world, 60, busy=1.0)
    assert world.pool.size == 10


def test_growth_waits_for_workers_that_start() -> None:
    """While a worker is starting, nobody knows whether more are needed."""
    world = pool()
    load(world, 6, busy=1.0)
    assert world.pool.size == 3
    load(world, 60, busy=1.0)
    assert world.pool.size == 3
    world.all_ready()
    load(world, 6, busy=1.0)
    assert world.pool.size == 4


def test_growth_stops_where_memory_does() -> None:
    """A pool does not grow without room, and says so; with little room it grows by that."""
    world = pool(size=4)
    world.post(RoomMeasured(room=Room(workers=0, why="1 GB free")))
    load(world, 6, busy=1.0)
    assert world.pool.size == 4
    assert world.told(Happened.DAEMON_NOTICE) == [
        "would grow to 6 (busy 100%, 0 waiting for 5 s), but memory has no room (1 GB free)"
    ]
    world.post(RoomMeasured(room=Room(workers=1, why="2 GB free")))
    load(world, 16, busy=1.0)
    assert world.pool.size == 5


def test_room_may_be_ignored() -> None:
    """With `ignore` a pool grows whatever the memory says."""
    world = pool(tight=Tight.IGNORE)
    world.post(RoomMeasured(room=Room(workers=-3, why="nothing free")))
    load(world, 6, busy=1.0)
    assert world.pool.size == 3


# --- shrinking ----------------------------------------------------------------------------------


def test_idle_pool_shrinks_by_one_after_a_while() -> None:
    """A pool that is idle for `down_after` drains its last worker, and says why."""
    world = pool(size=3)
    load(world, 60, busy=0.1)
    assert world.pool.size == 3
    load(world, 1, busy=0.1)
    assert world.pool.size == 2
    assert [worker.slot for worker in world.workers(WorkerState.DRAINING)] == [2]
    assert world.told(Happened.POOL_SCALED) == ["the pool is scaled from 3 to 2: busy 10% for 60 s"]


def test_pool_does_not_shrink_below_its_least() -> None:
    """The least number of workers stays, however idle."""
    world = pool(size=1)
    load(world, 200, busy=0.0)
    assert world.pool.size == 1


def test_idle_pool_that_an_operator_made_smaller_does_not_grow() -> None:
    """Idleness never makes a pool larger that is below its least."""
    world = pool(size=3, scaling=Scaling(least=3, most=8, down_after=5.0))
    world.submit(OperationKind.SCALE, size=1)
    settle(world)
    load(world, 60, busy=0.0)
    assert world.pool.size == 1


def test_waiting_connections_keep_a_pool_from_shrinking() -> None:
    """A pool whose queue holds anybody is not idle."""
    world = pool(size=3)
    load(world, 100, busy=0.1, queued=1)
    assert world.pool.size == 3


def test_pool_does_not_shrink_into_the_next_growth() -> None:
    """A step down that would make the rest busy enough to grow again is not taken."""
    scaling = Scaling(least=1, most=8, up_at=0.8, down_at=0.5, down_after=5.0, cooldown=0.0)
    world = pool(size=2, scaling=scaling)
    load(world, 30, busy=0.45)
    assert world.pool.size == 2
    load(world, 10, busy=0.35)
    assert world.pool.size == 1


# --- with everything else -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [OperationKind.RESTART, OperationKind.RELOAD])
def test_nothing_scales_during_an_operation(kind: OperationKind) -> None:
    """During a rollout or a restart the size stays, and time before it is forgotten."""
    world = pool()
    load(world, 4, busy=1.0)
    world.submit(kind)
    load(world, 30, busy=1.0)
    assert world.pool.size == 2
    settle(world)
    load(world, 5, busy=1.0)
    assert world.pool.size == 2
    load(world, 1, busy=1.0)
    assert world.pool.size == 3


def test_stopped_pool_does_not_scale() -> None:
    """A pool that is stopped is neither busy nor idle."""
    world = pool()
    world.submit(OperationKind.STOP)
    settle(world)
    load(world, 100, busy=1.0)
    assert world.pool.size == 2


def test_pool_of_a_fixed_size_does_not_scale() -> None:
    """Without a range of workers, the load changes nothing; a range counts from when it is said."""
    world = World(size=2).begin()
    load(world, 100, busy=1.0)
    assert world.pool.size == 2
    world.post(Reconfigured(policy=Policy(scaling=SCALING)))
    load(world, 6, busy=1.0)
    assert world.pool.size == 3


def test_scaling_forgives_no_crashes() -> None:
    """A step that nobody asked for leaves the slots' records as they are."""
    world = pool()
    world.exit(1)
    world.to_deadline()
    world.all_ready()
    load(world, 6, busy=1.0)
    assert world.pool.size == 3
    assert world.slot(0).failures == 1
