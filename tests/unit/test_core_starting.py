"""Starts, crashes, backoff, and when a slot or a pool is given up."""

import pytest

from drumd.exitcodes import DaemonExit
from drumd.supervisor.core.actions import DumpStacks, EndDaemon, Kill, Spawn, Terminate
from drumd.supervisor.core.events import (
    BecameReady,
    Began,
    BeganLeaving,
    LostContact,
    ReportedFailure,
    SpawnFailed,
    TimePassed,
)
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import Policy, PoolState, SlotState, WorkerState
from drumd.supervisor.core.views import next_deadline, pool_reason, pool_state
from tests.unit.core_world import World, actions_of


def crash_until_failed(world: World, slot: int) -> None:
    """Let every start in a slot fail until the slot is given up."""
    for _ in range(50):
        if world.slot(slot).state is SlotState.FAILED:
            return
        attempt = world.slot(slot).incumbent
        if attempt is None:
            retry_at = world.slot(slot).retry_at
            assert retry_at is not None
            world.now = retry_at
            world.post(TimePassed())
        else:
            world.exit(attempt, "exit 3")
    raise AssertionError(f"never failed: {world.slot(slot)}")


def ended(world: World) -> list[EndDaemon]:
    return [action for action in world.actions if isinstance(action, EndDaemon)]


# --- starting -----------------------------------------------------------------------------------


def test_begin_spawns_each_slot_with_a_deadline() -> None:
    """A pool that begins starts one worker a slot, each with its deadline armed."""
    world = World(size=3)
    decision = world.post(Began())
    assert decision.actions == tuple(Spawn(attempt=n + 1, slot=n, generation=1) for n in range(3))
    assert {w.deadline for w in world.workers()} == {world.now + 60.0}
    assert pool_state(world.pool) is PoolState.STARTING
    assert not world.told(Happened.POOL_READY)


def test_pool_is_ready_with_its_last_worker() -> None:
    """A pool is starting until all its slots are ready for the first time, never degraded."""
    world = World(size=2)
    world.post(Began())
    world.ready(1)
    assert pool_state(world.pool) is PoolState.STARTING
    world.ready(2)
    assert pool_state(world.pool) is PoolState.READY
    assert world.told(Happened.POOL_READY) == ["2 of 2 ready"]
    assert not world.told(Happened.POOL_DEGRADED)


def test_late_start_dumps_stacks_then_terminates_then_kills() -> None:
    """A worker that is not ready in time shows its stacks, gets SIGTERM, then SIGKILL."""
    world = World(size=1)
    world.post(Began())
    kinds = [[type(a) for a in world.to_deadline().actions] for _ in range(3)]
    assert kinds == [[DumpStacks], [Terminate], [Kill]]
    assert world.worker(1).reason == "not ready within start_timeout (60 s); SIGTERM had no effect"


def test_late_ready_message_does_not_revive() -> None:
    """A worker that gets ready after its time has run out goes all the same."""
    world = World(size=1)
    world.post(Began())
    world.to_deadline()
    world.ready(1)
    assert world.worker(1).state is WorkerState.STOPPING


def test_start_fails_with_the_workers_own_words() -> None:
    """What a worker said of its failure is the reason of its slot, whatever the order of news."""
    world = World(size=1)
    world.post(Began())
    world.post(ReportedFailure(attempt=1, error="ImportError: no module named model"))
    world.post(LostContact(attempt=1))
    world.exit(1, "exit 1")
    assert "ImportError: no module named model (exit 1)" in world.slot(0).reason
    assert world.slot(0).state is SlotState.BACKOFF


def test_failure_without_words_has_a_reason() -> None:
    """An exception without a message still leaves a reason."""
    world = World(size=1)
    world.post(Began())
    world.post(ReportedFailure(attempt=1, error=""))
    assert world.told(Happened.WORKER_FAILED) == ["said that it failed, but not why"]


def test_failed_worker_that_does_not_exit_is_ended_as_failed_start() -> None:
    """A worker that reports a failure and lives on is ended, and counts as a failed start."""
    world = World(size=1)
    world.post(Began())
    world.post(ReportedFailure(attempt=1, error="no model"))
    world.ready(1)  # too late
    assert [type(a) for a in world.to_deadline().actions] == [Terminate]
    assert [type(a) for a in world.to_deadline().actions] == [Kill]
    world.exit(1, "killed by SIGKILL", foreign=False)
    assert world.facts[-2].event is Happened.WORKER_EXITED
    assert world.facts[-2].extra["cause"] == "failed-start"
    assert world.slot(0).failures == 1


def test_spawn_that_fails_backs_off() -> None:
    """A process that cannot be started is a failed start."""
    world = World(size=1)
    world.post(Began())
    world.post(SpawnFailed(attempt=1, error="cannot start: no memory"))
    assert world.slot(0).state is SlotState.BACKOFF
    assert "no memory" in world.slot(0).reason


def test_foreign_sigterm_before_ready_is_no_failed_start() -> None:
    """A starting worker that somebody terminates goes at once, and does not count."""
    world = World(size=2).begin()
    world.exit(1, answered=True)
    decision = world.post(BeganLeaving(attempt=3, signal="SIGTERM"))
    assert [type(a) for a in decision.actions] == [Terminate]
    world.exit(3, "exit 0")
    assert world.slot(0).failures == 0
    assert "got SIGTERM from elsewhere" in world.slot(0).reason


# --- backoff ------------------------------------------------------------------------------------


def test_backoff_doubles_up_to_its_cap() -> None:
    """The wait's upper end doubles with each failure in a row, up to backoff_max."""
    policy = Policy(backoff_initial=1.0, backoff_max=5.0, intensity=10)
    world = World(size=2, policy=policy, chance=0.5)
    world.begin()
    delays = []
    for _ in range(5):
        attempt = world.slot(0).incumbent
        assert attempt is not None
        world.exit(attempt)
        retry_at = world.slot(0).retry_at
        assert retry_at is not None
        delays.append(retry_at - world.now)
        world.to_deadline()
    assert delays == pytest.approx([0.5, 1.0, 2.0, 2.5, 2.5])


@pytest.mark.parametrize(("chance", "delay"), [(0.0, 0.0), (0.25, 0.5), (0.999, 1.998)])
def test_jitter_is_full(chance: float, delay: float) -> None:
    """The wait is anywhere between nothing and its upper end, as chance has it."""
    world = World(size=1, policy=Policy(backoff_initial=2.0), chance=chance).begin()
    world.exit(1)
    assert world.slot(0).retry_at == pytest.approx(world.now + delay)


def test_slot_in_backoff_is_filled_when_its_wait_ends_and_not_before() -> None:
    """A slot that waits is filled at its instant."""
    world = World(size=1).begin()
    world.exit(1)
    retry_at = next_deadline(world.pool)
    assert retry_at is not None
    world.now = retry_at - 0.001
    assert not world.post(TimePassed()).actions
    world.now = retry_at
    assert actions_of(world.post(TimePassed()), Spawn)
    assert not world.post(TimePassed()).actions, "once"


def test_stable_worker_clears_the_record() -> None:
    """A crash after stable_after seconds of service is the first of a new row."""
    world = World(size=2, policy=Policy(intensity=2)).begin()
    for _ in range(2):
        world.exit(world.slot(0).incumbent or 0)
        world.to_deadline()
    assert world.slot(0).failures == 2
    world.all_ready()
    world.pass_time(10.0)
    world.exit(world.slot(0).incumbent or 0)
    assert world.slot(0).failures == 1
    assert world.slot(0).state is SlotState.BACKOFF


def test_answered_crash_is_replaced_at_once_and_does_not_count() -> None:
    """A worker that had answered is replaced without a wait, however often it happens."""
    world = World(size=1).begin()
    for attempt in range(1, 30):
        decision = world.exit(attempt, "exit 1", answered=True)
        assert actions_of(decision, Spawn)
        world.ready(attempt + 1)
    assert world.slot(0).failures == 0


def test_exit_zero_is_a_crash() -> None:
    """An exit that drumd did not ask for is a crash, exit 0 included."""
    world = World(size=1).begin()
    world.exit(1, "exit 0")
    assert world.slot(0).failures == 1
    assert "exit 0 while it served" in world.slot(0).reason


def test_foreign_kill_does_not_count() -> None:
    """Workers that somebody kills come back soon, however often, and the slot never fails."""
    world = World(size=1, chance=0.9).begin()
    for _ in range(30):
        world.exit(world.slot(0).incumbent or 0, "killed by SIGKILL", foreign=True)
        retry_at = world.slot(0).retry_at
        assert retry_at is not None
        assert retry_at - world.now <= 0.1
        world.to_deadline()
    assert world.slot(0).failures == 0
    assert not ended(world)


def test_kills_before_anything_worked_count() -> None:
    """A pool whose workers are killed in each start, never ready, is not tried for ever."""
    world = World(size=1)
    world.post(Began())
    for _ in range(5):
        world.exit(world.slot(0).incumbent or 0, "killed by SIGKILL", foreign=True)
        if world.slot(0).state is SlotState.BACKOFF:
            world.to_deadline()
    assert [end.code for end in ended(world)] == [DaemonExit.START_FAILED]


# --- a slot fails -------------------------------------------------------------------------------


def test_crash_loop_fails_the_slot_with_the_reason() -> None:
    """More than `intensity` crashes within `period` fail the slot; the others go on."""
    world = World(size=2).begin()
    for count in range(5):
        assert world.slot(0).state is SlotState.FILLED
        world.exit(world.slot(0).incumbent or 0, "killed by SIGSEGV")
        assert (world.slot(0).state is SlotState.FAILED) == (count == 4)
        if count < 4:
            world.to_deadline()
            world.ready(world.slot(0).incumbent or 0)
    reason = "5 crashes within 60 s; the last one: killed by SIGSEGV while it served"
    assert world.told(Happened.SLOT_FAILED) == [reason]
    assert world.slot(0).reason == reason
    assert pool_state(world.pool) is PoolState.DEGRADED
    assert pool_reason(world.pool) == f"1 of 2 ready; slot 0: {reason}"
    assert not ended(world)


def test_crashes_further_apart_than_the_period_do_not_fail_the_slot() -> None:
    """Crashes that are older than `period` are not counted."""
    policy = Policy(intensity=2, period=60.0, stable_after=100.0)
    world = World(size=2, policy=policy).begin()
    for _ in range(10):
        world.pass_time(31.0)
        world.all_ready()
        world.exit(world.slot(0).incumbent or 0)
        assert world.slot(0).state is SlotState.BACKOFF
        world.to_deadline()
        world.all_ready()


def test_slow_failed_starts_fail_the_slot() -> None:
    """Starts that fail after longer than the period are not tried for ever."""
    world = World(size=2).begin()
    world.exit(1, answered=True)
    for _ in range(5):
        world.pass_time(50.0)
        world.exit(world.slot(0).incumbent or 0, "exit 1")
        if world.slot(0).state is SlotState.BACKOFF:
            world.to_deadline()
    assert world.slot(0).state is SlotState.FAILED
    assert world.slot(0).reason == (
        "5 failures without a stable time; the last one: exit 1 before it was ready"
    )


def test_failed_slot_is_tried_again_on_probation() -> None:
    """A failed slot is tried again after retry_after; one more failure fails it at once."""
    world = World(size=2).begin()
    crash_until_failed(world, 0)
    retry_at = world.slot(0).retry_at
    assert retry_at == world.now + 300.0
    world.to_deadline()
    assert world.slot(0).probation
    world.exit(world.slot(0).incumbent or 0, "exit 3")
    assert world.slot(0).state is SlotState.FAILED
    assert world.slot(0).reason == "failed again: exit 3 before it was ready"


def test_foreign_kill_on_probation_keeps_the_probation() -> None:
    """Somebody's kill neither fails a slot on probation nor ends its probation."""
    world = World(size=2).begin()
    crash_until_failed(world, 0)
    world.to_deadline()
    world.exit(world.slot(0).incumbent or 0, "killed by SIGKILL", foreign=True)
    assert world.slot(0).state is SlotState.BACKOFF
    world.to_deadline()
    world.all_ready()
    world.exit(world.slot(0).incumbent or 0, "exit 3")
    assert world.slot(0).state is SlotState.FAILED


def test_stable_worker_ends_the_probation() -> None:
    """After a stable time on probation the slot has its full credit again."""
    world = World(size=2).begin()
    crash_until_failed(world, 0)
    world.to_deadline()
    world.all_ready()
    world.pass_time(10.0)
    world.exit(world.slot(0).incumbent or 0, "exit 3")
    assert world.slot(0).state is SlotState.BACKOFF
    assert not world.slot(0).probation


# --- a pool is lost -----------------------------------------------------------------------------


def test_pool_that_never_was_ready_ends_the_daemon() -> None:
    """When no slot of a pool ever came up, the daemon ends with 3 and the reason."""
    world = World(size=2)
    world.post(Began())
    crash_until_failed(world, 0)
    assert not ended(world)
    crash_until_failed(world, 1)
    (end,) = ended(world)
    assert end.code is DaemonExit.START_FAILED
    assert end.reason.startswith("pool model never became ready: 5 ")
    assert end.reason.endswith("exit 3 before it was ready")


@pytest.mark.parametrize(
    ("ready_once", "state"), [(False, SlotState.FAILED), (True, SlotState.BACKOFF)]
)
def test_failure_that_another_try_would_repeat_is_final_at_the_start(
    ready_once: bool, state: SlotState
) -> None:
    """A model that cannot be loaded is not loaded five times, unless the pool has served before."""
    world = World(size=1)
    world.post(Began())
    attempt = 1
    if ready_once:
        world.ready(1)
        world.exit(1, "exit 1", answered=True)
        attempt = 2
    world.post(ReportedFailure(attempt=attempt, error="cannot load the model", final=True))
    world.exit(attempt, "exit 1")
    assert world.slot(0).state is state
    assert [end.code for end in ended(world)] == ([] if ready_once else [DaemonExit.START_FAILED])


def test_start_timeout_of_a_pool_that_never_worked_is_final() -> None:
    """A first start that hangs is not tried again: it would take as long and end the same."""
    world = World(size=1)
    world.post(Began())
    world.to_deadline()
    world.exit(1, "killed by SIGTERM")
    (end,) = ended(world)
    assert end.code is DaemonExit.START_FAILED
    assert "not ready within start_timeout (60 s)" in end.reason


@pytest.mark.parametrize("essential", [True, False])
def test_retry_is_told_only_where_there_is_one(essential: bool) -> None:
    """A slot whose failure ends the daemon tells of no next try; one that is tried again does."""
    world = World(size=2, policy=Policy(essential=essential))
    world.post(Began())
    for attempt in (1, 2):
        world.post(ReportedFailure(attempt=attempt, error="cannot load the model", final=True))
        world.exit(attempt)
    failed = [fact.extra for fact in world.facts if fact.event is Happened.SLOT_FAILED]
    assert failed == [{"retry_in": 300.0}, {} if essential else {"retry_in": 300.0}]


def test_reason_of_a_failed_load_is_told_once() -> None:
    """What a worker said of its failure is not repeated by what follows from it in the pool."""
    world = World(size=1, preload=True)
    world.post(Began())
    world.post(ReportedFailure(attempt=1, error="cannot load the model", final=True))
    world.exit(1)
    told = [str(fact.event) for fact in world.facts if "cannot load the model" in fact.reason]
    assert told == ["worker.failed"]
    assert "cannot load the model (exit 1)" in world.slot(0).reason
    assert "cannot load the model (exit 1)" in ended(world)[0].reason


def test_last_slot_of_an_essential_pool_ends_the_daemon() -> None:
    """An essential pool that worked once and has no slot left ends the daemon with 4."""
    world = World(size=2).begin()
    crash_until_failed(world, 0)
    crash_until_failed(world, 1)
    (end,) = ended(world)
    assert end.code is DaemonExit.POOL_LOST
    assert end.reason.startswith("pool model has no slot left: ")
    assert pool_state(world.pool) is PoolState.FAILED
    assert len(world.told(Happened.POOL_LOST)) == 1


@pytest.mark.parametrize("ready_once", [True, False])
def test_pool_that_is_not_essential_never_ends_the_daemon(ready_once: bool) -> None:
    """A pool with essential = false may be lost: it is told, and tried again slowly."""
    world = World(size=1, policy=Policy(essential=False))
    world.post(Began())
    if ready_once:
        world.all_ready()
    crash_until_failed(world, 0)
    assert not ended(world)
    assert world.told(Happened.POOL_LOST)
    world.to_deadline()
    world.all_ready()
    assert pool_state(world.pool) is PoolState.READY


@pytest.mark.parametrize("essential", [True, False])
def test_on_exhausted_exit_ends_with_the_first_failed_slot(essential: bool) -> None:
    """With on_exhausted = "exit" one failed slot ends the daemon."""
    world = World(size=2, policy=Policy(exit_on_exhausted=True, essential=essential)).begin()
    crash_until_failed(world, 1)
    (end,) = ended(world)
    assert end.code is DaemonExit.POOL_LOST
    assert end.reason.startswith("pool model has lost slot 1: ")


def test_ready_after_exit_is_forgotten() -> None:
    """A ready message that was overtaken by the exit of its worker changes nothing."""
    world = World(size=1)
    world.post(Began())
    world.exit(1)
    before = world.pool
    world.post(BecameReady(attempt=1))
    assert world.pool == before


def test_pool_that_starts_with_a_failed_slot_is_degraded() -> None:
    """A pool whose first start leaves a slot behind is degraded, no longer starting."""
    world = World(size=2)
    world.post(Began())
    world.ready(2)
    assert pool_state(world.pool) is PoolState.STARTING
    crash_until_failed(world, 0)
    assert pool_state(world.pool) is PoolState.DEGRADED
