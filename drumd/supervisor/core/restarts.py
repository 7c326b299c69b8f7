"""Restarts: the workers of some slots are replaced, in the same generation."""

from dataclasses import replace

from drumd.supervisor.core import ending, queue, rollouts, slots
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.model import (
    Cause,
    Kind,
    Operation,
    OperationState,
    Slot,
    SlotState,
    WorkerState,
)
from drumd.supervisor.core.views import incumbent, serves, target_generation, wanted_slots


def begin(draft: Draft, operation: Operation) -> Operation:
    """Mark what is to go; `renewal` replaces it, as the budget allows."""
    refusal = rollouts.refusal(draft, template=False) if draft.pool.up else ""
    if refusal:
        queue.finish(draft, operation, OperationState.FAILED, refusal)
        return operation
    reason = f"restarted by {queue.who(operation)}"
    targets = _targets(draft, operation)
    old = frozenset(slot.incumbent for slot in targets if slot.incumbent is not None)
    for place in draft.pool.templates:
        slots.pardon(draft, place, reason)
    for slot in targets:
        slots.pardon(draft, slot, reason)
        worker = incumbent(draft.pool, slot)
        if worker is None:
            continue
        if worker.state is WorkerState.STARTING:
            ending.retire(draft, worker, Cause.OPERATOR, reason)  # no requests: no need of two
        else:
            draft.put(replace(worker, outdated=reason, outdated_by=Cause.OPERATOR))
    for worker in list(draft.pool.workers.values()):
        if worker.kind is Kind.SPARE and operation.slot is None:  # no newer than what is replaced
            draft.put(replace(worker, outdated=reason, outdated_by=Cause.OPERATOR))
    return queue.put(draft, replace(operation, old=old, progress=(0, len(targets))))


def carry_on(draft: Draft, operation: Operation) -> None:
    """See how far it is; it ends when all old workers are gone, or with the first failure."""
    targets = _targets(draft, operation)
    if not targets:
        size = draft.pool.size
        reason = f"the pool has no slot {operation.slot or 0} (its size is {size})"
        queue.finish(draft, operation, OperationState.FAILED, reason)
        return
    if not draft.pool.up:
        queue.finish(
            draft, operation, OperationState.FAILED, "the pool is stopped: start it instead"
        )
        return
    done = [s for s in targets if serves(draft.pool, s) and s.incumbent not in operation.old]
    leaving = [a for a in operation.old if (w := draft.worker(a)) is not None and not w.stuck]
    progress = (len(done), len(targets))
    if len(done) == len(targets) and not leaving:
        operation = replace(operation, progress=progress)
        queue.finish(
            draft, operation, OperationState.DONE, f"{len(done)} of {len(targets)} restarted"
        )
        return
    operation = queue.put(
        draft,
        replace(
            operation,
            progress=progress,
            reason=f"{progress[0]} of {progress[1]} restarted, old workers left: {len(leaving)}",
        ),
    )
    why = _hopeless(draft, operation, targets)
    if why:
        queue.finish(draft, operation, OperationState.FAILED, why)
        call_off(draft, operation)


def call_off(draft: Draft, operation: Operation) -> None:
    """Let the workers that it would have replaced serve on."""
    for attempt in operation.old:
        worker = draft.worker(attempt)
        slot = None if worker is None else draft.home(worker)
        if worker is None or slot is None or slot.incumbent != attempt or not worker.outdated:
            continue
        draft.put(replace(worker, outdated=""))
        successor = None if slot.successor is None else draft.worker(slot.successor)
        if successor is not None:
            ending.retire(draft, successor, Cause.OPERATOR, "its restart was called off")


def _targets(draft: Draft, operation: Operation) -> list[Slot]:
    return [slot for slot in wanted_slots(draft.pool) if operation.slot in (None, slot.number)]


def _hopeless(draft: Draft, operation: Operation, targets: list[Slot]) -> str:
    """Return why a restart will not get on any more, "" while it may."""
    broken = next((slot for slot in targets if _broken(draft, operation, slot)), None)
    if broken is not None:
        return f"slot {broken.number}: {broken.reason}"
    for place in draft.pool.templates:
        if place.state is SlotState.FAILED and place.number == target_generation(draft.pool):
            return f"the template failed: {place.reason}"
    return rollouts.deadlock(draft)


def _broken(draft: Draft, operation: Operation, slot: Slot) -> bool:
    """Say whether a slot has failed, or its old worker serves on since its successor could not."""
    if slot.state is SlotState.FAILED:
        return True
    worker = incumbent(draft.pool, slot)
    return (
        worker is not None
        and worker.attempt in operation.old
        and worker.state is WorkerState.READY
        and not worker.outdated
    )
