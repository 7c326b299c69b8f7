"""Renewal: outdated workers are replaced within the budget, by a restart or a recycle."""

import pytest

from drumd.supervisor.core.actions import Drain, Spawn
from drumd.supervisor.core.events import Began, RecycleDue
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import (
    OperationKind,
    OperationState,
    Policy,
    SlotState,
    Tight,
    WorkerState,
)
from drumd.supervisor.core.views import next_deadline, serves, wanted_slots
from tests.unit.core_world import World, no_room, settle

WHY = "has answered 1000 requests"
BUDGETS = [(1, 0), (2, 0), (0, 1), (0, 2), (1, 1), (2, 2)]


def due(world: World, *attempts: int) -> None:
    for attempt in attempts:
        world.post(RecycleDue(attempt=attempt, why=WHY))


def starting(world: World) -> list[int]:
    return [worker.attempt for worker in world.workers(WorkerState.STARTING)]


def drained(world: World) -> list[int]:
    return [action.attempt for action in world.actions if isinstance(action, Drain)]


def serving(world: World) -> int:
    return sum(serves(world.pool, slot) for slot in wanted_slots(world.pool))


# --- recycling ----------------------------------------------------------------------------------


def test_recycled_worker_is_replaced_first() -> None:
    """A worker that is due serves until its replacement is ready, and is counted as recycled."""
    world = World(size=2).begin()
    world.pass_time(1.0)
    due(world, 1)
    assert world.actions[-1] == Spawn(attempt=3, slot=0, generation=1)
    assert not drained(world)
    world.ready(3)
    assert drained(world) == [1]
    assert world.worker(1).reason == f"replaced by attempt 3: {WHY}"
    world.exit(1, "exit 0")
    exited = [fact for fact in world.facts if fact.event is Happened.WORKER_EXITED]
    assert exited[-1].extra["cause"] == "recycled"


def test_due_workers_take_turns() -> None:
    """Of workers that are due at once, as many are replaced at a time as the budget allows."""
    world = World(size=4, policy=Policy(min_ready=0.0)).begin()
    due(world, 1, 2, 3, 4)
    assert starting(world) == [5]
    world.ready(5)
    assert starting(world) == [6]
    settle(world)
    assert [slot.incumbent for slot in world.pool.slots] == [5, 6, 7, 8]


def test_due_twice_is_due_once() -> None:
    """A worker that is told to be due again keeps its first reason, and one replacement."""
    world = World(size=1).begin()
    due(world, 1, 1)
    assert starting(world) == [2]


def test_only_ready_workers_are_recycled() -> None:
    """Who starts or drains has no age."""
    world = World(size=1)
    world.post(Began())
    due(world, 1)
    world.ready(1)
    settle(world)
    assert world.slot(0).incumbent == 1


def test_replacement_that_fails_is_tried_again_later_and_later() -> None:
    """When the replacement of a recycled worker fails, the worker serves on until one works."""
    policy = Policy(intensity=2, backoff_initial=1.0, retry_after=300.0)
    world = World(size=1, policy=policy).begin()
    due(world, 1)
    waits = []
    for _ in range(4):
        world.exit(starting(world)[0], "exit 3")
        assert world.worker(1).state is WorkerState.READY
        waits.append((next_deadline(world.pool) or 0) - world.now)
        world.to_deadline()
    assert waits == [0.5, 1.0, 300.0, 300.0]
    world.all_ready()
    assert drained(world) == [1]
    assert world.slot(0).unrenewed == 0


def test_recycling_waits_while_another_slot_is_down() -> None:
    """With `max_unavailable = 0` nobody is recycled while some slot does not serve."""
    world = World(size=2, policy=Policy(backoff_initial=10.0)).begin()
    world.exit(2)
    due(world, 1)
    assert not starting(world)
    world.to_deadline()
    world.all_ready()
    settle(world)
    assert world.slot(0).incumbent not in (None, 1)


def test_recycle_during_a_rollout_needs_one_worker() -> None:
    """A worker that is due while its slot waits for a rollout is replaced once."""
    world = World(size=2).begin()
    world.reload()
    due(world, 2)
    settle(world)
    assert world.pool.next_attempt == 5


# --- the budget ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("surge", "unavailable"), BUDGETS)
@pytest.mark.parametrize("how", ["restart", "reload", "recycle"])
def test_capacity_stays_within_the_budget(surge: int, unavailable: int, how: str) -> None:
    """However workers are replaced, no more slots go without, and no more workers surge."""
    policy = Policy(max_surge=surge, max_unavailable=unavailable, min_ready=0.0)
    world = World(size=5, policy=policy).begin()
    if how == "recycle":
        due(world, 1, 2, 3, 4, 5)
    else:
        world.submit(OperationKind(how))
    most_starting = 0
    while world.workers(WorkerState.STARTING, WorkerState.DRAINING):
        assert serving(world) >= 5 - unavailable
        most_starting = max(most_starting, len(starting(world)))
        # Old ones are slow to go: they drain on while the next ones start.
        if starting(world):
            world.ready(starting(world)[0])
        else:
            world.exit(world.workers(WorkerState.DRAINING)[0].attempt, "exit 0")
    assert most_starting <= surge + unavailable
    assert all(worker.attempt > 5 for worker in world.workers())
    assert serving(world) == 5


def test_failed_slot_counts_as_unavailable() -> None:
    """A slot that is down uses up the budget, so that no other goes without."""
    policy = Policy(max_surge=0, max_unavailable=1, intensity=0, essential=False)
    world = World(size=3, policy=policy).begin()
    world.exit(3)
    assert world.slot(2).state is SlotState.FAILED
    due(world, 1)
    assert not drained(world)


# --- restart ------------------------------------------------------------------------------------


def test_restart_after_an_abort_settles_what_is_mixed() -> None:
    """A restart ends although a bad release cannot go back: its workers are replaced or kept."""
    world = World(size=2, policy=Policy(min_ready=0.0)).begin()
    world.reload()
    world.ready(3)
    world.exit(1, "exit 0")
    world.exit(4, "exit 3")
    number = world.submit(OperationKind.RESTART)
    settle(world)
    assert world.operation(number).state is OperationState.DONE
    assert {worker.generation for worker in world.workers()} == {1}


def test_failed_restart_forgets_that_its_workers_were_due() -> None:
    """A restart that fails leaves the old workers as they were before: nobody replaces them."""
    world = World(size=2).begin()
    number = world.submit(OperationKind.RESTART)
    world.exit(3, "exit 3")
    assert world.operation(number).state is OperationState.FAILED
    settle(world)
    assert [slot.incumbent for slot in world.pool.slots] == [1, 2]
    assert not drained(world)


def failed_slot(world: World, number: int) -> None:
    """Let a slot fail, with `intensity` 0."""
    world.exit(world.slot(number).incumbent or 0, "killed by SIGSEGV")
    assert world.slot(number).state is SlotState.FAILED


def test_restart_of_a_slot_goes_on_though_another_has_failed() -> None:
    """One slot can be restarted with a successor beside it, whatever became of the others."""
    world = World(size=2, policy=Policy(intensity=0)).begin()
    failed_slot(world, 1)
    number = world.submit(OperationKind.RESTART, slot=0)
    assert starting(world) == [3]
    world.ready(3)
    world.exit(1, "exit 0")
    assert world.operation(number).state is OperationState.DONE


def test_restart_of_a_slot_fails_where_no_other_may_go() -> None:
    """Where the budget lets no slot go since another has failed, a restart says so and ends."""
    policy = Policy(max_surge=0, max_unavailable=1, intensity=0)
    world = World(size=2, policy=policy).begin()
    failed_slot(world, 1)
    number = world.submit(OperationKind.RESTART, slot=0)
    world.pass_time(1.0)
    assert world.operation(number).state is OperationState.FAILED
    assert world.operation(number).reason.startswith("slot 1 is down, so no other may be: 1 crash")
    settle(world)
    assert world.slot(0).incumbent == 1


# --- memory -------------------------------------------------------------------------------------


def test_recycle_without_room_is_refused_and_told() -> None:
    """Where there is no room, a worker that is due serves on, and the journal says why."""
    world = World(size=2).begin()
    no_room(world)
    due(world, 1)
    settle(world)
    assert [slot.incumbent for slot in world.pool.slots] == [1, 2]
    assert len(world.told(Happened.DAEMON_NOTICE)) == 1
    notice = world.told(Happened.DAEMON_NOTICE)[0]
    assert notice.startswith(f"{WHY}, but it cannot be replaced yet: no memory")


def test_recycle_goes_on_when_there_is_room_again() -> None:
    """What was refused for want of memory happens as soon as some is free."""
    world = World(size=2).begin()
    no_room(world)
    due(world, 1)
    world.pass_time(1.0)
    no_room(world, workers=1)
    assert starting(world) == [3]


def test_recycle_without_room_may_end_the_old_worker_first() -> None:
    """With `no-surge` the worker that is due goes first, and its memory with it."""
    world = World(size=2, policy=Policy(tight=Tight.NO_SURGE)).begin()
    no_room(world)
    due(world, 1, 2)
    assert drained(world) == [1]
    assert not starting(world)
    world.exit(1, "exit 0")
    assert starting(world) == [3]
    assert drained(world) == [1], "one at a time"


def test_restart_without_room_is_refused() -> None:
    """A restart fails at once where its first successor would not fit."""
    world = World(size=2).begin()
    no_room(world)
    number = world.submit(OperationKind.RESTART)
    assert world.operation(number).state is OperationState.FAILED
    assert "no memory for another worker" in world.operation(number).reason
    assert [slot.incumbent for slot in world.pool.slots] == [1, 2]


def test_restart_in_place_needs_no_room_though_it_preloads() -> None:
    """With `no-surge` a restart is done in place: its template is there already."""
    policy = Policy(tight=Tight.NO_SURGE, min_ready=0.0)
    world = World(size=2, policy=policy, preload=True).begin()
    no_room(world)
    number = world.submit(OperationKind.RESTART)
    settle(world)
    assert world.operation(number).state is OperationState.DONE


def test_restart_that_runs_out_of_memory_fails() -> None:
    """A restart that no other successor fits for ends with the reason; the rest serves on."""
    world = World(size=2, policy=Policy(min_ready=0.0)).begin()
    no_room(world, workers=1)
    number = world.submit(OperationKind.RESTART)
    no_room(world, workers=-1)
    world.ready(3)
    world.exit(1, "exit 0")
    assert world.operation(number).state is OperationState.FAILED
    settle(world)
    assert [slot.incumbent for slot in world.pool.slots] == [3, 2]


def test_crashed_worker_is_replaced_however_little_room_there_is() -> None:
    """A slot whose worker is gone is filled: what ran there before fitted, too."""
    world = World(size=2).begin()
    no_room(world, workers=-1)
    world.exit(1, answered=True)
    assert starting(world) == [3]


def test_worker_that_sigkill_does_not_end_does_not_block_its_slot() -> None:
    """Where there is no room, a slot waits for the old worker's end, but not for ever."""
    world = World(size=2, policy=Policy(tight=Tight.NO_SURGE)).begin()
    no_room(world)
    due(world, 1)
    while not world.worker(1).stuck:
        assert not starting(world)
        world.to_deadline()
    assert starting(world) == [3]


def test_successor_that_fails_in_a_stopped_pool_is_not_waited_for() -> None:
    """No deadline is left of a successor that ends after nobody wants its slot any more."""
    world = World(size=1, policy=Policy(intensity=0)).begin()
    world.pass_time(1.0)
    due(world, 1)
    world.to_deadline()
    assert world.worker(2).state is WorkerState.STOPPING, "it was not ready in time"
    world.submit(OperationKind.STOP)
    world.exit(2, "killed by SIGKILL")
    world.exit(1, "exit 0")
    assert next_deadline(world.pool) is None
