"""Slots: filling them, and what follows when their worker is gone."""

from dataclasses import replace

from drumd.supervisor.core.actions import Spawn
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import Cause, Slot, SlotState, Worker, WorkerState


def fill(draft: Draft, slot: Slot, reason: str, *, succeed: bool = False) -> Worker:
    """Start a worker in `slot`: as its incumbent, or (`succeed`) beside the one it replaces."""
    pool = draft.pool
    attempt = pool.next_attempt
    worker = Worker(
        attempt=attempt,
        slot=slot.number,
        generation=pool.generation,
        state=WorkerState.STARTING,
        since=draft.now,
        spawned_at=draft.now,
        deadline=draft.now + pool.policy.start_timeout,
        reason=reason,
    )
    draft.change(next_attempt=attempt + 1)
    draft.put(worker)
    slot = replace(
        slot,
        state=SlotState.FILLED,
        since=slot.since if succeed else draft.now,
        reason=reason,
        retry_at=None,
        spawned=slot.spawned + 1,
    )
    draft.put_slot(
        replace(slot, successor=attempt) if succeed else replace(slot, incumbent=attempt)
    )
    draft.act(Spawn(attempt=attempt, slot=slot.number, generation=pool.generation))
    draft.tell(Happened.WORKER_SPAWNED, reason, worker=worker)
    return worker


def fill_empty(draft: Draft) -> None:
    """Start a worker in each wanted slot that is empty and not told to wait."""
    for number in range(min(draft.pool.size, len(draft.pool.slots))):
        slot = draft.pool.slots[number]
        if slot.state is SlotState.EMPTY and draft.wanted(slot):
            fill(draft, slot, slot.reason)


def retry(draft: Draft, slot: Slot) -> None:
    """End the wait of a slot in backoff, or try a failed one again."""
    again = slot.state is SlotState.FAILED
    fill(
        draft,
        replace(slot, probation=again or slot.probation),
        "tried again after it had failed" if again else "tried again after its backoff",
    )


def pardon(draft: Draft, slot: Slot, reason: str) -> Slot:
    """Forget a slot's failures, so that it is filled at once if it waits."""
    slot = replace(slot, crashes=(), failures=0, probation=False)
    if slot.state is not SlotState.FILLED:
        slot = replace(slot, state=SlotState.EMPTY, since=draft.now, reason=reason, retry_at=None)
    return draft.put_slot(slot)


def settle(draft: Draft, worker: Worker, cause: Cause, reason: str, *, answered: bool) -> None:
    """Decide what follows for the slot that its incumbent or successor has just left."""
    slot = draft.pool.slots[worker.slot]
    if slot.state is not SlotState.EMPTY:  # of two workers one is left, and goes on
        draft.put_slot(replace(slot, reason=f"attempt {worker.attempt} ended: {reason}"))
        return
    if not draft.wanted(slot):
        draft.put_slot(replace(slot, since=draft.now, reason=reason))
        return
    slot = _acquit(draft, slot, worker)
    if cause in (Cause.OPERATOR, Cause.SHUTDOWN) or answered:
        # A worker that has answered is worth another one at once: its app works.
        draft.put_slot(replace(slot, since=draft.now, reason=f"replaces a worker: {reason}"))
    elif cause is Cause.SIGNALLED and draft.pool.was_ready:
        # Somebody's kill says nothing about an app that has worked, so it counts for nothing. One
        # that has not may kill itself, or be killed for want of memory where nobody can tell.
        _back_off(draft, slot, draft.chance * draft.pool.policy.backoff_initial, reason)
    else:
        _count(draft, slot, worker, cause, reason)


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
        _fail(draft, slot, f"failed again: {reason}")
    elif cause is Cause.START_TIMEOUT and not draft.pool.was_ready:
        # Nothing of this pool ever worked: the next try would take as long and end the same.
        _fail(draft, slot, reason)
    elif worker.ready_at is None and slot.failures > policy.intensity:
        # Starts may take longer than the period, and would be tried for ever.
        _fail(
            draft,
            slot,
            f"{_count_of(slot.failures, 'failure')} without a stable time; the last one: {reason}",
        )
    elif len(slot.crashes) > policy.intensity:
        _fail(
            draft,
            slot,
            f"{_count_of(len(slot.crashes), 'crash')} within {policy.period:g} s; "
            f"the last one: {reason}",
        )
    else:
        # Full jitter: slots that fell together do not come back together.
        cap = min(policy.backoff_max, policy.backoff_initial * 2 ** (slot.failures - 1))
        _back_off(draft, slot, draft.chance * cap, reason)


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


def _fail(draft: Draft, slot: Slot, reason: str) -> None:
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
        reason,
        slot=slot,
        retry_in=round(draft.pool.policy.retry_after, 1),
    )
