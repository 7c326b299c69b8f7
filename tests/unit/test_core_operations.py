"""What operators ask: restart, stop, start, scale, one at a time, each with an outcome."""

import pytest

from drumd.supervisor.core.actions import Drain, Spawn, Terminate
from drumd.supervisor.core.events import Began, BeganLeaving, Cancelled, Hung, SpawnFailed
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import (
    OperationKind,
    OperationState,
    Policy,
    PoolState,
    SlotState,
    WorkerState,
)
from drumd.supervisor.core.views import pool_reason, pool_state
from tests.unit.core_world import World, actions_of, settle

RESTART, STOP, START, SCALE = (
    OperationKind.RESTART,
    OperationKind.STOP,
    OperationKind.START,
    OperationKind.SCALE,
)


def outcome(world: World, number: str) -> tuple[OperationState, str]:
    operation = world.operation(number)
    return operation.state, operation.reason


def fail_slot(world: World, number: int) -> None:
    """Let a slot run into its crash loop."""
    while (slot := world.slot(number)).state is not SlotState.FAILED:
        if slot.incumbent is None:
            world.to_deadline()
        else:
            world.exit(slot.incumbent, "exit 3")


# --- restart ------------------------------------------------------------------------------------


def test_restart_starts_the_successor_first() -> None:
    """A restart drains a worker only when its successor is ready, one slot after the other."""
    world = World(size=2).begin()
    number = world.submit(RESTART)
    assert world.actions[-1] == Spawn(attempt=3, slot=0, generation=1)
    assert len(world.workers(WorkerState.READY)) == 2
    decision = world.ready(3)
    assert [type(a) for a in decision.actions] == [Drain], "the next one waits for min_ready"
    assert world.slot(0).incumbent == 3
    assert world.worker(1).reason == "replaced by attempt 3: restarted by an operator"
    assert outcome(world, number) == (
        OperationState.RUNNING,
        "1 of 2 restarted, old workers left: 2",
    )
    assert not world.exit(1, "exit 0").actions
    decision = world.to_deadline()
    assert decision.actions == (Spawn(attempt=4, slot=1, generation=1),)
    world.ready(4)
    assert world.operation(number).state is OperationState.RUNNING, "an old one is still there"
    world.exit(2, "exit 0")
    assert outcome(world, number) == (OperationState.DONE, "2 of 2 restarted")
    assert world.finished[number].progress == (2, 2)


def test_restart_of_one_slot_leaves_the_others() -> None:
    """A restart of a slot replaces its worker alone."""
    world = World(size=3).begin()
    number = world.submit(RESTART, slot=1)
    settle(world)
    assert outcome(world, number) == (OperationState.DONE, "1 of 1 restarted")
    assert [slot.incumbent for slot in world.pool.slots] == [1, 4, 3]


def test_restart_fails_with_its_successor_and_the_old_one_serves_on() -> None:
    """When the new worker fails, the restart fails with the reason and nothing was drained."""
    world = World(size=2).begin()
    number = world.submit(RESTART)
    decision = world.exit(3, "exit 3")
    assert not decision.actions
    assert outcome(world, number) == (
        OperationState.FAILED,
        "slot 0: attempt 3 ended: exit 3 before it was ready",
    )
    assert [slot.incumbent for slot in world.pool.slots] == [1, 2]
    assert world.slot(0).failures == 0, "the slot itself serves"
    assert pool_state(world.pool) is PoolState.READY


def test_successor_that_hangs_at_start_is_ended_while_the_incumbent_serves() -> None:
    """A successor that never gets ready ends at start_timeout, and the restart with it."""
    world = World(size=1).begin()
    number = world.submit(RESTART)
    for _ in range(3):
        world.to_deadline()
    assert world.worker(1).state is WorkerState.READY
    world.exit(2, "killed by SIGKILL")
    state, reason = outcome(world, number)
    assert state is OperationState.FAILED
    assert "not ready within start_timeout (60 s)" in reason
    assert world.slot(0).incumbent == 1


def test_incumbent_that_crashes_beside_its_successor() -> None:
    """When the old worker crashes meanwhile, the successor takes the slot; no third is started."""
    world = World(size=1).begin()
    number = world.submit(RESTART)
    decision = world.exit(1, "killed by SIGSEGV", answered=True)
    assert not decision.actions
    assert (world.slot(0).incumbent, world.slot(0).successor) == (2, None)
    world.ready(2)
    assert world.operation(number).state is OperationState.DONE


def test_restart_whose_two_workers_fall_goes_on_with_the_slot() -> None:
    """When incumbent and successor both fall, the slot is filled again and the restart waits."""
    world = World(size=1).begin()
    number = world.submit(RESTART)
    world.exit(1, answered=True)
    world.exit(2)
    assert world.slot(0).state is SlotState.BACKOFF
    assert world.operation(number).state is OperationState.RUNNING
    settle(world)
    assert world.operation(number).state is OperationState.DONE


def test_restart_stops_where_new_workers_fall() -> None:
    """A new worker that crashes as soon as it is ready does not cost the next good one."""
    world = World(size=2).begin()
    number = world.submit(RESTART)
    world.ready(3)
    world.exit(3, "exit 1")
    world.exit(1, "exit 0")
    assert world.worker(2).state is WorkerState.READY
    assert world.slot(1).successor is None
    fail_slot(world, 0)
    state, reason = outcome(world, number)
    assert state is OperationState.FAILED
    assert reason.startswith("slot 0: 5 ")
    assert world.slot(1).incumbent == 2


@pytest.mark.parametrize("state", [SlotState.BACKOFF, SlotState.FAILED])
def test_restart_of_a_slot_that_waits_fills_it_at_once(state: SlotState) -> None:
    """A restart ends the wait of a slot in backoff or failed, and forgets its failures."""
    world = World(size=2).begin()
    if state is SlotState.FAILED:
        fail_slot(world, 0)
    else:
        world.exit(1)
    assert world.slot(0).state is state
    number = world.submit(RESTART, slot=0)
    assert isinstance(world.actions[-1], Spawn)
    assert world.slot(0).failures == 0
    assert world.slot(0).reason == "restarted by an operator"
    world.all_ready()
    assert world.operation(number).state is OperationState.DONE


def test_restart_replaces_starting_workers_at_once() -> None:
    """A worker without requests needs no successor first: it goes, and another one comes."""
    world = World(size=1)
    world.post(Began())
    number = world.submit(RESTART)
    assert world.actions[-1] == Terminate(attempt=1)
    assert actions_of(world.exit(1, "killed by SIGTERM"), Spawn)
    assert world.slot(0).failures == 0
    world.ready(2)
    assert world.operation(number).state is OperationState.DONE


def test_restart_waits_for_a_hung_worker_to_go() -> None:
    """A restart while a worker is being ended counts the one that replaces it."""
    world = World(size=1).begin()
    world.post(Hung(attempt=1, why="no heartbeat for 30 s"))
    number = world.submit(RESTART)
    world.exit(1, "killed by SIGTERM", answered=True)
    world.ready(2)
    assert outcome(world, number) == (OperationState.DONE, "1 of 1 restarted")


def test_foreign_sigterm_during_a_restart() -> None:
    """A worker that somebody terminates during its restart leaves the slot to its successor."""
    world = World(size=1).begin()
    number = world.submit(RESTART)
    decision = world.post(BeganLeaving(attempt=1, signal="SIGTERM"))
    assert not decision.actions
    assert world.slot(0).incumbent == 2
    settle(world)
    assert world.operation(number).state is OperationState.DONE


@pytest.mark.parametrize(
    ("size", "slot", "reason"),
    [
        (0, None, "the pool has no slot 0 (its size is 0)"),
        (2, 7, "the pool has no slot 7 (its size is 2)"),
    ],
)
def test_restart_of_nothing_says_so(size: int, slot: int | None, reason: str) -> None:
    """A restart of a slot that is not there fails with the pool's size."""
    world = World(size=size).begin()
    number = world.submit(RESTART, slot=slot)
    assert outcome(world, number) == (OperationState.FAILED, reason)


def test_restart_of_a_stopped_pool_says_so() -> None:
    """A stopped pool is not restarted, and the reason says what to do."""
    world = World(size=1).begin()
    world.submit(STOP)
    settle(world)
    number = world.submit(RESTART)
    assert outcome(world, number) == (
        OperationState.FAILED,
        "the pool is stopped: start it instead",
    )


# --- stop and start -----------------------------------------------------------------------------


def test_stop_and_start() -> None:
    """A stop is done when the last worker is gone, a start when all slots are ready."""
    world = World(size=2).begin()
    stop = world.submit(STOP)
    assert outcome(world, stop) == (OperationState.RUNNING, "workers left: 2")
    assert pool_state(world.pool) is PoolState.STOPPING
    world.exit(1, "exit 0")
    world.exit(2, "exit 0")
    assert outcome(world, stop) == (OperationState.DONE, "stopped")
    assert pool_state(world.pool) is PoolState.STOPPED
    assert pool_reason(world.pool) == "stopped by an operator"
    assert world.told(Happened.POOL_STOPPED) == ["stopped by an operator"]
    start = world.submit(START)
    world.ready(3)
    assert outcome(world, start) == (OperationState.RUNNING, "1 of 2 ready")
    assert pool_state(world.pool) is PoolState.STARTING
    world.ready(4)
    assert outcome(world, start) == (OperationState.DONE, "2 of 2 ready")


def test_start_fails_with_a_slot() -> None:
    """A start ends as failed when a slot is given up, with the slot's reason."""
    world = World(size=2).begin()
    fail_slot(world, 0)
    number = world.submit(START)
    assert world.slot(0).state is SlotState.FILLED
    fail_slot(world, 0)
    state, reason = outcome(world, number)
    assert state is OperationState.FAILED
    assert reason.startswith("slot 0: 5 ")


def test_start_leaves_serving_slots_alone() -> None:
    """A start of a pool that is up changes nothing about workers that serve."""
    world = World(size=1).begin()
    slot = world.slot(0)
    number = world.submit(START)
    assert world.operation(number).state is OperationState.DONE
    assert world.slot(0) == slot


def test_start_after_a_cancelled_stop_waits_for_the_old_ones() -> None:
    """A slot whose worker still drains is filled when that one is gone."""
    world = World(size=1).begin()
    stop = world.submit(STOP)
    world.post(Cancelled(operation_id=stop, by="ann"))
    assert not world.pool.up, "what is done stays done"
    number = world.submit(START)
    assert world.worker(1).state is WorkerState.DRAINING
    assert actions_of(world.exit(1, "exit 0"), Spawn)
    settle(world)
    assert world.operation(number).state is OperationState.DONE


# --- scale --------------------------------------------------------------------------------------


def test_scale_up_and_down() -> None:
    """Scaling up fills new slots, scaling down drains the highest and forgets them."""
    world = World(size=1).begin()
    up = world.submit(SCALE, size=3)
    assert [a.slot for a in world.actions[-2:] if isinstance(a, Spawn)] == [1, 2]
    world.all_ready()
    assert outcome(world, up) == (OperationState.DONE, "3 of 3 ready")
    down = world.submit(SCALE, size=2)
    assert isinstance(world.actions[-1], Drain)
    assert outcome(world, down) == (
        OperationState.RUNNING,
        "2 of 2 ready, workers left above the size: 1",
    )
    assert [slot.number for slot in world.pool.slots] == [0, 1, 2]
    world.exit(3, "exit 0")
    assert outcome(world, down) == (OperationState.DONE, "2 of 2 ready")
    assert [slot.number for slot in world.pool.slots] == [0, 1]
    assert len(world.told(Happened.SLOT_RETIRED)) == 1


def test_scale_to_nothing_and_back() -> None:
    """A pool of size 0 is a ready pool without workers, and comes back."""
    world = World(size=2).begin()
    world.submit(SCALE, size=0)
    settle(world)
    assert not world.pool.workers
    assert pool_state(world.pool) is PoolState.READY
    number = world.submit(SCALE, size=1)
    settle(world)
    assert outcome(world, number) == (OperationState.DONE, "1 of 1 ready")


def test_scale_gives_failed_slots_another_try() -> None:
    """An old failure neither fails a scale at once nor makes the last slot of a lost pool."""
    world = World(size=2).begin()
    fail_slot(world, 0)
    number = world.submit(SCALE, size=1)
    assert world.slot(0).state is SlotState.FILLED
    settle(world)
    assert outcome(world, number) == (OperationState.DONE, "1 of 1 ready")


def test_scale_of_a_stopped_pool_starts_nothing() -> None:
    """A stopped pool takes the new size and stays stopped."""
    world = World(size=1).begin()
    world.submit(STOP)
    settle(world)
    number = world.submit(SCALE, size=3)
    assert outcome(world, number) == (OperationState.DONE, "the pool is stopped")
    assert not world.pool.workers
    world.submit(START)
    settle(world)
    assert len(world.workers(WorkerState.READY)) == 3


def test_scale_waits_for_a_running_restart() -> None:
    """Two operations at once are carried out in their order."""
    world = World(size=2).begin()
    restart = world.submit(RESTART)
    scale = world.submit(SCALE, size=1)
    assert world.operation(scale).state is OperationState.QUEUED
    assert world.pool.size == 2
    settle(world)
    assert list(world.finished) == [restart, scale]
    assert world.pool.size == 1


# --- cancel -------------------------------------------------------------------------------------


def test_cancel_of_a_queued_operation() -> None:
    """A queued operation that is cancelled never begins."""
    world = World(size=2).begin()
    world.submit(RESTART)
    scale = world.submit(SCALE, size=1)
    world.post(Cancelled(operation_id=scale, by="ann"))
    assert outcome(world, scale) == (OperationState.CANCELLED, "cancelled by ann")
    settle(world)
    assert world.pool.size == 2


def test_cancel_of_a_running_restart_lets_the_successor_go() -> None:
    """A restart that is cancelled ends its new worker; the old one serves on, the next begins."""
    world = World(size=2).begin()
    restart = world.submit(RESTART)
    scale = world.submit(SCALE, size=3)
    world.post(Cancelled(operation_id=restart, by="ann"))
    assert Terminate(attempt=3) in world.actions
    assert world.operation(restart).state is OperationState.CANCELLED
    assert world.operation(scale).state is OperationState.RUNNING
    settle(world)
    assert world.slot(0).incumbent == 1


def test_cancel_keeps_a_successor_that_is_the_only_worker() -> None:
    """When the old worker is gone, a cancelled restart leaves the new one."""
    world = World(size=1).begin()
    restart = world.submit(RESTART)
    world.exit(1, answered=True)
    decision = world.post(Cancelled(operation_id=restart, by="ann"))
    assert not decision.actions
    assert world.slot(0).incumbent == 2


def test_cancel_of_an_unknown_operation_changes_nothing() -> None:
    """An operation that has ended, or never was, cannot be cancelled."""
    world = World(size=1).begin()
    before = world.pool
    assert not world.post(Cancelled(operation_id="op-9", by="ann")).facts
    assert world.pool == before


def test_restart_keeps_to_one_extra_worker_with_slots_in_backoff() -> None:
    """Slots that wait make no room for more successors at once."""
    world = World(size=4, policy=Policy(intensity=50)).begin()
    world.submit(RESTART)
    world.exit(3)
    world.exit(4)
    world.pass_time(0.0)
    assert sum(slot.successor is not None for slot in world.pool.slots) == 1
    for _ in range(5):
        settle_one_start(world)
        assert len(world.workers()) <= 5


def settle_one_start(world: World) -> None:
    world.pass_time(0.2)
    for worker in world.workers(WorkerState.STARTING)[:1]:
        world.ready(worker.attempt)


def test_spawn_that_fails_after_it_was_called_off_does_not_count() -> None:
    """A start that an operator ended is no failed start, even if there was no process yet."""
    world = World(size=1)
    world.post(Began())
    world.submit(RESTART)
    decision = world.post(SpawnFailed(attempt=1, error="cannot start: no memory"))
    assert actions_of(decision, Spawn)
    assert world.slot(0).failures == 0
