"""Rollouts: the way of a pool to a new generation, and back when that does not work."""

from dataclasses import replace

from drumd.supervisor.core import budget, ending, slots
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import (
    Cause,
    Kind,
    Operation,
    OperationState,
    Pool,
    Rollout,
    SlotState,
    Tight,
    Worker,
    WorkerState,
)
from drumd.supervisor.core.views import (
    first_settles_at,
    has_room,
    incumbent,
    outdated,
    serves,
    wanted_slots,
)

FAILURES = (Cause.CRASH, Cause.FAILED_START, Cause.START_TIMEOUT, Cause.HUNG)
"""Ends that speak against what a worker runs."""


def refusal(draft: Draft, *, template: bool) -> str:
    """Return why workers must not be replaced for want of memory; "" when they may be.

    `template`: a new one has to run beside all the workers first.
    """
    pool = draft.pool
    if has_room(pool) or pool.room is None:
        return ""
    if not any(serves(pool, slot) for slot in wanted_slots(pool)):
        return ""  # nothing would run beside what is to be started
    if template:
        return f"no memory for another template ({pool.room.why}); free some"
    if pool.policy.tight is Tight.NO_SURGE or not pool.policy.max_surge:
        return ""  # each old worker ends before its successor starts
    return (
        f"no memory for another worker ({pool.room.why}); free some, or set rollout.memory to "
        '"no-surge" to end each old worker before its successor starts'
    )


def deadlock(draft: Draft) -> str:
    """Return why nothing can be replaced any more although nobody is under way; else ""."""
    pool = draft.pool
    wanted = wanted_slots(pool)
    failed = [slot for slot in wanted if slot.state is SlotState.FAILED]
    under_way = any(
        worker.state is not WorkerState.READY and not worker.stuck
        for worker in pool.workers.values()
    )
    if under_way or sum(serves(pool, slot) for slot in wanted) + len(failed) < len(wanted):
        return ""
    settled_at = first_settles_at(pool)
    if settled_at is not None and settled_at > draft.now:
        return ""
    held = [slot for slot in failed if slots.is_held(draft, slot)]
    if len(held) < len(failed) and pool.rollout is not None:
        return ""  # the first new worker goes there
    surges = pool.policy.max_surge and has_room(pool)
    if held and len(held) == len(failed) and not _may_get_on(pool):
        reason = f"slot {held[0].number} is given up: {held[0].reason}"
    elif surges or len(failed) < budget.may_be_down(pool):
        reason = ""
    elif failed:
        reason = f"slot {failed[0].number} is down, so no other may be: {failed[0].reason}"
    else:
        reason = refusal(draft, template=False)
    return reason


def _may_get_on(pool: Pool) -> bool:
    """Say whether an outdated worker may be replaced, now or when its slot has waited."""
    return any(
        slot.renew_at is not None
        or budget.may_start_beside(pool, worker)
        or budget.may_go_without(pool, worker)
        for slot in wanted_slots(pool)
        if (worker := incumbent(pool, slot)) is not None and outdated(pool, worker)
    )


def begin(draft: Draft, operation: Operation) -> None:
    """Head for the operation's generation: what has failed until now is tried with it."""
    assert operation.generation is not None
    draft.change(
        rollout=Rollout(
            generation=operation.generation,
            preload=operation.preload,
            operation=operation.id,
        ),
        latest=max(draft.pool.latest, operation.generation),
    )
    for place in draft.places:
        if place.renew_at is not None:
            draft.put_slot(replace(place, renew_at=None, unrenewed=0))
    draft.tell(
        Happened.ROLLOUT_STARTED,
        f"generation {draft.pool.generation} to {operation.generation}, "
        f"by {operation.by or 'an operator'}",
    )


def prove(draft: Draft, worker: Worker) -> None:
    """Take note that the new generation works: vacant slots get it from here on."""
    rollout = draft.pool.rollout
    if rollout is None or rollout.proven or worker.generation != rollout.generation:
        return
    draft.change(rollout=replace(rollout, proven=True))
    reason = f"the first worker of generation {rollout.generation} is ready"
    draft.tell(Happened.ROLLOUT_PROVEN, reason, worker=worker)
    for slot in wanted_slots(draft.pool):
        waits = slot.state in (SlotState.BACKOFF, SlotState.FAILED)
        if waits and not slots.is_held(draft, slot):
            slots.pardon(draft, slot, reason)


def complete(draft: Draft) -> None:
    """Make the rollout's generation the pool's."""
    rollout = draft.pool.rollout
    assert rollout is not None
    draft.change(rollout=None, generation=rollout.generation, preload=rollout.preload, aborted="")
    draft.tell(Happened.ROLLOUT_DONE, f"all slots serve generation {rollout.generation}")


def judge(draft: Draft, worker: Worker, cause: Cause, reason: str, *, answered: bool) -> None:
    """Abort the rollout if the end of one of its workers speaks against it.

    A worker that falls soon does, even after an answer: it must not take more good ones' places.
    One that somebody kills says nothing, unless this goes on and on: it may kill itself.
    """
    rollout = draft.pool.rollout
    if rollout is None or worker.generation != rollout.generation:
        return
    what = "worker" if worker.kind is Kind.SLOT else worker.kind.value
    policy = draft.pool.policy
    served = 0.0 if worker.ready_at is None else draft.now - worker.ready_at
    useful = answered and served >= policy.stable_after
    if cause in FAILURES and not useful:
        abort(draft, f"its {what} failed: {reason}")
    elif cause is Cause.SIGNALLED and not useful:
        killed = rollout.killed + 1
        draft.change(rollout=replace(rollout, killed=killed))
        if killed > policy.intensity:
            abort(draft, f"its workers were killed {killed} times; the last one: {reason}")


def get_on(draft: Draft) -> None:
    """Take note of how far it got: when more slots serve it than ever, kills did not stop it.

    To be called while none of its workers has just become ready. That another start is due says
    nothing: where all are killed, slots take turns to try.
    """
    pool = draft.pool
    rollout = pool.rollout
    if rollout is None:
        return
    workers = [incumbent(pool, slot) for slot in wanted_slots(pool) if serves(pool, slot)]
    serving = sum(w is not None and w.generation == rollout.generation for w in workers)
    if serving > rollout.reached:
        draft.change(rollout=replace(rollout, reached=serving, killed=0))


def abort(draft: Draft, why: str) -> None:
    """Turn back to the generation that the pool had; new workers go when old ones serve."""
    rollout = draft.pool.rollout
    if rollout is None:
        return
    text = f"the rollout to generation {rollout.generation} was aborted: {why}"
    draft.change(rollout=None, aborted=text)
    draft.tell(Happened.ROLLOUT_ABORTED, text)
    for slot in wanted_slots(draft.pool):
        worker = incumbent(draft.pool, slot)
        if (
            worker is not None
            and worker.generation == rollout.generation
            and worker.state is WorkerState.STARTING
        ):
            ending.retire(draft, worker, Cause.ROLLOUT, text)


def call_off(draft: Draft, operation: Operation, by: str) -> None:
    """Abort the rollout that an operation had begun."""
    rollout = draft.pool.rollout
    if rollout is not None and rollout.operation == operation.id:
        abort(draft, f"cancelled by {by}")


def supersede(draft: Draft, operation: Operation) -> OperationState:
    """Let go of a running reload for the sake of a later one; return how it ended."""
    rollout = draft.pool.rollout
    if rollout is None or rollout.operation != operation.id:
        return OperationState.DONE  # only old workers are still leaving
    draft.change(rollout=None)
    return OperationState.CANCELLED
