"""Slots: filling them, and what follows when their worker is gone."""

from dataclasses import replace

from drumd.supervisor.core import ending
from drumd.supervisor.core.actions import Spawn
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import Cause, Kind, Slot, SlotState, Worker, WorkerState
from drumd.supervisor.core.views import (
    can_spare,
    has_room,
    outdated,
    ready_spare,
    ready_template,
    target_generation,
    templated,
    vacancy_generation,
)

ASKED_FOR = (Cause.OPERATOR, Cause.SHUTDOWN, Cause.ROLLOUT, Cause.RECYCLED)
"""Ends that drumd wanted: they say nothing about what the worker ran."""


def fill(
    draft: Draft, slot: Slot, reason: str, *, succeed: bool = False, generation: int | None = None
) -> None:
    """Have a worker in `slot`: as its incumbent, or (`succeed`) beside the one it replaces.

    A ready spare takes the slot at once. What is forked from a template waits until that is ready.
    """
    pool = draft.pool
    if generation is None:
        generation = next_one(draft, slot)
    if slot.kind is Kind.SLOT and (spare := ready_spare(pool, generation)) is not None:
        _promote(draft, slot, spare)
        return
    template = None
    if slot.kind is not Kind.TEMPLATE and generation in templated(pool):
        template = ready_template(pool, generation)
        if template is None:
            draft.put_slot(
                replace(slot, reason=f"waits for the template of generation {generation}")
            )
            return
    _start(draft, slot, reason, succeed=succeed, generation=generation, template=template)


def _start(
    draft: Draft,
    slot: Slot,
    reason: str,
    *,
    succeed: bool,
    generation: int,
    template: Worker | None,
) -> None:
    pool = draft.pool
    attempt = pool.next_attempt
    worker = Worker(
        attempt=attempt,
        kind=slot.kind,
        slot=slot.number,
        generation=generation,
        state=WorkerState.STARTING,
        since=draft.now,
        spawned_at=draft.now,
        deadline=draft.now + pool.policy.start_timeout,
        reason=reason,
        template=None if template is None else template.attempt,
    )
    draft.change(next_attempt=attempt + 1)
    if pool.room is not None and slot.kind is not Kind.TEMPLATE:  # as far as is known for now
        draft.change(room=replace(pool.room, workers=pool.room.workers - 1))
    draft.put(worker)
    slot = replace(
        slot,
        state=SlotState.FILLED,
        since=slot.since if succeed else draft.now,
        reason=reason,
        retry_at=None,
        renew_at=None,
        next_generation=None,
        spawned=slot.spawned + 1,
    )
    draft.put_slot(
        replace(slot, successor=attempt) if succeed else replace(slot, incumbent=attempt)
    )
    draft.act(
        Spawn(
            attempt=attempt,
            slot=slot.number,
            generation=generation,
            kind=slot.kind,
            template=None if template is None else template.attempt,
        )
    )
    draft.tell(Happened.WORKER_SPAWNED, reason, worker=worker)


def next_one(draft: Draft, slot: Slot) -> int:
    """Return the generation that an empty place is filled with."""
    if slot.kind is Kind.TEMPLATE:
        return slot.number
    if slot.next_generation == target_generation(draft.pool):
        return slot.next_generation
    return vacancy_generation(draft.pool)  # what it was to have next is not wanted any more


def _promote(draft: Draft, slot: Slot, spare: Worker) -> None:
    """Give `slot` to a ready spare: as its incumbent, or in place of the one that it has."""
    draft.vacate(spare)
    spare = draft.put(replace(spare, kind=Kind.SLOT, slot=slot.number))
    reason = f"a spare took slot {slot.number}: {slot.reason}"
    draft.tell(Happened.SPARE_PROMOTED, reason, worker=spare)
    if slot.incumbent is not None:
        succeed(draft, replace(slot, successor=spare.attempt), spare)
        return
    draft.put_slot(
        replace(
            slot,
            state=SlotState.FILLED,
            since=draft.now,
            reason=reason,
            incumbent=spare.attempt,
            retry_at=None,
            renew_at=None,
            next_generation=None,
        )
    )


def succeed(draft: Draft, slot: Slot, worker: Worker) -> None:
    """Have the ready successor take the slot; what it replaces goes."""
    before = None if slot.incumbent is None else draft.worker(slot.incumbent)
    draft.put_slot(
        replace(
            slot,
            incumbent=worker.attempt,
            successor=None,
            since=draft.now,
            reason=worker.reason,
            unrenewed=0,
        )
    )
    if before is None:
        return
    why = outdated(draft.pool, before)
    reason = f"replaced by attempt {worker.attempt}" + (f": {why}" if why else "")
    ending.retire(draft, before, cause_of(draft, before), reason)


def cause_of(draft: Draft, worker: Worker) -> Cause:
    """Return what an outdated worker's end is counted as."""
    if worker.generation != target_generation(draft.pool):
        return Cause.ROLLOUT
    return worker.outdated_by


def fill_empty(draft: Draft) -> None:
    """Start a worker in each wanted place that is empty and not told to wait.

    A slot in backoff takes a spare at once: that is up, so there is no start to wait with.
    """
    for kind, number in [(place.kind, place.number) for place in draft.places]:
        place = draft.place(kind, number)  # as it is now: the spare before may have gone from it
        if place is None or not draft.wanted(place):
            continue
        if place.state is SlotState.EMPTY:
            if not _must_wait(draft, place):
                fill(draft, place, place.reason)
        elif place.state is SlotState.BACKOFF and place.kind is Kind.SLOT:
            spare = ready_spare(draft.pool, next_one(draft, place))
            if spare is not None:
                _promote(draft, place, spare)


def _must_wait(draft: Draft, place: Slot) -> bool:
    """Say whether the place stays empty for now."""
    pool = draft.pool
    if place.kind is Kind.SPARE:
        return not can_spare(pool)
    if place.kind is Kind.SLOT and not has_room(pool):
        # Two would not fit, so the new one waits for the old one's end, which has a deadline.
        return any(
            worker.slot == place.number and worker.kind is Kind.SLOT and not worker.stuck
            for worker in pool.workers.values()
        )
    return False


def is_held(draft: Draft, slot: Slot) -> bool:
    """Say whether so many of its processes resist SIGKILL that it had better start no more."""
    stuck = [
        worker
        for worker in draft.pool.workers.values()
        if worker.stuck and (worker.kind, worker.slot) == (slot.kind, slot.number)
    ]
    return len(stuck) > 1


def retry(draft: Draft, slot: Slot) -> None:
    """End the wait of a place in backoff, or try a failed one again."""
    again = slot.state is SlotState.FAILED
    if again and is_held(draft, slot):
        draft.put_slot(replace(slot, retry_at=draft.now + draft.pool.policy.retry_after))
        return
    draft.put_slot(
        replace(
            slot,
            state=SlotState.EMPTY,
            retry_at=None,
            probation=again or slot.probation,
            reason="tried again after it had failed" if again else "tried again after its backoff",
        )
    )


def pardon(draft: Draft, slot: Slot, reason: str) -> Slot:
    """Forget a slot's failures, so that it is filled at once if it waits."""
    slot = replace(slot, crashes=(), failures=0, probation=False, renew_at=None, unrenewed=0)
    if slot.state is not SlotState.FILLED:
        slot = replace(slot, state=SlotState.EMPTY, since=draft.now, reason=reason, retry_at=None)
    return draft.put_slot(slot)


def settle(draft: Draft, worker: Worker, cause: Cause, reason: str, *, answered: bool) -> None:
    """Decide what follows for the slot that its incumbent or successor has just left."""
    slot = draft.home(worker)
    if slot is None:
        return
    if slot.state is not SlotState.EMPTY:  # of two workers one is left, and goes on
        _leave_be(draft, slot, worker, cause, reason)
        return
    if not draft.wanted(slot):
        draft.put_slot(replace(slot, since=draft.now, reason=reason))
        return
    slot = _acquit(draft, slot, worker)
    if cause in ASKED_FOR or answered:
        # A worker that has answered is worth another one at once: its app works.
        draft.put_slot(replace(slot, since=draft.now, reason=f"replaces a worker: {reason}"))
    elif cause is Cause.SIGNALLED and draft.pool.was_ready:
        # Somebody's kill says nothing about an app that has worked, so it counts for nothing. One
        # that has not may kill itself, or be killed for want of memory where nobody can tell.
        _back_off(draft, slot, draft.chance * draft.pool.policy.backoff_initial, reason)
    else:
        _count(draft, slot, worker, cause, reason)


def _leave_be(draft: Draft, slot: Slot, worker: Worker, cause: Cause, reason: str) -> None:
    """Let the one worker that is left of two serve on; the next successor has to wait."""
    slot = replace(slot, reason=f"attempt {worker.attempt} ended: {reason}")
    if cause in ASKED_FOR or not draft.wanted(slot):
        draft.put_slot(slot)
        return
    slot = replace(slot, unrenewed=slot.unrenewed + 1)
    delay = _delay(draft, slot.unrenewed)
    if slot.unrenewed > draft.pool.policy.intensity:
        delay = draft.pool.policy.retry_after
    draft.put_slot(replace(slot, renew_at=draft.now + delay))
    left = None if slot.incumbent is None else draft.worker(slot.incumbent)
    if left is not None and left.outdated_by is Cause.OPERATOR:
        draft.put(replace(left, outdated=""))  # its restart has failed


def _delay(draft: Draft, failures: int) -> float:
    """Return a wait with full jitter: slots that fell together do not come back together."""
    policy = draft.pool.policy
    cap = min(policy.backoff_max, policy.backoff_initial * 2 ** (failures - 1))
    return float(draft.chance * cap)


def _acquit(draft: Draft, slot: Slot, worker: Worker) -> Slot:
    served = worker.ready_at is not None and (
        draft.now - worker.ready_at >= draft.pool.policy.stable_after
    )
    if not served:
        return slot
    return draft.put_slot(replace(slot, crashes=(), failures=0, probation=False))


def _count(draft: Draft, slot: Slot, worker: Worker, cause: Cause, reason: str) -> None:
    policy = draft.pool.policy
    recent = tuple(at for at in slot.crashes if draft.now - at < policy.period)
    slot = draft.put_slot(replace(slot, crashes=(*recent, draft.now), failures=slot.failures + 1))
    if slot.probation:
        fail(draft, slot, f"failed again: {reason}")
    elif worker.final and not draft.pool.was_ready:
        # Nothing of this pool ever worked: the next try would take as long and end the same.
        fail(draft, slot, reason, told="given up without another try, which would end the same")
    elif cause is Cause.START_TIMEOUT and not draft.pool.was_ready:
        # For the same reason; an operator reads this one last.
        fail(draft, slot, f"{reason}; to let it take longer, set {policy.raised_by}")
    elif worker.ready_at is None and slot.failures > policy.intensity:
        # Starts may take longer than the period, and would be tried for ever.
        fail(
            draft,
            slot,
            f"{_count_of(slot.failures, 'failure')} without a stable time; the last one: {reason}",
        )
    elif len(slot.crashes) > policy.intensity:
        fail(
            draft,
            slot,
            f"{_count_of(len(slot.crashes), 'crash')} within {policy.period:g} s; "
            f"the last one: {reason}",
        )
    else:
        _back_off(draft, slot, _delay(draft, slot.failures), reason)


def _back_off(draft: Draft, slot: Slot, delay: float, reason: str) -> None:
    text = f"waits {delay:.2f} s after: {reason}"
    slot = draft.put_slot(
        replace(
            slot,
            state=SlotState.BACKOFF,
            since=draft.now,
            reason=text,
            retry_at=draft.now + delay,
        )
    )
    draft.tell(Happened.SLOT_BACKOFF, text, slot=slot, failures=slot.failures)


def _count_of(number: int, what: str) -> str:
    ending = "" if number == 1 else "es" if what.endswith("sh") else "s"
    return f"{number} {what}{ending}"


def fail(draft: Draft, slot: Slot, reason: str, *, told: str = "") -> None:
    """Give a place up for now. `told`: instead of a reason that has just been told."""
    slot = draft.put_slot(
        replace(
            slot,
            state=SlotState.FAILED,
            since=draft.now,
            reason=reason,
            retry_at=draft.now + draft.pool.policy.retry_after,
            probation=False,
        )
    )
    draft.tell(
        Happened.SLOT_FAILED,
        told or reason,
        slot=slot,
        retry_in=round(draft.pool.policy.retry_after, 1),
    )
