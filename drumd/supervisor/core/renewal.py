"""Renewal: outdated workers are replaced, within the budget, for whatever reason they are.

A rollout, a rollback, a restart and a recycle all mark workers as outdated; which of them are
replaced, and when, is decided here alone.
"""

from dataclasses import replace

from drumd.supervisor.core import budget, ending, rollouts, slots
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.model import Kind, Pool, Slot, SlotState, Worker, WorkerState
from drumd.supervisor.core.views import (
    first_settles_at,
    incumbent,
    is_unproven,
    outdated,
    ready_template,
    target_generation,
    templated,
    wanted_slots,
)


def renew(draft: Draft) -> None:
    """Start what replaces outdated workers, as far as the budget goes now."""
    draft.change(renewal_at=None)
    if not draft.pool.up or draft.pool.closing:
        return
    _drop_outdated_starts(draft)
    target = target_generation(draft.pool)
    if target in templated(draft.pool) and ready_template(draft.pool, target) is None:
        return  # nothing of the target generation can start yet
    if is_unproven(draft.pool):
        _send_first(draft)
        return
    settled_at = first_settles_at(draft.pool)
    if settled_at is not None and settled_at > draft.now:
        draft.change(renewal_at=settled_at)
        return
    rollouts.get_on(draft)
    for slot in wanted_slots(draft.pool):
        _renew(draft, slot.number)


def _drop_outdated_starts(draft: Draft) -> None:
    """End starting successors, and spares in any state, that nobody wants any more."""
    pool = draft.pool
    target = target_generation(pool)
    for place in draft.places:
        if place.kind is Kind.TEMPLATE:
            continue
        for attempt in (place.successor, place.incumbent if place.kind is Kind.SPARE else None):
            worker = None if attempt is None else draft.worker(attempt)
            if worker is None:
                continue
            why = f"generation {target} is wanted" if worker.generation != target else ""
            if place.kind is Kind.SPARE:
                why = "" if pool.rollout is not None else why or worker.outdated
            if why:  # spares of the old generation may be needed yet while a rollout is on its way
                ending.retire(draft, worker, slots.cause_of(draft, worker), why)


def _send_first(draft: Draft) -> None:
    """Start one worker of an unproven generation, where it takes the least away."""
    pool = draft.pool
    target = target_generation(pool)
    sent = [w for w in pool.workers.values() if w.generation == target and w.kind is Kind.SLOT]
    if any(not worker.stuck for worker in sent):
        return
    free = [slot for slot in wanted_slots(pool) if not slots.is_held(draft, slot)]
    if any(slot.next_generation == target for slot in free):
        return  # it waits for the end of the worker before it
    for slot in free:
        if slot.state is not SlotState.FILLED:
            slot = slots.pardon(draft, slot, _why(pool))  # noqa: PLW2901 - its new value
            draft.put_slot(replace(slot, next_generation=target))
            return
    for slot in free:
        worker = incumbent(pool, slot)
        if worker is not None and worker.state is WorkerState.STARTING:
            # It has no requests, and if it worked this would still be wanted in its place.
            draft.put_slot(replace(slot, next_generation=target))
            ending.retire(draft, worker, slots.cause_of(draft, worker), _why(pool))
            return
    for slot in free:
        if _renew(draft, slot.number):
            return


def _why(pool: Pool) -> str:
    return f"rollout to generation {target_generation(pool)}"


def _renew(draft: Draft, number: int) -> bool:
    """Replace the slot's worker if it is outdated and may be replaced now; say if it was begun."""
    pool = draft.pool
    slot = pool.slots[number]
    worker = incumbent(pool, slot)
    if worker is None or slot.successor is not None or slot.renew_at is not None:
        return False
    why = outdated(pool, worker)
    if why and worker.state is WorkerState.STARTING:
        draft.put_slot(replace(slot, next_generation=target_generation(pool)))
        ending.retire(draft, worker, slots.cause_of(draft, worker), why)
        return True
    return bool(why) and worker.state is WorkerState.READY and _replace(draft, slot, worker, why)


def _replace(draft: Draft, slot: Slot, worker: Worker, why: str) -> bool:
    """Begin to replace a worker that serves, if the budget allows; say so."""
    pool = draft.pool
    target = target_generation(pool)
    if budget.may_start_beside(pool, worker):
        slots.fill(draft, replace(slot, reason=why), why, succeed=True, generation=target)
        return True
    if not budget.may_go_without(pool, worker):
        return False
    reason = f"{why}; its slot goes without meanwhile, as the budget says"
    ending.retire(draft, worker, slots.cause_of(draft, worker), reason)
    draft.vacate(worker)
    left = draft.pool.slots[slot.number]
    draft.put_slot(replace(left, reason=why, next_generation=target))
    return True
