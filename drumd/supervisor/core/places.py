"""Places beside the slots: there are as many as are wanted, and the rest goes."""

from dataclasses import replace

from drumd.supervisor.core import ending, slots
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import Cause, Kind, Slot, SlotState
from drumd.supervisor.core.views import templated, wanted_slots


def keep(draft: Draft) -> None:
    """Have a place for each wanted spare and template; let go of those that nobody wants."""
    if draft.pool.up and not draft.pool.closing:
        known = {(place.kind, place.number) for place in draft.places}
        for number in range(draft.pool.policy.spares):
            if (Kind.SPARE, number) not in known:
                draft.put_slot(_new(draft, Kind.SPARE, number, "a spare is wanted"))
        for generation in sorted(templated(draft.pool)):
            if (Kind.TEMPLATE, generation) not in known:
                reason = f"generation {generation} forks its workers"
                draft.put_slot(_new(draft, Kind.TEMPLATE, generation, reason))
    for place in (*draft.pool.spares, *draft.pool.templates):
        if not draft.wanted(place):
            _let_go(draft, place)


def _new(draft: Draft, kind: Kind, number: int, reason: str) -> Slot:
    return Slot(kind=kind, number=number, since=draft.now, reason=reason)


def _let_go(draft: Draft, place: Slot) -> None:
    workers = [
        worker
        for worker in draft.pool.workers.values()
        if worker.kind is place.kind and worker.slot == place.number
    ]
    for worker in workers:
        cause = worker.cause or Cause.ROLLOUT
        ending.retire(draft, worker, cause, f"no {place.kind.value} is wanted here any more")
    if not workers:
        draft.drop_slot(place)
    elif place.retry_at is not None:
        slots.pardon(draft, place, f"no {place.kind.value} is wanted here any more")


def fail_what_waits_in_vain(draft: Draft) -> None:
    """Fail the vacant slots whose template has failed; they are tried again when it is."""
    for place in draft.pool.templates:
        if place.state is not SlotState.FAILED or place.number != draft.pool.generation:
            continue
        for slot in wanted_slots(draft.pool):
            if slot.state is SlotState.EMPTY and slots.next_one(draft, slot) == place.number:
                reason = f"its template failed: {place.reason}"
                slots.fail(draft, slot, reason, told="its template failed")
                failed = draft.pool.slots[slot.number]
                draft.put_slot(replace(failed, retry_at=place.retry_at))


def drop_surplus_slots(draft: Draft) -> None:
    """Forget slots above the pool's size that have no workers any more."""
    while len(draft.pool.slots) > draft.pool.size:
        last = draft.pool.slots[-1]
        if any(
            worker.slot == last.number and worker.kind is Kind.SLOT
            for worker in draft.pool.workers.values()
        ):
            return
        draft.drop_slot(last)
        draft.tell(Happened.SLOT_RETIRED, last.reason, slot=last)
