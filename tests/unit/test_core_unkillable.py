"""Rollouts beside processes that resist SIGKILL: the kernel holds them, and drumd goes on."""

from drumd.supervisor.core.events import (
    Reconfigured,
)
from drumd.supervisor.core.model import (
    OperationKind,
    OperationState,
    Policy,
    SlotState,
    Tight,
    WorkerState,
)
from tests.unit.core_world import World, no_room, serving, settle, state


def held_back(size: int) -> tuple[World, str]:
    """Return a world, without room for surges, whose slot 0 a reload finds given up, and its id."""
    world = World(size=size, policy=Policy(max_unavailable=2, tight=Tight.NO_SURGE)).begin()
    world.submit(OperationKind.RESTART, slot=0)
    while not world.worker(1).stuck:
        world.to_deadline()
        for worker in world.workers(WorkerState.STARTING):
            world.ready(worker.attempt)
    no_room(world)
    number = world.reload()  # slot 0 is the first to go without, and its worker does not end
    while world.slot(0).state is not SlotState.FAILED:
        world.to_deadline()
    return world, number


def test_new_worker_that_sigkill_does_not_end_aborts() -> None:
    """A new worker that the kernel holds is as good as failed; its operation does not wait."""
    world = World(size=2).begin()
    number = world.reload()
    for _ in range(5):
        world.to_deadline()
    assert world.worker(3).stuck
    assert state(world, number) is OperationState.FAILED
    assert serving(world) == {1, 2}


def test_old_worker_that_sigkill_does_not_end_holds_up_nothing() -> None:
    """A rollout is done although the kernel holds an old worker that not even SIGKILL ends."""
    world = World(size=1).begin()
    number = world.reload()
    world.ready(2)
    while not world.worker(1).stuck:
        assert state(world, number) is OperationState.RUNNING
        world.to_deadline()
    assert state(world, number) is OperationState.DONE


def test_slot_that_is_held_back_holds_up_no_rollout() -> None:
    """A rollout fails whose only slot is given up, since two workers in it resist SIGKILL."""
    world = World(size=1, policy=Policy(tight=Tight.NO_SURGE)).begin()
    no_room(world)
    first = world.reload()
    while not world.worker(1).stuck:
        world.to_deadline()
    world.ready(2)
    assert state(world, first) is OperationState.DONE
    second = world.reload()
    while not world.worker(2).stuck:
        assert state(world, second) is OperationState.RUNNING
        world.to_deadline()
    assert world.slot(0).state is SlotState.FAILED
    assert state(world, second) is OperationState.FAILED
    assert "slot 0 is given up" in world.finished[second].reason


def test_slot_that_is_held_back_leaves_the_first_new_worker_to_another() -> None:
    """A slot that was to get the first new worker and is given up meanwhile does not keep it."""
    world, number = held_back(size=3)
    world.exit(2, "exit 0")  # slot 1 goes without, too, as the budget says
    (first,) = world.workers(WorkerState.STARTING)
    assert (first.slot, first.generation) == (1, 2)
    world.ready(first.attempt)
    settle(world)
    assert state(world, number) is OperationState.DONE


def test_first_new_worker_is_sent_again_when_its_slot_is_scaled_away() -> None:
    """Also when the kernel holds the one that was sent before: nothing comes of it any more."""
    world = World(size=2, policy=Policy(max_surge=1)).begin()
    world.exit(2, "exit 1")
    number = world.reload()
    (sent,) = [w for w in world.workers(WorkerState.STARTING) if w.generation == 2]
    assert sent.slot == 1
    world.post(Reconfigured(policy=world.pool.policy, size=1))
    while not world.worker(sent.attempt).stuck:
        world.to_deadline()
    world.to_deadline()  # slot 0 goes on to be replaced: there is one more try
    assert [w.generation for w in world.workers(WorkerState.STARTING)] == [2]
    settle(world)
    assert state(world, number) is OperationState.DONE


def test_rollout_ends_when_all_serve_it_but_a_slot_that_is_given_up() -> None:
    """There is nothing left to replace then, and that slot gets no worker."""
    world, number = held_back(size=2)
    world.exit(2, "exit 0")
    assert state(world, number) is OperationState.RUNNING
    (first,) = world.workers(WorkerState.STARTING)
    world.ready(first.attempt)
    assert state(world, number) is OperationState.FAILED
    assert "slot 0 is given up" in world.finished[number].reason
