"""Operations: what operators ask of a pool, one at a time, as state that each event carries on."""

from dataclasses import replace

from drumd.supervisor.core import queue, restarts, rollouts, whole
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import (
    Cause,
    Kind,
    Operation,
    OperationKind,
    OperationState,
    Slot,
    SlotState,
)
from drumd.supervisor.core.views import incumbent, serves, target_generation, wanted_slots


def submit(draft: Draft, operation: Operation) -> None:
    """Put an operation at the end of the queue; one that comes too late is taken back at once."""
    draft.change(operations=(*draft.pool.operations, operation))
    queue.tell(draft, Happened.OPERATION_QUEUED, operation)
    if operation.kind is OperationKind.RELOAD:
        _supersede(draft, operation)
    if draft.pool.closing:
        cancel_all(draft, "drumd stops")


def cancel(draft: Draft, operation_id: str, by: str) -> None:
    """Take an operation back; of a running one, what is done stays done."""
    for operation in draft.pool.operations:
        if operation.id == operation_id:
            queue.finish(draft, operation, OperationState.CANCELLED, f"cancelled by {by}")
            if operation.kind is OperationKind.RELOAD:
                rollouts.call_off(draft, operation, by)
            else:
                restarts.call_off(draft, operation)


def cancel_all(draft: Draft, reason: str) -> None:
    """Take all operations back."""
    for operation in draft.pool.operations:
        queue.finish(draft, operation, OperationState.CANCELLED, reason)


def _supersede(draft: Draft, latest: Operation) -> None:
    """Let the latest reload alone be carried out; a running one makes way for it at once."""
    before = [
        operation
        for operation in draft.pool.operations
        if operation.kind is OperationKind.RELOAD and operation.id != latest.id
    ]
    first = draft.pool.operations[0]
    for operation in before:
        state = OperationState.CANCELLED
        if operation.state is OperationState.RUNNING:
            state = rollouts.supersede(draft, operation)
        queue.finish(draft, operation, state, f"superseded by {latest.id}")
    if first in before and first.state is OperationState.RUNNING:
        others = [known for known in draft.pool.operations if known.id != latest.id]
        draft.change(operations=(latest, *others))


def advance(draft: Draft) -> None:
    """Begin the first operation if it waits, and carry it on as far as it goes now."""
    while draft.pool.operations and not draft.pool.closing:
        operation = draft.pool.operations[0]
        if operation.state is OperationState.QUEUED:
            operation = _begin(draft, operation)
            if all(known.id != operation.id for known in draft.pool.operations):
                continue  # it was refused
        match operation.kind:
            case OperationKind.RESTART:
                restarts.carry_on(draft, operation)
            case OperationKind.STOP:
                _carry_on_stop(draft, operation)
            case OperationKind.RELOAD:
                _carry_on_reload(draft, operation)
            case OperationKind.START | OperationKind.SCALE:
                _await_ready(draft, operation)
        if draft.pool.operations and draft.pool.operations[0].id == operation.id:
            return  # it goes on with a later event


# --- beginnings ---------------------------------------------------------------------------------


def _begin(draft: Draft, operation: Operation) -> Operation:
    operation = queue.put(draft, replace(operation, state=OperationState.RUNNING, reason="running"))
    queue.tell(draft, Happened.OPERATION_STARTED, operation)
    match operation.kind:
        case OperationKind.RESTART:
            return restarts.begin(draft, operation)
        case OperationKind.RELOAD:
            _begin_reload(draft, operation)
        case OperationKind.STOP:
            whole.stop(draft, Cause.OPERATOR, f"the pool is stopped by {queue.who(operation)}")
        case OperationKind.START:
            whole.start(draft, f"the pool is started by {queue.who(operation)}")
        case OperationKind.SCALE:
            assert operation.size is not None
            whole.scale(draft, operation.size)
    return operation


def _begin_reload(draft: Draft, operation: Operation) -> None:
    assert operation.generation is not None
    refusal = rollouts.refusal(draft, template=operation.preload) if draft.pool.up else ""
    if refusal:
        queue.finish(draft, operation, OperationState.FAILED, refusal)
        return
    rollouts.begin(draft, operation)
    if not draft.pool.up:  # nobody to replace: it is what the pool will be started with
        rollouts.complete(draft)


# --- reload -------------------------------------------------------------------------------------


def _carry_on_reload(draft: Draft, operation: Operation) -> None:
    pool = draft.pool
    rollout = pool.rollout
    running = rollout is not None and rollout.operation == operation.id
    if not running and pool.generation != operation.generation:
        queue.finish(draft, operation, OperationState.FAILED, pool.aborted or "it was called off")
        return
    slots_ = wanted_slots(pool) if pool.up else ()
    done = [s for s in slots_ if serves(pool, s) and _is_of(draft, s, operation.generation)]
    operation = queue.put(
        draft,
        replace(
            operation,
            progress=(len(done), len(slots_)),
            reason=f"{len(done)} of {len(slots_)} on generation {operation.generation}",
        ),
    )
    if running:
        if len(done) < len(slots_):
            deadlock = rollouts.deadlock(draft)
            if deadlock:
                rollouts.abort(draft, deadlock)
                queue.finish(draft, operation, OperationState.FAILED, draft.pool.aborted)
            return
        rollouts.complete(draft)
    leaving = [
        worker
        for worker in draft.pool.workers.values()
        if worker.kind is Kind.SLOT
        and worker.generation != target_generation(draft.pool)
        and not worker.stuck
    ]
    if leaving:
        queue.put(
            draft, replace(operation, reason=f"{operation.reason}, old ones left: {len(leaving)}")
        )
    else:
        queue.finish(draft, operation, OperationState.DONE, operation.reason)


def _is_of(draft: Draft, slot: Slot, generation: int | None) -> bool:
    worker = incumbent(draft.pool, slot)
    return worker is not None and worker.generation == generation


# --- the others ---------------------------------------------------------------------------------


def _carry_on_stop(draft: Draft, operation: Operation) -> None:
    stuck = sum(worker.stuck for worker in draft.pool.workers.values())
    left = len(draft.pool.workers) - stuck
    if left:
        queue.put(draft, replace(operation, reason=f"workers left: {left}"))
    else:
        reason = f"stopped; SIGKILL has no effect on {stuck} left" if stuck else "stopped"
        queue.finish(draft, operation, OperationState.DONE, reason)


def _await_ready(draft: Draft, operation: Operation) -> None:
    pool = draft.pool
    targets = wanted_slots(pool) if pool.up else ()
    ready = [slot for slot in targets if serves(pool, slot)]
    leaving = [
        worker
        for worker in pool.workers.values()
        if worker.kind is Kind.SLOT and worker.slot >= pool.size and not worker.stuck
    ]
    reason = f"{len(ready)} of {len(targets)} ready" if pool.up else "the pool is stopped"
    if leaving:
        reason += f", workers left above the size: {len(leaving)}"
    operation = queue.put(
        draft, replace(operation, progress=(len(ready), len(targets)), reason=reason)
    )
    failed = next((slot for slot in targets if slot.state is SlotState.FAILED), None)
    if failed is not None:
        queue.finish(
            draft, operation, OperationState.FAILED, f"slot {failed.number}: {failed.reason}"
        )
    elif len(ready) == len(targets) and not leaving:
        queue.finish(draft, operation, OperationState.DONE, reason)
