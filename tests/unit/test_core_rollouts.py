"""Rollouts: a new generation takes over when it works, and nothing is lost when it does not."""

import pytest

from drumd.supervisor.core.actions import Drain, Spawn, Terminate
from drumd.supervisor.core.events import (
    Began,
    BeganLeaving,
    Cancelled,
    Hung,
    ProbeFailed,
    Reconfigured,
    ReportedFailure,
    ShutdownRequested,
    SpawnFailed,
)
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import (
    OperationKind,
    OperationState,
    Policy,
    SlotState,
    Tight,
    WorkerState,
)
from drumd.supervisor.core.views import pool_reason
from tests.unit.core_world import (
    World,
    generations,
    no_room,
    serving,
    settle,
    spawned,
    state,
    told_to,
)

NO_SURGE = Policy(tight=Tight.NO_SURGE)
IN_PLACE = Policy(max_surge=0, max_unavailable=1)


# --- a good release -----------------------------------------------------------------------------


def test_first_new_worker_is_ready_before_an_old_one_drains() -> None:
    """A rollout starts one new worker beside the old ones, and drains nothing until it is ready."""
    world = World(size=3).begin()
    world.actions.clear()
    world.reload()
    assert world.actions == [Spawn(attempt=4, slot=0, generation=2)]
    decision = world.ready(4)
    assert [type(action) for action in decision.actions] == [Drain]
    assert told_to(world, Drain) == [1]
    assert world.told(Happened.ROLLOUT_PROVEN) == ["the first worker of generation 2 is ready"]


def test_first_new_worker_serves_a_while_before_more_are_replaced() -> None:
    """After the first new worker the next one waits for `min_ready`."""
    world = World(size=2, policy=Policy(min_ready=5.0)).begin()
    world.reload()
    world.ready(3)
    world.pass_time(4.9)
    assert len(spawned(world, 2)) == 1
    world.to_deadline()
    assert len(spawned(world, 2)) == 2
    assert world.now == pytest.approx(105.0)


def test_rollout_ends_with_all_slots_new_and_the_old_ones_gone() -> None:
    """A reload is done when all slots serve the new generation and no old worker is left."""
    world = World(size=2, policy=Policy(min_ready=0.0)).begin()
    number = world.reload()
    world.ready(3)
    world.ready(4)
    assert world.pool.generation == 2
    assert world.operation(number).reason == "2 of 2 on generation 2, old ones left: 2"
    world.exit(1, "exit 0")
    world.exit(2, "exit 0")
    assert state(world, number) is OperationState.DONE
    assert world.finished[number].progress == (2, 2)
    assert generations(world) == [2, 2]


def test_surge_starts_as_many_at_a_time_as_allowed() -> None:
    """After the first one, `max_surge` new workers start beside the old ones at a time."""
    world = World(size=5, policy=Policy(max_surge=2, min_ready=0.0)).begin()
    world.reload()
    assert len(world.workers(WorkerState.STARTING)) == 1
    world.ready(6)
    assert len(world.workers(WorkerState.STARTING)) == 2


def test_slow_drains_bound_the_rollout() -> None:
    """However slowly old workers drain, there are never more than two workers for each slot."""
    world = World(size=2, policy=Policy(max_surge=2, min_ready=0.0)).begin()
    for _ in range(4):  # each supersedes the one before, and its workers drain on
        world.reload()
        world.all_ready()
        world.all_ready()
    assert len(world.workers()) <= 2 * 2 + 2


def test_without_surge_old_workers_make_way() -> None:
    """With `max_surge = 0` at most `max_unavailable` slots go without meanwhile."""
    world = World(size=3, policy=IN_PLACE).begin()
    world.actions.clear()
    number = world.reload()
    assert [type(action) for action in world.actions] == [Drain, Spawn]
    assert len(serving(world)) == 2
    settle(world)
    assert state(world, number) is OperationState.DONE
    assert generations(world) == [2, 2, 2]


def test_slot_that_is_down_gets_the_first_new_worker() -> None:
    """A slot without a worker tries the new generation first: nobody has to go for it."""
    world = World(size=2, policy=Policy(backoff_initial=10.0)).begin()
    world.exit(2)
    assert world.slot(1).state is SlotState.BACKOFF
    world.reload()
    assert spawned(world, 2) == [Spawn(attempt=3, slot=1, generation=2)]


def test_failed_slots_are_tried_with_a_generation_that_works() -> None:
    """Slots that had failed get the new generation as soon as its first worker is ready."""
    world = World(size=3, policy=Policy(intensity=0, essential=False))
    world.post(Began())
    for attempt in (1, 2, 3):
        world.exit(attempt, "exit 3")
    assert {slot.state for slot in world.pool.slots} == {SlotState.FAILED}
    number = world.reload()
    assert len(spawned(world, 2)) == 1
    world.ready(4)
    assert len(spawned(world, 2)) == 3
    settle(world)
    assert state(world, number) is OperationState.DONE


def test_of_starting_workers_only_one_makes_way_for_the_first() -> None:
    """While the pool starts, a reload ends one starting worker; events meanwhile end no other."""
    world = World(size=3)
    world.post(Began())
    world.reload()
    for _ in range(3):
        world.pass_time(0.01)
    assert told_to(world, Terminate) == [1]
    world.exit(1, "killed by SIGTERM")
    assert spawned(world, 2) == [Spawn(attempt=4, slot=0, generation=2)]
    assert {worker.attempt for worker in world.workers(WorkerState.STARTING)} == {2, 3, 4}


def test_crash_before_the_first_is_ready_gets_the_old_generation() -> None:
    """While nobody knows whether the new generation works, slots are filled with the old one."""
    world = World(size=2).begin()
    world.reload()
    world.exit(2, answered=True)
    assert world.actions[-1] == Spawn(attempt=4, slot=1, generation=1)


def test_crash_after_the_first_is_ready_gets_the_new_generation() -> None:
    """Once a new worker has been ready, slots are filled with its generation."""
    world = World(size=2).begin()
    world.reload()
    world.ready(3)
    world.exit(2, answered=True)
    assert world.actions[-1] == Spawn(attempt=4, slot=1, generation=2)


def test_reload_of_a_stopped_pool_is_what_it_starts_with() -> None:
    """A pool that is down takes the new generation without starting anything."""
    world = World(size=1).begin()
    world.submit(OperationKind.STOP)
    settle(world)
    number = world.reload()
    assert state(world, number) is OperationState.DONE
    assert not spawned(world, 2)
    world.submit(OperationKind.START)
    assert len(spawned(world, 2)) == 1


def test_pool_without_slots_takes_a_generation_at_once() -> None:
    """A pool of size 0 has nothing to replace."""
    world = World(size=0).begin()
    number = world.reload()
    assert state(world, number) is OperationState.DONE
    assert world.pool.generation == 2


# --- a bad release ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["exits", "cannot spawn", "late", "says so"])
def test_failed_start_aborts_and_no_old_worker_is_touched(fault: str) -> None:
    """A new worker that fails to start aborts the rollout, with its reason; old ones serve on."""
    world = World(size=2).begin()
    world.actions.clear()
    number = world.reload()
    if fault == "exits":
        world.exit(3, "exit 3")
    elif fault == "cannot spawn":
        world.post(SpawnFailed(attempt=3, error="cannot start: no memory"))
    elif fault == "late":
        world.post(ProbeFailed(attempt=3, answer="503"))
        world.to_deadline()
        world.exit(3, "killed by SIGTERM")
    else:
        world.post(ReportedFailure(attempt=3, error="ImportError: no model"))
        world.exit(3, "exit 3")
    assert state(world, number) is OperationState.FAILED
    assert serving(world) == {1, 2}
    assert not told_to(world, Drain)
    settle(world)
    assert serving(world) == {1, 2}
    assert len(spawned(world, 2)) == 1
    reason = world.finished[number].reason
    assert reason.startswith("the rollout to generation 2 was aborted: its worker failed: ")
    said = {
        "exits": "exit 3 before it was ready",
        "cannot spawn": "cannot start: no memory",
        "late": "its startup probe fails: 503",
        "says so": "ImportError: no model",
    }
    assert said[fault] in reason
    assert reason in pool_reason(world.pool)


def test_first_new_worker_that_falls_soon_aborts_although_it_answered() -> None:
    """A release that answers and then crashes takes no other good worker's place."""
    world = World(size=3).begin()
    number = world.reload()
    world.ready(4)
    world.pass_time(0.5)
    world.exit(4, "killed by SIGSEGV", answered=True)
    assert state(world, number) is OperationState.FAILED
    assert serving(world) == {2, 3}
    assert world.actions[-1] == Spawn(attempt=5, slot=0, generation=1)


def test_new_worker_that_falls_late_in_a_rollout_is_replaced_by_its_own() -> None:
    """A new worker that had served for `stable_after` crashes like any other."""
    world = World(size=2, policy=Policy(stable_after=10.0, min_ready=20.0)).begin()
    number = world.reload()
    world.ready(3)
    world.exit(1, "exit 0")
    world.pass_time(11.0)
    world.exit(3, answered=True)
    assert state(world, number) is OperationState.RUNNING
    assert world.actions[-1] == Spawn(attempt=4, slot=0, generation=2)


def test_new_worker_that_hangs_before_it_answered_aborts() -> None:
    """A new worker that is hung without ever having answered speaks against its generation."""
    world = World(size=2).begin()
    number = world.reload()
    world.ready(3)
    world.post(Hung(attempt=3, why="no heartbeat for 30 s"))
    world.exit(3, "killed by SIGTERM")
    assert state(world, number) is OperationState.FAILED
    assert "hung: no heartbeat for 30 s" in world.finished[number].reason


def test_abort_halfway_brings_the_old_generation_back() -> None:
    """New workers that serve stay until old ones take their place, as far as the budget goes."""
    world = World(size=3, policy=Policy(min_ready=0.0)).begin()
    number = world.reload()
    world.ready(4)
    world.exit(1, "exit 0")
    world.exit(5, "exit 3")
    assert state(world, number) is OperationState.FAILED
    assert serving(world) == {4, 2, 3}
    assert world.worker(4).state is WorkerState.READY
    assert world.actions[-1] == Spawn(attempt=6, slot=0, generation=1)
    world.ready(6)
    assert world.worker(4).reason.startswith("replaced by attempt 6: rolled back to generation 1")
    settle(world)
    assert generations(world) == [1, 1, 1]
    assert serving(world) == {6, 2, 3}


def test_rolling_back_what_cannot_start_leaves_the_new_workers() -> None:
    """When old ones cannot start either, the new ones that serve go on, and nobody is hurried."""
    world = World(size=2, policy=Policy(min_ready=0.0, intensity=1)).begin()
    world.reload()
    world.ready(3)
    world.exit(1, "exit 0")
    world.exit(4, "exit 3")
    for _ in range(4):
        for worker in world.workers(WorkerState.STARTING):
            world.exit(worker.attempt, "exit 3")
        assert serving(world) == {3, 2}
        world.to_deadline()
    assert world.slot(0).unrenewed > 1
    assert world.slot(1).incumbent == 2


def test_good_release_after_a_bad_one_rolls_out() -> None:
    """After an abort the next generation is tried at once, and clears the reason."""
    world = World(size=2).begin()
    world.reload()
    world.exit(3, "exit 3")
    assert "aborted" in pool_reason(world.pool)
    number = world.reload()
    settle(world)
    assert state(world, number) is OperationState.DONE
    assert generations(world) == [3, 3]
    assert pool_reason(world.pool) == "2 of 2 ready"


def test_new_workers_that_are_killed_are_tried_again() -> None:
    """A new worker that somebody kills says nothing about its release: another one starts."""
    world = World(size=2, policy=Policy(intensity=4)).begin()
    number = world.reload()
    world.exit(3, "killed by SIGKILL", foreign=True)
    assert state(world, number) is OperationState.RUNNING
    settle(world)
    assert state(world, number) is OperationState.DONE


@pytest.mark.parametrize("down", [False, True])
def test_release_whose_workers_are_killed_again_and_again_is_aborted(*, down: bool) -> None:
    """Kills that go on and on abort: an app may kill itself, and no operation goes on for ever."""
    world = World(size=2, policy=Policy(intensity=2, backoff_initial=10.0)).begin()
    if down:
        world.exit(1)
    number = world.reload()
    for _ in range(3):
        while not world.workers(WorkerState.STARTING):
            world.to_deadline()
        attempt = spawned(world, 2)[-1].attempt
        world.exit(attempt, "killed by SIGKILL", foreign=True)
    assert state(world, number) is OperationState.FAILED
    assert "its workers were killed 3 times" in world.finished[number].reason


def test_kills_that_go_on_abort_a_proven_rollout_too() -> None:
    """Slots that take turns to try a release whose further workers are all killed do not get on."""
    world = World(size=4, policy=Policy(intensity=2)).begin()
    number = world.reload()
    world.ready(5)
    kills = 0
    while number not in world.finished and kills < 10:
        while not world.workers(WorkerState.STARTING):
            world.to_deadline()
        world.exit(world.workers(WorkerState.STARTING)[0].attempt, "killed", foreign=True)
        kills += 1
    assert kills == 3
    assert "its workers were killed 3 times" in world.finished[number].reason


def test_kills_between_which_a_rollout_gets_on_are_counted_anew() -> None:
    """Each slot that serves the release, and goes on to, shows that kills do not stop it."""
    world = World(size=4, policy=Policy(intensity=1)).begin()
    number = world.reload()
    for _ in range(4):
        for good in (False, True):
            while not (starting := world.workers(WorkerState.STARTING)):
                world.to_deadline()
            if good:
                world.ready(starting[0].attempt)
            else:
                world.exit(starting[0].attempt, "killed", foreign=True)
    settle(world)
    assert state(world, number) is OperationState.DONE


def test_release_that_kills_itself_when_it_is_ready_is_aborted() -> None:
    """New workers that get SIGTERM from themselves as soon as they serve do not count as good."""
    world = World(size=2, policy=Policy(intensity=2)).begin()
    number = world.reload()
    for _ in range(3):
        attempt = spawned(world, 2)[-1].attempt
        world.ready(attempt)
        world.exit(attempt, "killed by SIGTERM", foreign=True)
        world.pass_time(0.2)
    assert state(world, number) is OperationState.FAILED
    assert 2 in serving(world)


# --- taken back, superseded, stopped ------------------------------------------------------------


def test_cancelled_reload_ends_its_new_worker_and_no_old_one() -> None:
    """A reload that is taken back before its first worker is ready leaves the pool as it was."""
    world = World(size=2).begin()
    number = world.reload()
    world.post(Cancelled(operation_id=number, by="ann"))
    assert told_to(world, Terminate) == [3]
    settle(world)
    assert serving(world) == {1, 2}
    assert world.finished[number].state is OperationState.CANCELLED
    assert world.pool.aborted.endswith("cancelled by ann")


def test_cancelled_reload_goes_back() -> None:
    """A reload that is taken back halfway brings the old generation back."""
    world = World(size=2, policy=Policy(min_ready=0.0)).begin()
    number = world.reload()
    world.ready(3)
    world.post(Cancelled(operation_id=number, by="ann"))
    settle(world)
    assert generations(world) == [1, 1]
    assert 2 in serving(world)


@pytest.mark.parametrize("policy", [NO_SURGE, IN_PLACE])
@pytest.mark.parametrize("end", ["cancelled", "stopped", "superseded"])
def test_slot_that_waits_for_room_is_not_filled_with_what_was_taken_back(
    policy: Policy, end: str
) -> None:
    """A slot emptied for a generation gets another one when that is not wanted any more."""
    world = World(size=2, policy=policy).begin()
    no_room(world)
    number = world.reload()
    assert world.slot(0).state is SlotState.EMPTY
    assert not spawned(world, 2), "its old worker is still there"
    if end == "cancelled":
        world.post(Cancelled(operation_id=number, by="ann"))
    elif end == "superseded":
        world.reload()
    else:
        world.post(Cancelled(operation_id=number, by="ann"))
        world.submit(OperationKind.STOP)
        settle(world)
        world.submit(OperationKind.START)
    settle(world)
    assert not spawned(world, 2)
    assert generations(world) == ([3, 3] if end == "superseded" else [1, 1])


def test_later_reload_supersedes_the_running_one() -> None:
    """A second reload ends the first at once; its starting worker goes, and no old one does."""
    world = World(size=2).begin()
    first = world.reload()
    second = world.reload()
    assert state(world, first) is OperationState.CANCELLED
    assert world.finished[first].reason == f"superseded by {second}"
    assert told_to(world, Terminate) == [3]
    assert serving(world) == {1, 2}
    settle(world)
    assert state(world, second) is OperationState.DONE
    assert generations(world) == [3, 3]


def test_bad_release_after_a_superseded_one_goes_back_to_what_was() -> None:
    """When the later reload fails, the pool returns to the generation that last was complete."""
    world = World(size=2, policy=Policy(min_ready=0.0)).begin()
    world.reload()
    world.ready(3)
    world.reload()
    world.exit(4, "killed by SIGTERM")  # the next one that was starting
    world.exit(spawned(world, 3)[-1].attempt, "exit 3")
    settle(world)
    assert generations(world) == [1, 1]
    assert 2 in serving(world)


def test_later_reload_leaves_one_that_only_waits_for_old_workers_done() -> None:
    """A reload whose new workers all serve has done its work, whoever comes next."""
    world = World(size=1).begin()
    first = world.reload()
    world.ready(2)
    world.reload()
    assert state(world, first) is OperationState.DONE


def test_only_the_last_of_waiting_reloads_is_carried_out() -> None:
    """Reloads that wait behind another operation give way to the latest."""
    world = World(size=1).begin()
    world.submit(OperationKind.RESTART)
    first, second = world.reload(), world.reload()
    assert state(world, first) is OperationState.CANCELLED
    settle(world)
    assert state(world, second) is OperationState.DONE
    assert not spawned(world, 2)


@pytest.mark.parametrize("ready", [0, 1, 2])
def test_stop_of_the_daemon_ends_a_rollout_at_once(ready: int) -> None:
    """SIGTERM during a rollout drains who serves and ends who starts, in the same step."""
    world = World(size=3, policy=Policy(min_ready=0.0)).begin()
    number = world.reload()
    for attempt in range(4, 4 + ready):
        world.ready(attempt)
    world.post(ShutdownRequested(reason="SIGTERM"))
    assert state(world, number) is OperationState.CANCELLED
    assert not world.workers(WorkerState.STARTING, WorkerState.READY)
    settle(world)
    assert not world.workers()


def test_stop_waits_for_a_rollout_that_runs() -> None:
    """An operator's stop comes after the reload before it, and then nothing is left."""
    world = World(size=2).begin()
    reload, stop = world.reload(), world.submit(OperationKind.STOP)
    settle(world)
    assert state(world, reload) is OperationState.DONE
    assert state(world, stop) is OperationState.DONE
    assert not world.workers()


def test_growth_during_a_rollout_starts_what_works() -> None:
    """Slots that come during a rollout get the old generation until the new one has proved good."""
    world = World(size=1).begin()
    world.reload()
    world.post(Reconfigured(policy=world.pool.policy, size=2))
    assert world.actions[-1] == Spawn(attempt=3, slot=1, generation=1)
    world.ready(2)
    world.post(Reconfigured(policy=world.pool.policy, size=3))
    assert world.actions[-1] == Spawn(attempt=4, slot=2, generation=2)
    settle(world)
    assert generations(world) == [2, 2, 2]


def test_shrinking_onto_the_first_new_worker_sends_another() -> None:
    """When the slot of the only new worker goes, the rollout begins with another one."""
    world = World(size=2, policy=Policy(backoff_initial=10.0)).begin()
    world.exit(2)
    number = world.reload()
    assert spawned(world, 2)[-1].slot == 1
    world.post(Reconfigured(policy=world.pool.policy, size=1))
    settle(world)
    assert state(world, number) is OperationState.DONE
    assert generations(world) == [2]


def test_worker_that_leaves_by_itself_during_a_rollout_is_replaced() -> None:
    """An old worker that somebody tells to go is replaced without waiting for the rollout."""
    world = World(size=2).begin()
    world.reload()
    world.post(BeganLeaving(attempt=2, signal="SIGTERM"))
    assert world.actions[-1] == Spawn(attempt=4, slot=1, generation=1)
