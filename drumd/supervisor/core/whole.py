"""A pool as a whole: brought up, taken down, and how many slots it has."""

from drumd.supervisor.core import ending, slots
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import Cause, Kind, Slot
from drumd.supervisor.core.views import wanted_slots


def start(draft: Draft, reason: str) -> None:
    """Want the pool up, and forget what its slots have failed at."""
    if draft.pool.closing:
        return
    draft.change(up=True)
    _make_slots(draft, reason)
    for place in (*wanted_slots(draft.pool), *draft.pool.spares, *draft.pool.templates):
        slots.pardon(draft, place, reason)
    draft.tell(Happened.POOL_STARTED, reason)


def stop(draft: Draft, cause: Cause, reason: str) -> None:
    """Want the pool down, and let its workers go."""
    draft.change(up=False, was_whole=False, rollout=None)
    for place in draft.places:
        slots.pardon(draft, place, reason)
    for worker in list(draft.pool.workers.values()):
        ending.retire(draft, worker, cause, reason)


def scale(draft: Draft, size: int, why: str = "", *, forgive: bool = True) -> None:
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
