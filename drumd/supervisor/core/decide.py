"""`decide`: a pool, an event and a moment in; a pool, actions and facts out. No I/O, no clock."""

from dataclasses import dataclass, replace

from drumd.exitcodes import DaemonExit
from drumd.supervisor.core import (
    ending,
    lifecycle,
    operations,
    places,
    renewal,
    scaling,
    slots,
    whole,
)
from drumd.supervisor.core.actions import Action, EndDaemon
from drumd.supervisor.core.draft import Draft, Moment
from drumd.supervisor.core.events import (
    Began,
    Cancelled,
    DeadlinePassed,
    Event,
    LoadMeasured,
    Reconfigured,
    RoomMeasured,
    ShutdownRequested,
    Submitted,
    TimePassed,
    WorkerEvent,
)
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import (
    Cause,
    Operation,
    Pool,
    PoolState,
    SlotState,
    WorkerState,
)
from drumd.supervisor.core.views import pool_reason, pool_state


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from an event: the new pool, what to do in order, and what to tell."""

    pool: Pool
    actions: tuple[Action, ...]
    facts: tuple[Fact, ...]
    finished: tuple[Operation, ...]
    """Operations that ended by this event."""


def decide(pool: Pool, event: Event, moment: Moment) -> Decision:
    """Return what follows from `event`; the same arguments give the same answer."""
    draft = Draft(pool=pool, now=moment.at, chance=moment.chance)
    _take_in(draft, event)
    # One event may let an operation go on, which may empty or open slots, and so on.
    places.fail_what_waits_in_vain(draft)
    operations.advance(draft)
    places.keep(draft)
    renewal.renew(draft)
    slots.fill_empty(draft)
    places.drop_surplus_slots(draft)
    _judge(draft, before=pool)
    return Decision(draft.pool, tuple(draft.actions), tuple(draft.facts), tuple(draft.finished))


def _take_in(draft: Draft, event: Event) -> None:
    match event:
        case WorkerEvent():
            lifecycle.apply(draft, event)
        case TimePassed():
            _look_at_deadlines(draft)
        case Began():
            whole.start(draft, "drumd started")
        case Submitted(operation=operation):
            operations.submit(draft, operation)
        case Cancelled(operation_id=operation_id, by=by):
            operations.cancel(draft, operation_id, by)
        case Reconfigured():
            _reconfigure(draft, event)
        case RoomMeasured(room=room):
            draft.change(room=room)
        case LoadMeasured():
            scaling.consider(draft, event.busy, event.queued)
        case ShutdownRequested():
            _shut_down(draft, event)


def _look_at_deadlines(draft: Draft) -> None:
    for worker in list(draft.pool.workers.values()):
        if worker.deadline is not None and worker.deadline <= draft.now:
            lifecycle.apply(draft, DeadlinePassed(attempt=worker.attempt))
    for place in draft.places:  # only places that are wanted wait for another try
        if place.retry_at is not None and place.retry_at <= draft.now:
            slots.retry(draft, place)
        elif place.renew_at is not None and place.renew_at <= draft.now:
            draft.put_slot(replace(place, renew_at=None))


def _reconfigure(draft: Draft, event: Reconfigured) -> None:
    draft.change(policy=event.policy)
    if event.size is not None and event.size != draft.pool.size:
        whole.scale(draft, event.size, "the config says so")


def _shut_down(draft: Draft, event: ShutdownRequested) -> None:
    operations.cancel_all(draft, "drumd stops")
    draft.change(closing=True)
    whole.stop(draft, Cause.SHUTDOWN, event.reason)
    if not event.at_once:
        return
    for worker in list(draft.pool.workers.values()):
        if worker.state is not WorkerState.KILLING:
            ending.kill(draft, replace(worker, cause=Cause.SHUTDOWN), event.reason)


def _judge(draft: Draft, *, before: Pool) -> None:
    """Tell when the pool as a whole has changed; end the daemon when it is lost."""
    pool = draft.pool
    state, former = pool_state(pool), pool_state(before)
    if state is not former and state in _TOLD:
        # Of a pool that is lost each slot has told its own reason.
        none = f"none of {pool.size} ready, and each slot has failed"
        draft.tell(_TOLD[state], none if state is PoolState.FAILED else pool_reason(pool))
    if state is PoolState.READY:
        draft.change(was_whole=True)
    known = {slot.number for slot in before.slots if slot.state is SlotState.FAILED}
    failed = [s for s in pool.slots if s.state is SlotState.FAILED and s.number not in known]
    if not failed or (pool.added and not pool.was_ready):
        return
    worst = failed[-1]
    lost = state is PoolState.FAILED
    if not (pool.policy.exit_on_exhausted or (lost and pool.policy.essential)):
        return
    if pool.was_ready:
        what = "has no slot left" if lost else f"has lost slot {worst.number}"
        reason = f"pool {pool.name} {what}: {worst.reason}"
        draft.act(EndDaemon(code=DaemonExit.POOL_LOST, reason=reason))
    else:
        reason = f"pool {pool.name} never became ready: {worst.reason}"
        draft.act(EndDaemon(code=DaemonExit.START_FAILED, reason=reason))
    draft.facts = [_without_retry(fact) for fact in draft.facts]


def _without_retry(fact: Fact) -> Fact:
    """Return what is told of a slot that has failed when nothing is tried again."""
    return replace(fact, extra={k: v for k, v in fact.extra.items() if k != "retry_in"})


_TOLD = {
    PoolState.READY: Happened.POOL_READY,
    PoolState.DEGRADED: Happened.POOL_DEGRADED,
    PoolState.FAILED: Happened.POOL_LOST,
    PoolState.STOPPED: Happened.POOL_STOPPED,
}
