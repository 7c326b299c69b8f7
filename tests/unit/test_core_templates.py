"""Preload: a template for each generation forks its workers, and is replaced when it falls."""

import pytest

from drumd.exitcodes import DaemonExit
from drumd.supervisor.core.actions import Drain, EndDaemon, Kill, Spawn, Terminate
from drumd.supervisor.core.events import (
    Began,
    BeganLeaving,
    Cancelled,
    Hung,
    LostContact,
    RecycleDue,
    ReportedFailure,
    ShutdownRequested,
    SpawnFailed,
)
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import (
    Kind,
    OperationKind,
    OperationState,
    Policy,
    PoolState,
    SlotState,
    Worker,
    WorkerState,
)
from drumd.supervisor.core.views import pool_reason, pool_state
from tests.unit.core_world import World, settle

EXIT = "exit 3"


def templates(world: World, *states: WorkerState) -> list[Worker]:
    return [worker for worker in world.workers(*states) if worker.kind is Kind.TEMPLATE]


def spawns(world: World, kind: Kind) -> list[Spawn]:
    return [a for a in world.actions if isinstance(a, Spawn) and a.kind is kind]


def serving(world: World) -> set[int]:
    ready = world.workers(WorkerState.READY)
    return {worker.attempt for worker in ready if worker.kind is Kind.SLOT}


def preloaded(size: int = 2, policy: Policy | None = None) -> World:
    """Return a pool whose template is attempt 1, and whose workers are those after it."""
    return World(size=size, policy=policy, preload=True).begin()


# --- start --------------------------------------------------------------------------------------


def test_workers_wait_for_their_template() -> None:
    """A pool that preloads starts its template alone, and forks all workers when it is ready."""
    world = World(size=2, preload=True)
    world.post(Began())
    assert world.actions == [Spawn(attempt=1, slot=1, generation=1, kind=Kind.TEMPLATE)]
    assert world.slot(0).reason == "waits for the template of generation 1"
    world.ready(1)
    assert world.actions[1:] == [
        Spawn(attempt=2, slot=0, generation=1, template=1),
        Spawn(attempt=3, slot=1, generation=1, template=1),
    ]
    assert world.told(Happened.TEMPLATE_READY)
    assert world.pool.was_ready is False, "a template is nobody who serves"


def test_ready_template_makes_no_pool_ready() -> None:
    """A pool with a ready template and no ready worker is starting."""
    world = World(size=1, preload=True)
    world.post(Began())
    world.ready(1)
    assert pool_state(world.pool) is PoolState.STARTING


def test_template_that_cannot_start_fails_the_slots_and_ends_the_daemon() -> None:
    """A template that fails again and again fails the slots that wait for it, with its reason."""
    world = World(size=2, policy=Policy(intensity=1), preload=True)
    world.post(Began())
    for _ in range(2):
        while not templates(world, WorkerState.STARTING):
            world.to_deadline()
        attempt = templates(world)[0].attempt
        world.post(ReportedFailure(attempt=attempt, error="ImportError: no model"))
        world.exit(attempt, EXIT)
    assert [slot.state for slot in world.pool.slots] == [SlotState.FAILED] * 2
    assert "ImportError: no model" in world.slot(0).reason
    ends = [action for action in world.actions if isinstance(action, EndDaemon)]
    assert [end.code for end in ends] == [DaemonExit.START_FAILED]


def test_template_that_hangs_at_import_ends_at_start_timeout() -> None:
    """A template whose import never ends is ended, and with it a daemon that never served."""
    world = World(size=1, preload=True)
    world.post(Began())
    for _ in range(3):
        world.to_deadline()
    assert Kill(attempt=1) in world.actions
    world.exit(1, "killed by SIGKILL")
    assert world.slot(0).state is SlotState.FAILED
    assert "not ready within start_timeout (60 s)" in world.slot(0).reason
    assert any(isinstance(action, EndDaemon) for action in world.actions)


def test_failed_template_and_its_slots_are_tried_again_together() -> None:
    """After `retry_after` the template is tried again, and the slots wait for it."""
    policy = Policy(intensity=0, essential=False, retry_after=300.0)
    world = World(size=2, policy=policy, preload=True)
    world.post(Began())
    world.exit(1, EXIT)
    assert world.slot(0).retry_at == world.now + 300.0
    assert pool_reason(world.pool).count(EXIT) == 1, "told of template and slots alike"
    world.to_deadline()
    assert [worker.kind for worker in world.workers()] == [Kind.TEMPLATE]
    settle(world)
    assert len(serving(world)) == 2


def test_trouble_with_a_template_is_told_with_the_pool() -> None:
    """What a template waits for is part of the pool's reason."""
    world = preloaded(policy=Policy(backoff_initial=10.0))
    world.exit(1, "killed by SIGSEGV")
    assert pool_state(world.pool) is PoolState.READY
    assert "template of generation 1: waits 5.00 s after: killed by SIGSEGV" in pool_reason(
        world.pool
    )


# --- a template that falls ----------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["killed", "crashes", "hangs", "leaves", "stuck"])
def test_template_that_falls_is_replaced_and_its_workers_serve_on(fault: str) -> None:
    """However a template ends, another one is started, and no worker is touched."""
    world = preloaded()
    if fault == "killed":
        world.exit(1, "killed by SIGKILL", foreign=True)
    elif fault == "crashes":
        world.exit(1, "killed by SIGSEGV")
    elif fault == "leaves":
        world.post(BeganLeaving(attempt=1, signal="SIGTERM"))
    else:
        world.post(Hung(attempt=1, why="does not answer"))
        while 1 in world.pool.workers and not world.worker(1).stuck:
            world.to_deadline()
            if fault == "hangs" and world.worker(1).state is WorkerState.KILLING:
                world.exit(1, "killed by SIGKILL")
    settle(world)
    assert serving(world) == {2, 3}
    assert len(templates(world, WorkerState.READY)) == 1
    assert not any(isinstance(action, Drain) for action in world.actions)


def test_worker_that_crashes_without_a_template_waits_for_the_next_one() -> None:
    """A slot that needs a fork while its template is replaced waits for that, and loses no try."""
    world = preloaded()
    world.exit(1, "killed by SIGKILL", foreign=True)
    world.exit(2, answered=True)
    assert world.slot(0).state is SlotState.EMPTY
    settle(world)
    assert spawns(world, Kind.SLOT)[-1].template == templates(world)[0].attempt
    assert world.slot(0).failures == 0


def test_nobody_is_forked_from_a_template_that_was_lost() -> None:
    """A template that closed its control socket is about to exit: what comes waits for the next."""
    world = preloaded()
    world.post(LostContact(attempt=1))
    world.exit(2, answered=True)
    assert len(spawns(world, Kind.SLOT)) == 2
    world.exit(1, "killed by SIGKILL", foreign=True)
    settle(world)
    assert spawns(world, Kind.SLOT)[-1].template not in (None, 1)


def test_fork_that_failed_with_its_template_does_not_count() -> None:
    """A worker that was not forked since its template is gone has not failed itself."""
    world = preloaded()
    world.exit(2, answered=True)
    assert world.worker(4).template == 1
    world.exit(1, "killed by SIGKILL", foreign=True)
    world.post(SpawnFailed(attempt=4, error="the template ended"))
    assert world.slot(0).failures == 0
    settle(world)
    assert len(serving(world)) == 2


def test_fork_that_a_good_template_refuses_counts() -> None:
    """A worker that a template that lives could not fork is a failed start."""
    world = preloaded()
    world.exit(2, answered=True)
    world.post(SpawnFailed(attempt=4, error="cannot fork: no memory"))
    assert world.slot(0).failures == 1


def test_number_of_a_template_is_not_taken_for_that_of_a_slot() -> None:
    """A slot goes on without a worker that SIGKILL does not end, whatever the template does."""
    world = preloaded()
    for attempt in (1, 3):  # the template of generation 1, and the worker of slot 1
        world.post(Hung(attempt=attempt, why="no heartbeat for 30 s"))
    while not world.worker(3).stuck:
        world.to_deadline()
    assert world.slot(1).incumbent != 3
    settle(world)
    assert len(serving(world)) == 2


def test_templates_are_not_recycled() -> None:
    """A template is never due: it does not serve."""
    world = preloaded()
    world.post(RecycleDue(attempt=1, why="uses 2 GB"))
    assert world.worker(1).outdated == ""
    settle(world)
    assert templates(world)[0].attempt == 1


# --- operations ---------------------------------------------------------------------------------


def test_restart_forks_from_the_template_that_there_is() -> None:
    """A restart with preload gives new workers of the same template, within moments."""
    world = preloaded()
    number = world.submit(OperationKind.RESTART)
    settle(world)
    assert world.operation(number).state is OperationState.DONE
    assert len(spawns(world, Kind.TEMPLATE)) == 1
    assert spawns(world, Kind.SLOT)[-1].template == 1


def test_restart_ends_when_the_template_cannot_be_replaced() -> None:
    """A restart whose template fails for good fails too, and the workers that serve are kept."""
    world = preloaded(policy=Policy(intensity=0))
    world.exit(1, "killed by SIGKILL", foreign=True)
    number = world.submit(OperationKind.RESTART)
    world.exit(templates(world)[0].attempt, EXIT)
    assert world.operation(number).state is OperationState.FAILED
    assert world.operation(number).reason == (
        "the template failed: 1 failure without a stable time; the last one: exit 3 before it was "
        "ready"
    )
    assert serving(world) == {2, 3}
    settle(world)
    assert serving(world) == {2, 3}


def test_start_and_scale_try_a_failed_template_again() -> None:
    """What an operator asks for is tried at once, the template first."""
    world = preloaded(policy=Policy(intensity=0))
    world.exit(1, "killed by SIGSEGV")
    assert world.pool.templates[0].state is SlotState.FAILED
    world.submit(OperationKind.SCALE, size=3)
    assert len(templates(world, WorkerState.STARTING)) == 1
    settle(world)
    assert len(serving(world)) == 3


def test_stop_ends_the_template_too() -> None:
    """A pool that is stopped keeps no template, and does not drain it: it has no connections."""
    world = preloaded()
    number = world.submit(OperationKind.STOP)
    assert Terminate(attempt=1) in world.actions
    settle(world)
    assert world.operation(number).state is OperationState.DONE
    assert not world.pool.templates
    world.submit(OperationKind.START)
    settle(world)
    assert len(serving(world)) == 2


@pytest.mark.parametrize("moment", ["starting", "forking"])
def test_stop_of_the_daemon_while_it_preloads(moment: str) -> None:
    """SIGTERM while the template imports, or its first workers start, ends all of them."""
    world = World(size=2, preload=True)
    world.post(Began())
    if moment == "forking":
        world.ready(1)
    world.post(ShutdownRequested(reason="SIGTERM"))
    assert not world.workers(WorkerState.STARTING, WorkerState.READY)
    settle(world)
    assert not world.workers()


# --- rollouts -----------------------------------------------------------------------------------


def test_rollout_starts_its_template_before_anything_else() -> None:
    """A generation that preloads has its template ready before its first worker is forked."""
    world = preloaded()
    world.actions.clear()
    world.reload(preload=True)
    assert world.actions == [Spawn(attempt=4, slot=2, generation=2, kind=Kind.TEMPLATE)]
    world.pass_time(5.0)
    assert len(world.actions) == 1
    world.ready(4)
    assert world.actions[1:] == [Spawn(attempt=5, slot=0, generation=2, template=4)]


def test_old_template_goes_when_the_rollout_is_complete() -> None:
    """Both templates are kept until all slots serve the new generation; then the old one ends."""
    world = preloaded(policy=Policy(min_ready=0.0))
    world.reload(preload=True)
    world.ready(4)
    world.ready(5)
    assert Terminate(attempt=1) not in world.actions
    world.ready(6)
    assert Terminate(attempt=1) in world.actions
    settle(world)
    assert [place.number for place in world.pool.templates] == [2]


@pytest.mark.parametrize("fault", ["exits", "late", "cannot spawn"])
def test_template_that_cannot_start_aborts_its_rollout(fault: str) -> None:
    """A bad release ends with its template: no worker of it is started, no old one touched."""
    world = preloaded()
    number = world.reload(preload=True)
    if fault == "exits":
        world.post(ReportedFailure(attempt=4, error="SyntaxError: app.py"))
        world.exit(4, EXIT)
    elif fault == "late":
        world.to_deadline()
        world.exit(4, "killed by SIGTERM")
    else:
        world.post(SpawnFailed(attempt=4, error="cannot start: no memory"))
    assert world.operation(number).state is OperationState.FAILED
    assert "aborted: its template failed: " in world.operation(number).reason
    settle(world)
    assert serving(world) == {2, 3}
    assert [place.number for place in world.pool.templates] == [1]
    assert all(spawn.generation == 1 for spawn in spawns(world, Kind.SLOT))


def test_after_an_abort_a_worker_is_replaced_from_its_own_template() -> None:
    """After an aborted rollout, the old generation's template forks what is missing."""
    world = preloaded()
    world.reload(preload=True)
    world.exit(4, EXIT)
    world.exit(2, "killed by SIGKILL", foreign=True)
    world.to_deadline()
    assert world.actions[-1] == Spawn(attempt=5, slot=0, generation=1, template=1)


@pytest.mark.parametrize("moment", ["first", "later"])
def test_template_that_is_killed_during_a_rollout_is_replaced(moment: str) -> None:
    """A kill of the new template says nothing about the release: another one is started."""
    world = preloaded()
    number = world.reload(preload=True)
    world.ready(4)
    if moment == "later":
        world.ready(5)
    world.exit(4, "killed by SIGKILL", foreign=True)
    if moment == "first":
        world.post(SpawnFailed(attempt=5, error="the template ended"))
    assert world.operation(number).state is OperationState.RUNNING
    settle(world)
    assert world.operation(number).state is OperationState.DONE
    assert {worker.generation for worker in world.workers()} == {2}


def test_template_that_is_killed_again_and_again_aborts_its_rollout() -> None:
    """Kills of the new template without end abort: no operation goes on for ever."""
    world = preloaded(policy=Policy(intensity=2))
    number = world.reload(preload=True)
    for _ in range(3):
        while not templates(world, WorkerState.STARTING):
            world.to_deadline()
        attempt = templates(world, WorkerState.STARTING)[0].attempt
        world.exit(attempt, "killed by SIGKILL", foreign=True)
    assert world.operation(number).state is OperationState.FAILED


def test_old_template_that_fails_does_not_fail_slots_that_wait_for_the_new_one() -> None:
    """Once the new generation is good, vacant slots have nothing to do with the old template."""
    world = preloaded(policy=Policy(intensity=1, min_ready=5.0))
    world.exit(1, "killed by SIGSEGV")
    world.to_deadline()
    world.all_ready()
    number = world.reload(preload=True)
    world.all_ready()
    new = templates(world)[-1].attempt
    world.all_ready()
    world.exit(new, "killed by SIGKILL", foreign=True)
    world.exit(3, answered=True)
    assert world.slot(1).state is SlotState.EMPTY
    world.exit(templates(world)[0].attempt, "killed by SIGSEGV")
    assert world.pool.templates[0].state is SlotState.FAILED
    assert world.slot(1).state is SlotState.EMPTY
    settle(world)
    assert world.operation(number).state is OperationState.DONE


@pytest.mark.parametrize("moment", ["template starts", "worker starts", "proven"])
def test_later_reload_ends_the_template_before_it(moment: str) -> None:
    """A reload that supersedes another ends its template; there are never more than two."""
    world = preloaded()
    world.reload(preload=True)
    if moment != "template starts":
        world.ready(4)
    if moment == "proven":
        world.ready(5)
    number = world.reload(preload=True)
    assert Terminate(attempt=4) in world.actions
    settle(world)
    assert world.operation(number).state is OperationState.DONE
    assert [place.number for place in world.pool.templates] == [3]


@pytest.mark.parametrize("moment", ["template starts", "worker starts", "proven"])
def test_cancelled_reload_ends_its_template(moment: str) -> None:
    """A reload that is taken back leaves the old template and its workers."""
    world = preloaded()
    number = world.reload(preload=True)
    if moment != "template starts":
        world.ready(4)
    if moment == "proven":
        world.ready(5)
    world.post(Cancelled(operation_id=number, by="ann"))
    settle(world)
    assert [place.number for place in world.pool.templates] == [1]
    assert {worker.generation for worker in world.workers()} == {1}
    assert 3 in serving(world)


@pytest.mark.parametrize("preload", [True, False])
def test_preload_may_be_switched_by_a_rollout(*, preload: bool) -> None:
    """A rollout to a generation with, or without, preload leaves templates as that wants."""
    world = World(size=2, preload=not preload).begin()
    number = world.reload(preload=preload)
    settle(world)
    assert world.operation(number).state is OperationState.DONE
    assert len(templates(world)) == int(preload)
    assert (spawns(world, Kind.SLOT)[-1].template is not None) == preload
