"""How workers end: drains, the ladder to SIGKILL, hangs, signals from elsewhere, shutdown."""

import pytest

from drumd.supervisor.core.actions import Drain, DumpStacks, Kill, Spawn, Terminate
from drumd.supervisor.core.events import (
    Began,
    BeganLeaving,
    Drained,
    Hung,
    LostContact,
    Recovered,
    ReportedFailure,
    ShutdownRequested,
    SpawnFailed,
    Stalled,
    TimePassed,
)
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import (
    OperationKind,
    OperationState,
    Policy,
    PoolState,
    SlotState,
    WorkerState,
)
from drumd.supervisor.core.views import next_deadline, pool_reason, pool_state
from tests.unit.core_world import World, actions_of

STOP = ShutdownRequested(reason="SIGTERM")
STOP_AT_ONCE = ShutdownRequested(reason="second SIGTERM", at_once=True)


# --- draining -----------------------------------------------------------------------------------


def test_drain_ends_with_terminate_and_kill() -> None:
    """A worker that does not finish within its grace period gets SIGTERM, then SIGKILL."""
    world = World(size=1, policy=Policy(grace_period=20.0, stop_timeout=3.0)).begin()
    start = world.now
    decision = world.post(STOP)
    assert decision.actions == (Drain(attempt=1, deadline=start + 20.0, linger=2.0),)
    assert world.to_deadline().actions == (Terminate(attempt=1),)
    assert world.now == start + 20.0
    assert world.to_deadline().actions == (Kill(attempt=1),)
    assert world.now == start + 23.0
    assert world.worker(1).reason == (
        "SIGTERM; did not finish within its grace period (20 s); SIGTERM had no effect"
    )


def test_linger_is_within_the_grace_period() -> None:
    """A linger that is longer than the grace period is cut to it."""
    world = World(size=1, policy=Policy(grace_period=1.0, linger=2.0)).begin()
    (drain,) = world.post(STOP).actions
    assert isinstance(drain, Drain)
    assert drain.linger == 1.0


def test_drained_worker_has_to_exit_soon() -> None:
    """A worker that has drained and does not exit is terminated before its grace period ends."""
    world = World(size=1, policy=Policy(grace_period=20.0, stop_timeout=3.0)).begin()
    world.post(STOP)
    world.post(Drained(attempt=1))
    assert world.worker(1).deadline == world.now + 3.0
    world.to_deadline()
    assert world.worker(1).reason == "SIGTERM; did not exit after it had drained"


def test_drained_at_the_end_of_the_grace_period_gains_no_time() -> None:
    """A drained worker's patience never goes beyond its grace period."""
    world = World(size=1, policy=Policy(grace_period=20.0, stop_timeout=3.0)).begin()
    world.post(STOP)
    deadline = world.worker(1).deadline
    world.pass_time(19.0)
    world.post(Drained(attempt=1))
    assert world.worker(1).deadline == deadline


def test_time_within_one_instant_takes_one_step() -> None:
    """Asking again at the same instant does not take the next rung."""
    world = World(size=1).begin()
    world.post(STOP)
    world.to_deadline()
    assert not world.post(TimePassed()).actions
    assert world.worker(1).state is WorkerState.STOPPING


def test_late_supervisor_still_takes_every_rung() -> None:
    """After a long pause of the supervisor a worker still gets SIGTERM before SIGKILL."""
    world = World(size=1).begin()
    world.post(STOP)
    assert actions_of(world.pass_time(1000.0), Terminate)


# --- hung and stalled ---------------------------------------------------------------------------


def test_hung_worker_shows_stacks_before_it_goes() -> None:
    """A hung worker writes its stacks, gets SIGTERM, then SIGKILL, and is replaced."""
    world = World(size=2).begin()
    decision = world.post(Hung(attempt=1, why="no heartbeat for 30 s"))
    assert decision.actions == (DumpStacks(attempt=1),)
    assert world.to_deadline().actions == (Terminate(attempt=1),)
    assert world.to_deadline().actions == (Kill(attempt=1),)
    assert actions_of(world.exit(1, "killed by SIGKILL", answered=True), Spawn)
    assert world.slot(0).reason.startswith("replaces a worker: hung: no heartbeat for 30 s")
    assert world.told(Happened.WORKER_HUNG) == ["no heartbeat for 30 s"]


def test_hung_worker_that_never_answered_counts() -> None:
    """A hang before the first answered request counts towards the slot's failure."""
    world = World(size=2).begin()
    world.post(Hung(attempt=1, why="no heartbeat for 30 s"))
    world.exit(1, "killed by SIGTERM")
    assert world.slot(0).state is SlotState.BACKOFF
    assert world.slot(0).failures == 1


def test_stall_is_told_once() -> None:
    """A stall is told when it begins and when it ends, however often it is seen."""
    world = World(size=1).begin()
    for late in (1.0, 2.0, 3.0):
        world.post(Stalled(attempt=1, late=late, busy=True))
    assert world.worker(1).reason == "heartbeat late by 3.0 s, busy with requests"
    world.post(Recovered(attempt=1))
    world.post(Recovered(attempt=1))
    assert len(world.told(Happened.WORKER_STALLED)) == 1
    assert len(world.told(Happened.WORKER_RECOVERED)) == 1
    assert world.worker(1).deadline is None


# --- failures of ready workers --------------------------------------------------------------------


def test_ready_worker_that_reports_failure_and_lives_on_is_ended() -> None:
    """A ready worker that said that it cannot go on has stop_timeout seconds to exit."""
    world = World(size=1, policy=Policy(stop_timeout=3.0)).begin()
    world.post(ReportedFailure(attempt=1, error="RuntimeError: pool of threads is gone"))
    assert next_deadline(world.pool) == world.now + 3.0
    assert world.to_deadline().actions == (Terminate(attempt=1),)
    assert world.worker(1).reason == "did not exit after: RuntimeError: pool of threads is gone"


def test_failing_worker_does_not_gain_a_grace_period_by_a_drain() -> None:
    """A worker whose exit is awaited keeps that deadline when it is drained."""
    world = World(size=1, policy=Policy(stop_timeout=3.0, grace_period=25.0)).begin()
    world.post(ReportedFailure(attempt=1, error="no model"))
    deadline = world.worker(1).deadline
    world.post(STOP)
    assert world.worker(1).state is WorkerState.DRAINING
    assert world.worker(1).deadline == deadline


@pytest.mark.parametrize("answered", [True, False])
def test_exit_that_follows_a_closed_socket_is_judged_by_itself(answered: bool) -> None:
    """When the closed control socket is seen before the exit, the exit still tells the cause."""
    world = World(size=1).begin()
    world.post(LostContact(attempt=1))
    assert not actions_of(world.post(TimePassed()), Terminate)
    world.exit(1, "killed by SIGKILL", foreign=True, answered=answered)
    assert world.slot(0).failures == 0
    assert "killed by SIGKILL from elsewhere while it served" in world.slot(0).reason
    assert not world.told(Happened.WORKER_FAILED)


def test_worker_without_contact_is_ended() -> None:
    """A worker that closed its control socket and lives on is terminated, then killed."""
    world = World(size=1).begin()
    world.post(LostContact(attempt=1))
    world.post(LostContact(attempt=1))
    assert world.to_deadline().actions == (Terminate(attempt=1),)
    assert world.worker(1).reason == "closed its control socket, but lives on"
    assert world.to_deadline().actions == (Kill(attempt=1),)
    world.exit(1, "killed by SIGKILL")
    assert world.slot(0).failures == 1


def test_lost_contact_while_draining_changes_nothing() -> None:
    """A draining worker may close its control socket: it exits, or its deadline ends it."""
    world = World(size=1).begin()
    world.post(STOP)
    before = world.pool
    world.post(LostContact(attempt=1))
    assert world.pool == before


# --- unkillable ---------------------------------------------------------------------------------


def test_worker_that_sigkill_does_not_end_leaves_its_slot() -> None:
    """A process that the kernel holds is killed again, and its slot goes on without it."""
    world = World(size=1).begin()
    world.post(Hung(attempt=1, why="no heartbeat for 30 s"))
    for _ in range(3):
        world.to_deadline()
    assert world.actions[-1:] == [Kill(attempt=1)]
    assert world.worker(1).state is WorkerState.KILLING
    assert world.slot(0).state is SlotState.BACKOFF
    world.to_deadline()
    world.all_ready()
    assert pool_state(world.pool) is PoolState.READY
    world.exit(1, "killed by SIGKILL")
    assert world.slot(0).incumbent == 2


def test_a_slot_with_two_unkillable_processes_is_given_up() -> None:
    """After a second process that SIGKILL does not end, a slot fails: they must not pile up."""
    world = World(size=1, policy=Policy(essential=False)).begin()
    for attempt in (1, 2):
        world.post(Hung(attempt=attempt, why="no heartbeat for 30 s"))
        while not world.worker(attempt).stuck:
            world.to_deadline()
        world.all_ready()
        for _ in range(3):
            world.to_deadline()
            world.all_ready()
    assert world.slot(0).state is SlotState.FAILED
    world.pass_time(1_000.0)
    assert {w.attempt for w in world.workers()} == {1, 2}
    world.exit(1, "killed by SIGKILL")
    world.pass_time(1_000.0)
    assert world.slot(0).incumbent == 3


# --- signals from elsewhere ---------------------------------------------------------------------


def test_foreign_sigterm_is_replaced_without_waiting() -> None:
    """A worker that somebody terminates drains, and its slot gets another one at once."""
    world = World(size=1).begin()
    decision = world.post(BeganLeaving(attempt=1, signal="SIGTERM"))
    assert decision.actions == (Spawn(attempt=2, slot=0, generation=1),)
    assert world.worker(1).state is WorkerState.DRAINING
    assert world.slot(0).reason == "replaces a worker that got SIGTERM from elsewhere"
    world.exit(1, "exit 0")
    assert world.slot(0).incumbent == 2
    assert world.slot(0).failures == 0


# --- shutdown -----------------------------------------------------------------------------------


def test_shutdown_drains_ready_and_ends_starting_workers_at_once() -> None:
    """At shutdown ready workers drain; starting ones have no requests and go in 0.25 s."""
    world = World(size=2, policy=Policy(grace_period=25.0))
    world.post(Began())
    world.ready(1)
    decision = world.post(STOP)
    assert [type(a) for a in decision.actions] == [Drain, Terminate]
    assert world.worker(2).deadline == world.now + 0.25
    assert world.to_deadline().actions == (Kill(attempt=2),)
    assert world.worker(1).state is WorkerState.DRAINING


def test_second_shutdown_kills_at_once() -> None:
    """A second signal kills whatever is left, in any state, once."""
    world = World(size=3)
    world.post(Began())
    world.ready(1)
    world.ready(2)
    world.post(Hung(attempt=2, why="no heartbeat for 30 s"))
    world.post(STOP)
    decision = world.post(STOP_AT_ONCE)
    assert decision.actions == tuple(Kill(attempt=n) for n in (1, 2, 3))
    assert not world.post(STOP_AT_ONCE).actions


def test_nothing_is_started_while_the_daemon_stops() -> None:
    """During shutdown no exit is answered with a new worker, and nothing waits for a slot."""
    world = World(size=3).begin()
    world.exit(2)  # in backoff
    world.post(STOP)
    world.exit(1)
    world.post(BeganLeaving(attempt=3, signal="SIGTERM"))
    world.post(Began())
    world.exit(3)
    assert world.pass_time(1000.0).actions == ()
    assert next_deadline(world.pool) is None
    assert pool_state(world.pool) is PoolState.STOPPED
    assert pool_reason(world.pool) == "drumd stops"
    assert world.told(Happened.POOL_STOPPED) == ["drumd stops"]


def test_spawn_that_fails_during_shutdown_is_no_failed_start() -> None:
    """A spawn that fails after its worker was called off leaves its slot empty."""
    world = World(size=1)
    world.post(Began())
    world.post(STOP)
    world.post(SpawnFailed(attempt=1, error="cannot start: no memory"))
    assert world.slot(0).state is SlotState.EMPTY
    assert not world.pool.workers


def test_shutdown_before_the_pool_began() -> None:
    """A pool that had not begun is stopped at once and stays so."""
    world = World(size=1)
    assert pool_reason(world.pool) == "not started yet"
    world.post(STOP)
    world.post(Began())
    assert pool_state(world.pool) is PoolState.STOPPED
    assert not world.actions


def test_operations_end_with_the_daemon() -> None:
    """Shutdown cancels operations that run, wait, or come too late."""
    world = World(size=2).begin()
    running = world.submit(OperationKind.RESTART)
    queued = world.submit(OperationKind.SCALE, size=4)
    world.post(STOP)
    late = world.submit(OperationKind.START)
    for number in (running, queued, late):
        assert world.finished[number].state is OperationState.CANCELLED
        assert world.finished[number].reason == "drumd stops"
