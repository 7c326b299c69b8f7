"""Spares: ready workers without a slot, which take one as soon as it needs somebody."""

import pytest

from drumd.supervisor.core.actions import Drain, Spawn
from drumd.supervisor.core.events import (
    Began,
    Hung,
    LostContact,
    Reconfigured,
    RecycleDue,
    RoomMeasured,
    Stalled,
)
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import (
    Kind,
    OperationKind,
    OperationState,
    Policy,
    PoolState,
    Room,
    SlotState,
    Worker,
    WorkerState,
)
from drumd.supervisor.core.views import acceptors, pool_state, steering
from tests.unit.core_world import World, settle

ONE = Policy(spares=1)


def spares(world: World, *states: WorkerState) -> list[Worker]:
    return [worker for worker in world.workers(*states) if worker.kind is Kind.SPARE]


# --- keeping them -------------------------------------------------------------------------------


def test_spares_start_when_the_pool_serves() -> None:
    """A spare takes nothing from a pool that starts: it comes when all slots are ready."""
    world = World(size=2, policy=Policy(spares=2))
    world.post(Began())
    world.ready(1)
    assert not spares(world)
    world.ready(2)
    assert [worker.attempt for worker in spares(world, WorkerState.STARTING)] == [3, 4]
    assert world.actions[-1] == Spawn(attempt=4, slot=1, generation=1, kind=Kind.SPARE)


def test_spare_gets_no_connections() -> None:
    """A spare accepts nothing, and nothing is steered to it."""
    world = World(size=2, policy=ONE).begin()
    assert len(spares(world, WorkerState.READY)) == 1
    assert acceptors(world.pool, range(2)).keys() == {1, 2}
    assert steering(world.pool, range(2)) == (0, 1)


def test_spare_without_room_waits() -> None:
    """No spare is started where memory has no room for it."""
    world = World(size=1, policy=ONE)
    world.post(Began())
    world.post(RoomMeasured(room=Room(workers=0, why="1 GB free")))
    world.ready(1)
    assert not spares(world)
    world.post(RoomMeasured(room=Room(workers=1, why="2 GB free")))
    assert len(spares(world)) == 1


def test_spare_that_fails_harms_nobody() -> None:
    """A spare that cannot start fails its own place, and the pool stays ready."""
    world = World(size=1, policy=Policy(spares=1, intensity=0)).begin()
    world.exit(2, "killed by SIGSEGV")
    assert world.pool.spares[0].state is SlotState.FAILED
    assert pool_state(world.pool) is PoolState.READY
    world.to_deadline()
    world.all_ready()
    assert len(spares(world, WorkerState.READY)) == 1


def test_number_of_spares_may_change() -> None:
    """Spares come and go with the config."""
    world = World(size=1, policy=ONE).begin()
    world.post(Reconfigured(policy=Policy(spares=3)))
    world.all_ready()
    assert len(spares(world, WorkerState.READY)) == 3
    world.post(Reconfigured(policy=Policy(spares=0)))
    settle(world)
    assert not spares(world)
    assert not world.pool.spares
    assert world.slot(0).incumbent == 1


def test_stop_ends_spares_too() -> None:
    """A stopped pool has no spares."""
    world = World(size=1, policy=ONE).begin()
    world.submit(OperationKind.STOP)
    settle(world)
    assert not world.workers()
    assert not world.pool.spares


# --- using them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", ["answered", "not answered", "killed"])
def test_spare_takes_the_slot_of_a_worker_that_fell(crash: str) -> None:
    """Whatever ended a worker, a ready spare has its slot in the same step; another one starts."""
    world = World(size=2, policy=ONE).begin()
    world.actions.clear()
    world.exit(1, foreign=crash == "killed", answered=crash == "answered")
    assert world.slot(0).incumbent == 3
    assert world.worker(3).kind is Kind.SLOT
    assert world.actions == [Spawn(attempt=4, slot=0, generation=1, kind=Kind.SPARE)]
    assert pool_state(world.pool) is PoolState.READY
    assert len(world.told(Happened.SPARE_PROMOTED)) == 1


def test_crash_that_a_spare_makes_good_counts_all_the_same() -> None:
    """Spares do not hide a crash loop: the slot fails after as many crashes as without them."""
    world = World(size=1, policy=Policy(spares=1, intensity=2, essential=False)).begin()
    for crashes in range(1, 4):
        world.exit(world.slot(0).incumbent or 0, "killed by SIGSEGV")
        assert len(world.slot(0).crashes) == crashes
        world.all_ready()
    assert world.slot(0).state is SlotState.FAILED
    assert len(spares(world, WorkerState.READY)) == 1


def test_spare_that_comes_late_ends_a_backoff() -> None:
    """A slot that waits before its next attempt takes a spare as soon as one is ready."""
    world = World(size=2, policy=Policy(spares=1, backoff_initial=20.0))
    world.post(Began())
    world.ready(1)
    world.ready(2)
    world.exit(1)
    assert world.slot(0).state is SlotState.BACKOFF
    world.ready(3)
    assert world.slot(0).incumbent == 3
    assert world.slot(0).retry_at is None


def test_due_worker_is_replaced_by_a_spare() -> None:
    """A recycle starts nothing in the slot: the spare takes it, and the old worker drains."""
    world = World(size=2, policy=ONE).begin()
    world.pass_time(1.0)
    world.actions.clear()
    world.post(RecycleDue(attempt=1, why="served 1000 requests"))
    assert [type(action) for action in world.actions] == [Drain, Spawn]
    assert world.slot(0).incumbent == 3
    assert world.actions[1] == Spawn(attempt=4, slot=0, generation=1, kind=Kind.SPARE)


def test_growth_takes_spares() -> None:
    """A new slot is filled by a spare at once."""
    world = World(size=1, policy=ONE).begin()
    world.submit(OperationKind.SCALE, size=2)
    assert world.slot(1).incumbent == 2


def test_oldest_spare_goes_first() -> None:
    """Of several spares the one that waits longest is taken."""
    world = World(size=1, policy=Policy(spares=2)).begin()
    world.exit(1, answered=True)
    assert world.slot(0).incumbent == 2


@pytest.mark.parametrize("trouble", ["starting", "stalled", "lost", "hung"])
def test_spare_in_trouble_takes_no_slot(trouble: str) -> None:
    """Only a spare that could serve at once is taken."""
    world = World(size=1, policy=ONE)
    world.post(Began())
    world.ready(1)
    if trouble != "starting":
        world.ready(2)
    if trouble == "stalled":
        world.post(Stalled(attempt=2, late=1.5, busy=False))
    elif trouble == "lost":
        world.post(LostContact(attempt=2))
    elif trouble == "hung":
        world.post(Hung(attempt=2, why="no heartbeat for 30 s"))
    world.exit(1, answered=True)
    assert world.slot(0).incumbent == 3
    assert world.worker(3).state is WorkerState.STARTING


def test_spare_that_ends_is_replaced() -> None:
    """A spare that hangs is ended and another one started; no slot notices."""
    world = World(size=1, policy=ONE).begin()
    world.post(Hung(attempt=2, why="no heartbeat for 30 s"))
    settle(world)
    assert world.slot(0).incumbent == 1
    assert len(spares(world, WorkerState.READY)) == 1


# --- with generations ---------------------------------------------------------------------------


def test_spares_of_the_old_generation_serve_until_the_rollout_is_complete() -> None:
    """While nobody knows whether the new generation works, a crash takes the old spare."""
    world = World(size=2, policy=ONE).begin()
    number = world.reload()
    assert world.workers(WorkerState.STARTING)[0].generation == 2
    world.exit(2, answered=True)
    assert world.slot(1).incumbent == 3
    settle(world)
    assert world.operation(number).state is OperationState.DONE
    assert {worker.generation for worker in world.workers()} == {2}
    assert len(spares(world, WorkerState.READY)) == 1


def test_no_spare_starts_during_a_rollout() -> None:
    """What a rollout needs is not taken by spares; they come after it."""
    world = World(size=2, policy=ONE).begin()
    world.reload()
    world.exit(3, "exit 1")
    assert not spares(world)
    settle(world)
    assert [worker.generation for worker in spares(world)] == [2]


def test_spares_are_replaced_after_a_rollout() -> None:
    """When the rollout is complete, spares of the old generation go and new ones come."""
    world = World(size=1, policy=Policy(spares=2)).begin()
    world.reload()
    world.ready(4)
    settle(world)
    assert [worker.generation for worker in spares(world, WorkerState.READY)] == [2, 2]


def test_spares_are_kept_when_a_rollout_is_aborted() -> None:
    """An aborted rollout leaves the spares of the generation that serves on."""
    world = World(size=1, policy=ONE).begin()
    world.reload()
    world.exit(3, "exit 3")
    settle(world)
    assert [worker.attempt for worker in spares(world)] == [2]


def test_spare_takes_the_place_back_after_an_abort() -> None:
    """Going back to the old generation takes its spares first."""
    world = World(size=2, policy=Policy(spares=1, min_ready=0.0)).begin()
    world.reload()
    world.ready(4)
    world.exit(5, "exit 3")
    assert world.slot(0).incumbent == 3
    assert world.worker(4).state is WorkerState.DRAINING


def test_restart_takes_no_spare_that_is_older_than_itself() -> None:
    """A restart gives each slot a worker that was started after it was asked; spares follow."""
    world = World(size=2, policy=Policy(spares=1, min_ready=0.0)).begin()
    number = world.submit(OperationKind.RESTART)
    settle(world)
    assert world.operation(number).state is OperationState.DONE
    assert all(worker.attempt > 3 for worker in world.workers())
    assert len(spares(world, WorkerState.READY)) == 1


def test_spares_are_forked_from_the_template() -> None:
    """With preload a spare comes from the template of its generation, too."""
    world = World(size=1, policy=ONE, preload=True).begin()
    spawned = [a for a in world.actions if isinstance(a, Spawn) and a.kind is Kind.SPARE]
    assert [spawn.template for spawn in spawned] == [1]
