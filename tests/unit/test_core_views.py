"""Who accepts from which queue, and where connections go: by the pool's state alone."""

from drumd.supervisor.core.events import (
    Began,
    BeganLeaving,
    Hung,
    LostContact,
    Recovered,
    RecycleDue,
    ShutdownRequested,
    Stalled,
)
from drumd.supervisor.core.model import OperationKind, Policy, WorkerState
from drumd.supervisor.core.views import acceptors, heirs, next_deadline, steering
from tests.unit.core_world import World


def stall(world: World, *attempts: int) -> None:
    for attempt in attempts:
        world.post(Stalled(attempt=attempt, late=1.5, busy=False))


def accepted(world: World, queues: range | None = None) -> dict[int, set[int]]:
    queues = queues if queues is not None else range(len(world.pool.slots))
    return {attempt: set(slots) for attempt, slots in acceptors(world.pool, queues).items()}


# --- acceptors ----------------------------------------------------------------------------------


def test_each_worker_accepts_from_its_own_queue() -> None:
    """In a whole pool each worker accepts from its slot's queue and no other."""
    assert accepted(World(size=3).begin()) == {1: {0}, 2: {1}, 3: {2}}


def test_nobody_accepts_before_it_is_ready() -> None:
    """A starting worker accepts nothing, and its queue is adopted as soon as a sibling serves."""
    world = World(size=2)
    world.post(Began())
    assert accepted(world) == {}
    world.ready(2)
    assert accepted(world) == {2: {0, 1}}


def test_queue_of_a_slot_that_is_down_is_adopted() -> None:
    """While a slot has no ready worker, a sibling accepts from its queue; then it gives it back."""
    world = World(size=2).begin()
    world.exit(1)
    assert accepted(world) == {2: {0, 1}}
    world.to_deadline()
    assert accepted(world) == {2: {0, 1}}
    world.all_ready()
    assert accepted(world) == {2: {1}, 3: {0}}


def test_queue_of_a_stalled_worker_is_adopted_too() -> None:
    """A stalled worker keeps its queue, for it may be back any time, and a sibling shares it."""
    world = World(size=2).begin()
    stall(world, 1)
    assert accepted(world) == {1: {0}, 2: {0, 1}}
    world.post(Recovered(attempt=1))
    assert accepted(world) == {1: {0}, 2: {1}}


def test_worker_without_contact_adopts_nothing() -> None:
    """A worker that cannot be told anything is not asked to adopt, and its queue is adopted."""
    world = World(size=3).begin()
    world.post(LostContact(attempt=1))
    world.exit(2)
    assert accepted(world) == {1: {0}, 3: {0, 1, 2}}


def test_adopted_queues_are_spread() -> None:
    """Queues without a worker are shared out evenly among those that serve."""
    world = World(size=6).begin()
    for attempt in (1, 2, 3):
        world.exit(attempt)
    taken = accepted(world)
    assert {len(slots) for slots in taken.values()} == {2}
    assert set().union(*taken.values()) == set(range(6))


def test_stalled_workers_adopt_when_there_is_no_other() -> None:
    """With nobody but stalled workers, a queue without a worker still has an acceptor."""
    world = World(size=2).begin()
    stall(world, 2)
    world.exit(1)
    assert accepted(world) == {2: {0, 1}}


def test_queue_of_a_retired_slot_is_adopted() -> None:
    """After a scale-down what still waits in the old slots' queues is answered by the others."""
    world = World(size=3).begin()
    world.submit(OperationKind.SCALE, size=1)
    assert accepted(world) == {1: {0, 1, 2}}
    world.exit(2, "exit 0")
    world.exit(3, "exit 0")
    assert len(world.pool.slots) == 1
    assert accepted(world, range(3)) == {1: {0, 1, 2}}


def test_successor_accepts_when_the_incumbent_stops() -> None:
    """At a restart the queue changes hands with the slot, without a moment between."""
    world = World(size=1).begin()
    world.submit(OperationKind.RESTART)
    assert accepted(world) == {1: {0}}
    world.ready(2)
    assert accepted(world) == {2: {0}}


# --- steering -----------------------------------------------------------------------------------


def test_steering_leaves_out_what_does_not_serve_well() -> None:
    """Starting, stalled, draining, hung and failed slots get no new connections."""
    world = World(size=6)
    world.post(Began())
    for attempt in (2, 3, 4, 5, 6):
        world.ready(attempt)
    stall(world, 2)
    world.post(BeganLeaving(attempt=3, signal="SIGTERM"))
    world.post(Hung(attempt=4, why="no heartbeat for 30 s"))
    world.exit(5)
    assert steering(world.pool, range(6)) == (5,)


def test_steering_keeps_all_live_slots_when_all_are_stalled() -> None:
    """A pool whose workers are all busy keeps them all in service."""
    world = World(size=3).begin()
    world.exit(1)
    stall(world, 2, 3)
    assert steering(world.pool, range(3)) == (1, 2)


def test_steering_without_workers_keeps_wanted_slots() -> None:
    """With nobody ready, connections wait in the queues of slots that will be filled."""
    world = World(size=2)
    world.post(Began())
    assert steering(world.pool, range(4)) == (0, 1)
    assert steering(world.pool, ()) == ()


def test_steering_leaves_out_retired_slots() -> None:
    """Slots above the size get no new connections as soon as the scale-down begins."""
    world = World(size=3).begin()
    world.submit(OperationKind.SCALE, size=1)
    assert steering(world.pool, range(3)) == (0,)


# --- next_deadline ------------------------------------------------------------------------------


def test_a_whole_pool_waits_for_nothing() -> None:
    """An idle pool needs no timer at all."""
    assert next_deadline(World(size=2).begin().pool) is None


def test_next_deadline_is_the_earliest() -> None:
    """The next deadline is the earliest of workers and waiting slots."""
    world = World(size=2, chance=0.5).begin()
    world.exit(1)
    backoff = world.now + 0.05
    assert next_deadline(world.pool) == backoff
    world.post(ShutdownRequested(reason="SIGTERM"))
    assert next_deadline(world.pool) == world.now + 25.0


# --- heirs --------------------------------------------------------------------------------------


def test_idle_connections_go_to_the_successor() -> None:
    """A worker that was replaced hands its idle connections to the one that took its slot."""
    world = World(size=3).begin()
    world.pass_time(1.0)
    world.submit(OperationKind.RESTART, slot=1)
    assert heirs(world.pool) == {}
    world.ready(4)
    assert heirs(world.pool) == {2: (4,)}
    world.exit(2, "exit 0")
    assert heirs(world.pool) == {}


def test_idle_connections_of_a_slot_that_goes_are_shared_by_siblings() -> None:
    """A scale-down gives each leaver's connections to a few siblings, not the same ones first."""
    world = World(size=8).begin()
    world.submit(OperationKind.SCALE, size=6)
    assert heirs(world.pool) == {7: (1, 2, 3, 4), 8: (2, 3, 4, 5)}


def test_idle_connections_go_to_siblings_until_the_successor_is_ready() -> None:
    """Where a worker goes before its successor serves, siblings take over, then the successor."""
    policy = Policy(max_surge=0, max_unavailable=1)
    world = World(size=2, policy=policy).begin()
    world.pass_time(1.0)
    world.submit(OperationKind.RESTART, slot=0)
    assert heirs(world.pool) == {1: (2,)}
    world.ready(3)
    assert heirs(world.pool) == {1: (3,)}


def test_worker_that_somebody_told_to_go_has_heirs_too() -> None:
    """A SIGTERM from elsewhere closes no idle connection either."""
    world = World(size=2).begin()
    world.post(BeganLeaving(attempt=1, signal="SIGTERM"))
    assert heirs(world.pool) == {1: (2,)}


def test_promoted_spare_is_an_heir() -> None:
    """A spare that took a slot gets the idle connections of the worker before it."""
    world = World(size=2, policy=Policy(spares=1)).begin()
    world.pass_time(1.0)
    world.post(RecycleDue(attempt=1, why="served 1000 requests"))
    assert heirs(world.pool) == {1: (3,)}


def test_nobody_in_trouble_is_an_heir() -> None:
    """Who is stalled, about to exit, starting, draining or without a slot gets no connections."""
    world = World(size=5, policy=Policy(spares=1)).begin()
    world.post(BeganLeaving(attempt=1, signal="SIGTERM"))
    spare = world.slot(0).incumbent
    assert spare == 6
    stall(world, 6)
    stall(world, 2)
    world.post(LostContact(attempt=3))
    world.post(BeganLeaving(attempt=4, signal="SIGTERM"))
    assert set(heirs(world.pool).values()) == {(5,)}


def test_nobody_inherits_when_all_go() -> None:
    """At a stop of the pool or of the daemon idle connections are closed."""
    world = World(size=2).begin()
    world.submit(OperationKind.STOP)
    assert world.workers(WorkerState.DRAINING)
    assert heirs(world.pool) == {}
    world = World(size=2).begin()
    world.submit(OperationKind.RESTART)
    world.ready(3)
    world.post(ShutdownRequested(reason="SIGTERM"))
    assert heirs(world.pool) == {}


def test_last_worker_has_no_heir() -> None:
    """Without any worker that serves there is nobody to hand to."""
    world = World(size=1).begin()
    world.post(BeganLeaving(attempt=1, signal="SIGTERM"))
    assert heirs(world.pool) == {}
    world.ready(2)
    assert heirs(world.pool) == {1: (2,)}


def test_who_is_above_the_size_inherits_nothing() -> None:
    """A slot that goes itself takes nothing over."""
    world = World(size=3).begin()
    world.submit(OperationKind.SCALE, size=1)
    assert heirs(world.pool) == {2: (1,), 3: (1,)}
