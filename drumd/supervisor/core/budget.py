"""The budget of replacing: how many workers may start beside the others, or end before.

`max_surge` new ones may start beside the old ones, and where that is not possible
`max_unavailable` slots may go without. Draining workers do not count, but bound the whole: there
are never more than two for each slot.
"""

from drumd.supervisor.core.model import Cause, Kind, Pool, Slot, SlotState, Tight, Worker
from drumd.supervisor.core.views import (
    has_room,
    is_unproven,
    ready_spare,
    serves,
    target_generation,
    wanted_slots,
)


def may_start_beside(pool: Pool, worker: Worker) -> bool:
    """Say whether a successor may start, or a spare step in, while the worker serves."""
    starting = sum(slot.successor is not None for slot in pool.slots)
    surges = starting < pool.policy.max_surge and has_room(pool)
    spare = ready_spare(pool, target_generation(pool)) is not None
    return (surges or spare) and _may_go_on(pool, worker)


def may_go_without(pool: Pool, worker: Worker) -> bool:
    """Say whether a slot may lose its worker before the next one is ready."""
    return len(_unserved(pool)) < may_be_down(pool) and _may_go_on(pool, worker)


def may_be_down(pool: Pool) -> int:
    """Return how many slots may be without a ready worker for the sake of replacing workers."""
    allowed = pool.policy.max_unavailable
    return (
        max(1, allowed) if not has_room(pool) and pool.policy.tight is Tight.NO_SURGE else allowed
    )


def _may_go_on(pool: Pool, worker: Worker) -> bool:
    """Say whether the others serve, so that this one may be replaced.

    New workers that fall as soon as they are ready must not replace the last good one. But an
    unproven generation may be what mends the others, and an operator's restart ends by itself when
    one of its slots fails: another one that has is no reason against it.
    """
    alive = sum(w.kind is Kind.SLOT and not w.stuck for w in pool.workers.values())
    if alive >= 2 * pool.size + pool.policy.max_surge:
        return False
    down = _unserved(pool)
    if worker.outdated and worker.outdated_by is Cause.OPERATOR:
        down = [slot for slot in down if slot.state is not SlotState.FAILED]
    return is_unproven(pool) or len(down) <= pool.policy.max_unavailable


def _unserved(pool: Pool) -> list[Slot]:
    return [slot for slot in wanted_slots(pool) if not serves(pool, slot)]
