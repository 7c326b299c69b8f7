"""Autoscaling: a pool grows and shrinks by itself, with hysteresis, and says why."""

from dataclasses import replace

from drumd.supervisor.core import whole
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import LoadSeen, Scaling
from drumd.supervisor.core.views import has_room, serves, wanted_slots


def consider(draft: Draft, busy: float, queued: int) -> None:
    """Take a step when the load has been beyond a bound for long enough.

    `busy` is the share of its workers' capacity that the pool uses, `queued` the connections that
    wait for a worker. While some worker is not ready, or an operator's wish is under way, the
    figures say nothing about the size.
    """
    pool = draft.pool
    scaling = pool.policy.scaling
    if scaling is None or not pool.up or pool.closing:
        return
    if pool.operations or not all(serves(pool, slot) for slot in wanted_slots(pool)):
        draft.change(load=replace(pool.load, above_since=None, below_since=None))
        return
    above = busy >= scaling.up_at or queued >= scaling.queue * pool.size
    below = busy <= scaling.down_at and queued == 0
    load = replace(
        pool.load,
        above_since=_since(pool.load.above_since, draft.now) if above else None,
        below_since=_since(pool.load.below_since, draft.now) if below else None,
    )
    draft.change(load=load)
    if load.changed_at is not None and draft.now - load.changed_at < scaling.cooldown:
        return
    if load.above_since is not None and draft.now - load.above_since >= scaling.up_after:
        _grow(draft, scaling, f"busy {busy:.0%}, {queued} waiting for {scaling.up_after:g} s")
    elif load.below_since is not None and draft.now - load.below_since >= scaling.down_after:
        _shrink(draft, scaling, busy)


def _grow(draft: Draft, scaling: Scaling, why: str) -> None:
    pool = draft.pool
    # By half: one at a time is too slow for a rush, and doubling overshoots.
    wish = min(scaling.most, pool.size + max(1, pool.size // 2))
    if wish <= pool.size:
        return  # an operator may have wanted more
    if not has_room(pool) and pool.room is not None:
        draft.change(load=LoadSeen(changed_at=draft.now))
        reason = f"would grow to {wish} ({why}), but memory has no room ({pool.room.why})"
        draft.tell(Happened.DAEMON_NOTICE, reason)
        return
    if pool.room is not None:
        wish = min(wish, pool.size + max(1, pool.room.workers))
    _step(draft, wish, why)


def _shrink(draft: Draft, scaling: Scaling, busy: float) -> None:
    size = draft.pool.size - 1
    if size < scaling.least:
        return
    if size and busy * draft.pool.size / size >= scaling.up_at:
        return  # the rest would be so busy that it grew again
    _step(draft, size, f"busy {busy:.0%} for {scaling.down_after:g} s")


def _step(draft: Draft, size: int, why: str) -> None:
    draft.change(load=LoadSeen(changed_at=draft.now))
    whole.scale(draft, size, why, forgive=False)


def _since(known: float | None, now: float) -> float:
    return now if known is None else known
