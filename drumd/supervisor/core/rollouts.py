"""Rollouts: the way of a pool to a new generation, and back when that does not work."""

from dataclasses import replace

from drumd.supervisor.core import ending, slots
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import (
    Cause,
    Operation,
    OperationState,
    Rollout,
    SlotState,
    Tight,
    Worker,
    WorkerState,
)
from drumd.supervisor.core.views import has_room, incumbent, serves, wanted_slots


def refusal(draft: Draft) -> str:
    """Return why a rollout, or a restart, must not begin for want of memory; else ""."""
    pool = draft.pool
    if has_room(pool) or pool.room is None:
        return ""
    if not any(serves(pool, slot) for slot in wanted_slots(pool)):
        return ""  # nothing would run beside what is to be started
    if pool.policy.tight is Tight.NO_SURGE and not pool.preload:
        return ""
    return (
        f"no memory for another worker ({pool.room.why}); free some, or set rollout.memory to "
        '"no-surge" to end each old worker before its successor starts'
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
        f"generation {draft.pool.generation} to {operation.generation}, by {operation.by}",
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
        if slot.state in (SlotState.BACKOFF, SlotState.FAILED):
            slots.pardon(draft, slot, reason)


def complete(draft: Draft) -> None:
    """Make the rollout's generation the pool's."""
    rollout = draft.pool.rollout
    assert rollout is not None
    draft.change(rollout=None, generation=rollout.generation, preload=rollout.preload, aborted="")
    draft.tell(Happened.ROLLOUT_DONE, f"all slots serve generation {rollout.generation}")


def fail(draft: Draft, worker: Worker, reason: str) -> None:
    """Abort the rollout if it was its worker that failed."""
    rollout = draft.pool.rollout
    if rollout is not None and worker.generation == rollout.generation:
        what = worker.kind.value if worker.kind is not worker.kind.SLOT else "worker"
        abort(draft, f"its {what} failed: {reason}")


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


def supersede(draft: Draft, operation: Operation) -> OperationState:
    """Let go of a running reload for the sake of a later one; return how it ended."""
    rollout = draft.pool.rollout
    if rollout is None or rollout.operation != operation.id:
        return OperationState.DONE  # only old workers are still leaving
    draft.change(rollout=None)
    return OperationState.CANCELLED
