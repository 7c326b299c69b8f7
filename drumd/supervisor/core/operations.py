"""Operations: what operators ask of a pool, one at a time, as state that each event carries on."""

from dataclasses import replace

from drumd.supervisor.core import ending, rollouts, slots
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
    WorkerState,
)
from drumd.supervisor.core.views import incumbent, serves, target_generation, wanted_slots

_FINISHED = {
    OperationState.DONE: Happened.OPERATION_DONE,
    OperationState.FAILED: Happened.OPERATION_FAILED,
    OperationState.CANCELLED: Happened.OPERATION_CANCELLED,
}


def submit(draft: Draft, operation: Operation) -> None:
    """Put an operation at the end of the queue; one that comes too late is taken back at once."""
    draft.change(operations=(*draft.pool.operations, operation))
    _tell(draft, Happened.OPERATION_QUEUED, operation)
    if operation.kind is OperationKind.RELOAD:
        _supersede(draft, operation)
    if draft.pool.closing:
        cancel_all(draft, "drumd stops")


def cancel(draft: Draft, operation_id: str, by: str) -> None:
    """Take an operation back; of a running one, what is done stays done."""
    for operation in draft.pool.operations:
        if operation.id == operation_id:
            _finish(draft, operation, OperationState.CANCELLED, f"cancelled by {by}")
            _abandon(draft, operation, by)


def cancel_all(draft: Draft, reason: str) -> None:
    """Take all operations back."""
    for operation in draft.pool.operations:
        _finish(draft, operation, OperationState.CANCELLED, reason)


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
        _finish(draft, operation, state, f"superseded by {latest.id}")
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
                _carry_on_restart(draft, operation)
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
    operation = _put(draft, replace(operation, state=OperationState.RUNNING, reason="running"))
    _tell(draft, Happened.OPERATION_STARTED, operation)
    match operation.kind:
        case OperationKind.RESTART:
            return _begin_restart(draft, operation)
        case OperationKind.RELOAD:
            _begin_reload(draft, operation)
        case OperationKind.STOP:
            stop_pool(draft, Cause.OPERATOR, f"the pool is stopped by {_who(operation)}")
        case OperationKind.START:
            start_pool(draft, f"the pool is started by {_who(operation)}")
        case OperationKind.SCALE:
            assert operation.size is not None
            scale_pool(draft, operation.size)
    return operation


def _begin_reload(draft: Draft, operation: Operation) -> None:
    assert operation.generation is not None
    refusal = rollouts.refusal(draft, template=operation.preload) if draft.pool.up else ""
    if refusal:
        _finish(draft, operation, OperationState.FAILED, refusal)
        return
    rollouts.begin(draft, operation)
    if not draft.pool.up:  # nobody to replace: it is what the pool will be started with
        rollouts.complete(draft)


def start_pool(draft: Draft, reason: str) -> None:
    """Want the pool up, and forget what its slots have failed at."""
    if draft.pool.closing:
        return
    draft.change(up=True)
    _make_slots(draft, reason)
    for place in (*wanted_slots(draft.pool), *draft.pool.spares, *draft.pool.templates):
        slots.pardon(draft, place, reason)
    draft.tell(Happened.POOL_STARTED, reason)


def stop_pool(draft: Draft, cause: Cause, reason: str) -> None:
    """Want the pool down, and let its workers go."""
    draft.change(up=False, was_whole=False, rollout=None)
    for place in draft.places:
        slots.pardon(draft, place, reason)
    for worker in list(draft.pool.workers.values()):
        ending.retire(draft, worker, cause, reason)


def scale_pool(draft: Draft, size: int, why: str = "", *, forgive: bool = True) -> None:
    """Want another size: what is above it goes.

    `forgive`: somebody asked for it, so what has failed below it is tried again.
    """
    before = draft.pool.size
    draft.change(size=size)
    reason = f"the pool is scaled from {before} to {size}{why and ': '}{why}"
    draft.tell(Happened.POOL_SCALED, reason, size=size)
    _make_slots(draft, reason)
    for place in draft.places:
        if forgive or not draft.wanted(place):
            slots.pardon(draft, place, reason)
    for worker in list(draft.pool.workers.values()):
        if worker.kind is Kind.SLOT and worker.slot >= size:
            ending.retire(draft, worker, Cause.OPERATOR, reason)


def _make_slots(draft: Draft, reason: str) -> None:
    missing = range(len(draft.pool.slots), draft.pool.size)
    draft.change(
        slots=(
            *draft.pool.slots,
            *(Slot(number=number, since=draft.now, reason=reason) for number in missing),
        )
    )


# --- restart ------------------------------------------------------------------------------------


def _targets(draft: Draft, operation: Operation) -> list[Slot]:
    return [slot for slot in wanted_slots(draft.pool) if operation.slot in (None, slot.number)]


def _begin_restart(draft: Draft, operation: Operation) -> Operation:
    refusal = rollouts.refusal(draft, template=False) if draft.pool.up else ""
    if refusal:
        _finish(draft, operation, OperationState.FAILED, refusal)
        return operation
    reason = f"restarted by {_who(operation)}"
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
    return _put(draft, replace(operation, old=old, progress=(0, len(targets))))


def _carry_on_restart(draft: Draft, operation: Operation) -> None:
    targets = _targets(draft, operation)
    if not targets:
        size = draft.pool.size
        reason = f"the pool has no slot {operation.slot or 0} (its size is {size})"
        _finish(draft, operation, OperationState.FAILED, reason)
        return
    if not draft.pool.up:
        _finish(draft, operation, OperationState.FAILED, "the pool is stopped: start it instead")
        return
    done = [s for s in targets if serves(draft.pool, s) and s.incumbent not in operation.old]
    leaving = [a for a in operation.old if (w := draft.worker(a)) is not None and not w.stuck]
    progress = (len(done), len(targets))
    if len(done) == len(targets) and not leaving:
        operation = replace(operation, progress=progress)
        _finish(draft, operation, OperationState.DONE, f"{len(done)} of {len(targets)} restarted")
        return
    operation = _put(
        draft,
        replace(
            operation,
            progress=progress,
            reason=f"{progress[0]} of {progress[1]} restarted, old workers left: {len(leaving)}",
        ),
    )
    why = _hopeless(draft, operation, targets)
    if why:
        _finish(draft, operation, OperationState.FAILED, why)
        _abandon(draft, operation, "drumd")


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


# --- reload -------------------------------------------------------------------------------------


def _carry_on_reload(draft: Draft, operation: Operation) -> None:
    pool = draft.pool
    rollout = pool.rollout
    running = rollout is not None and rollout.operation == operation.id
    if not running and pool.generation != operation.generation:
        _finish(draft, operation, OperationState.FAILED, pool.aborted or "it was called off")
        return
    slots_ = wanted_slots(pool) if pool.up else ()
    done = [s for s in slots_ if serves(pool, s) and _is_of(draft, s, operation.generation)]
    operation = _put(
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
                _finish(draft, operation, OperationState.FAILED, draft.pool.aborted)
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
        _put(draft, replace(operation, reason=f"{operation.reason}, old ones left: {len(leaving)}"))
    else:
        _finish(draft, operation, OperationState.DONE, operation.reason)


def _is_of(draft: Draft, slot: Slot, generation: int | None) -> bool:
    worker = incumbent(draft.pool, slot)
    return worker is not None and worker.generation == generation


# --- the others ---------------------------------------------------------------------------------


def _carry_on_stop(draft: Draft, operation: Operation) -> None:
    stuck = sum(worker.stuck for worker in draft.pool.workers.values())
    left = len(draft.pool.workers) - stuck
    if left:
        _put(draft, replace(operation, reason=f"workers left: {left}"))
    else:
        reason = f"stopped; SIGKILL has no effect on {stuck} left" if stuck else "stopped"
        _finish(draft, operation, OperationState.DONE, reason)


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
    operation = _put(draft, replace(operation, progress=(len(ready), len(targets)), reason=reason))
    failed = next((slot for slot in targets if slot.state is SlotState.FAILED), None)
    if failed is not None:
        _finish(draft, operation, OperationState.FAILED, f"slot {failed.number}: {failed.reason}")
    elif len(ready) == len(targets) and not leaving:
        _finish(draft, operation, OperationState.DONE, reason)


def _abandon(draft: Draft, operation: Operation, by: str) -> None:
    """Call off what an operation had begun; workers that serve are left to do so."""
    if operation.kind is OperationKind.RELOAD:
        rollout = draft.pool.rollout
        if rollout is not None and rollout.operation == operation.id:
            rollouts.abort(draft, f"cancelled by {by}")
        return
    for attempt in operation.old:
        worker = draft.worker(attempt)
        slot = None if worker is None else draft.home(worker)
        if worker is None or slot is None or slot.incumbent != attempt or not worker.outdated:
            continue
        draft.put(replace(worker, outdated=""))
        successor = None if slot.successor is None else draft.worker(slot.successor)
        if successor is not None:
            ending.retire(draft, successor, Cause.OPERATOR, "its restart was called off")


def _who(operation: Operation) -> str:
    return operation.by or "an operator"


def _put(draft: Draft, operation: Operation) -> Operation:
    draft.change(
        operations=tuple(
            operation if known.id == operation.id else known for known in draft.pool.operations
        )
    )
    return operation


def _finish(draft: Draft, operation: Operation, state: OperationState, reason: str) -> None:
    operation = replace(operation, state=state, reason=reason)
    draft.change(
        operations=tuple(known for known in draft.pool.operations if known.id != operation.id)
    )
    draft.finished.append(operation)
    _tell(draft, _FINISHED[state], operation)


def _tell(draft: Draft, event: Happened, operation: Operation) -> None:
    what = operation.kind.value
    if operation.slot is not None:
        what += f" slot {operation.slot}"
    if operation.size is not None:
        what += f" to {operation.size}"
    draft.tell(event, f"{what}: {operation.reason}", operation=operation.id, by=operation.by)
