"""A worker's life as a table: every pair of state and event is decided here, by name.

docs/states.md shows the same table; `EXITED` stands for attempts that are gone, whose late
messages and timers change nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from drumd.supervisor.core import ending, rollouts, slots
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.events import (
    BecameReady,
    BeganLeaving,
    DeadlinePassed,
    Drained,
    Exited,
    Hung,
    LostContact,
    ProbeFailed,
    Recovered,
    RecycleDue,
    ReportedFailure,
    SpawnFailed,
    Stalled,
    WorkerEvent,
)
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import Cause, Kind, Rung, SlotState, Worker, WorkerState

Handler = Callable[[Draft, Worker, WorkerEvent], None]

S, R, D, T, K, X = WorkerState


def apply(draft: Draft, event: WorkerEvent) -> None:
    """Carry out what the table says."""
    worker = draft.worker(event.attempt)
    if worker is None:
        return  # row EXITED: the attempt is over
    TABLE[worker.state, type(event)](draft, worker, event)


def ignore(_draft: Draft, _worker: Worker, _event: WorkerEvent) -> None:
    """Nothing follows: the event is late, or adds nothing to what is known."""


# --- starting -----------------------------------------------------------------------------------


def become_ready(draft: Draft, worker: Worker, _event: WorkerEvent) -> None:
    """It serves from now on; as a successor it takes the slot, and the incumbent drains."""
    if worker.overdue:
        return  # it has failed meanwhile, so its exit is what matters
    took = draft.now - worker.spawned_at
    worker = draft.transition(
        worker,
        WorkerState.READY,
        f"ready after {took:.2f} s",
        deadline=None,
        event=Happened.WORKER_READY,
        told={"took": round(took, 3)},
        ready_at=draft.now,
    )
    if worker.kind is Kind.TEMPLATE:
        return
    draft.change(was_ready=True)
    rollouts.prove(draft, worker)
    slot = draft.home(worker)
    if slot is not None and slot.successor == worker.attempt:
        slots.succeed(draft, slot, worker)


def note_probe(draft: Draft, worker: Worker, event: WorkerEvent) -> None:
    """Keep what its probe was answered, for the case that it is never answered better."""
    assert isinstance(event, ProbeFailed)
    draft.put(replace(worker, waiting=f"its startup probe fails: {event.answer}"))


def fail_spawn(draft: Draft, worker: Worker, event: WorkerEvent) -> None:
    """There was no process: as if it had exited at once."""
    assert isinstance(event, SpawnFailed)
    template = None if worker.template is None else draft.worker(worker.template)
    orphaned = worker.template is not None and (
        template is None or template.overdue or template.state is not WorkerState.READY
    )
    # The end of its template is judged by itself; it says nothing about what it would have forked.
    cause = Cause.SIGNALLED if orphaned else Cause.FAILED_START
    _gone(draft, worker, worker.cause or cause, event.error, answered=False)


def time_out_start(draft: Draft, worker: Worker, _event: WorkerEvent) -> None:
    """It took too long to get ready: its stacks tell where it is, then it goes."""
    if worker.overdue:
        end_overdue(draft, worker, _event)
        return
    limit = draft.pool.policy.start_timeout
    reason = f"not ready within start_timeout ({limit:g} s)"
    if worker.waiting:
        reason += f"; {worker.waiting}"
    longer = f"to let it take longer, set {draft.pool.policy.raised_by}"
    draft.tell(Happened.WORKER_FAILED, f"{reason}; {longer}", worker=worker)
    ending.descend(draft, replace(worker, cause=Cause.START_TIMEOUT, ladder=ending.STUCK), reason)


def call_off(draft: Draft, worker: Worker, event: WorkerEvent) -> None:
    """Somebody told it to go before it had any requests: nothing is worth waiting for."""
    assert isinstance(event, BeganLeaving)
    reason = f"got {event.signal} from elsewhere before it was ready"
    ending.descend(draft, replace(worker, cause=Cause.SIGNALLED, ladder=ending.GRACEFUL), reason)


# --- ready --------------------------------------------------------------------------------------


def note_stall(draft: Draft, worker: Worker, event: WorkerEvent) -> None:
    """It gets no new connections; a sibling adopts its queue (see `views`)."""
    assert isinstance(event, Stalled)
    why = "busy with requests" if event.busy else "without a request in flight"
    reason = f"heartbeat late by {event.late:.1f} s, {why}"
    if not worker.stalled:
        draft.tell(Happened.WORKER_STALLED, reason, worker=worker)
    draft.put(replace(worker, stalled=True, reason=reason))


def note_recovery(draft: Draft, worker: Worker, _event: WorkerEvent) -> None:
    """It serves as before."""
    if worker.stalled:
        worker = draft.put(replace(worker, stalled=False, reason="heartbeat is back"))
        draft.tell(Happened.WORKER_RECOVERED, worker.reason, worker=worker)


def note_age(draft: Draft, worker: Worker, event: WorkerEvent) -> None:
    """It is replaced when its turn comes."""
    assert isinstance(event, RecycleDue)
    if worker.outdated or worker.kind is Kind.TEMPLATE:
        return
    worker = draft.put(replace(worker, outdated=event.why, outdated_by=Cause.RECYCLED))
    refusal = rollouts.refusal(draft, template=False)
    if refusal:
        reason = f"{event.why}, but it cannot be replaced yet: {refusal}"
        draft.tell(Happened.DAEMON_NOTICE, reason, worker=worker)


def end_hung(draft: Draft, worker: Worker, event: WorkerEvent) -> None:
    """Its stacks first, so that somebody can find out why; then it goes."""
    assert isinstance(event, Hung)
    draft.tell(Happened.WORKER_HUNG, event.why, worker=worker)
    ending.descend(
        draft, replace(worker, cause=Cause.HUNG, ladder=ending.STUCK), f"hung: {event.why}"
    )


def let_leave(draft: Draft, worker: Worker, event: WorkerEvent) -> None:
    """Somebody told it to go: it drains, and the slot gets another one without waiting for it."""
    assert isinstance(event, BeganLeaving)
    reason = f"got {event.signal} from elsewhere"
    ending.drain(draft, worker, Cause.SIGNALLED, reason, tell_worker=False)
    draft.vacate(worker)
    slot = draft.home(worker)
    if slot is not None and slot.state is SlotState.EMPTY:
        draft.put_slot(replace(slot, reason=f"replaces a worker that {reason}"))


# --- ending -------------------------------------------------------------------------------------


def lose_contact(draft: Draft, worker: Worker, _event: WorkerEvent) -> None:
    """It is of no use any more; mostly it is exiting, and its exit then says more than this."""
    if not worker.overdue:
        overdue = "closed its control socket, but lives on"
        ending.expect_exit(draft, worker, ending.CONTACT_PATIENCE, overdue)


def note_failure(draft: Draft, worker: Worker, event: WorkerEvent) -> None:
    """Keep what it says for the reason of its exit, which has to follow soon."""
    assert isinstance(event, ReportedFailure)
    failure = event.error or "said that it failed, but not why"
    worker = replace(worker, failure=failure, final=event.final)
    patience = draft.pool.policy.stop_timeout
    worker = ending.expect_exit(draft, worker, patience, f"did not exit after: {failure}")
    draft.tell(Happened.WORKER_FAILED, failure, worker=worker)


def expect_exit(draft: Draft, worker: Worker, _event: WorkerEvent) -> None:
    """It is drained, so its exit has to follow soon."""
    patience = draft.pool.policy.stop_timeout
    ending.expect_exit(draft, worker, patience, "did not exit after it had drained")


def end_overdue(draft: Draft, worker: Worker, _event: WorkerEvent) -> None:
    """It failed or cannot be reached, and yet did not exit."""
    cause = Cause.FAILED_START if worker.ready_at is None else Cause.CRASH
    reason = worker.overdue
    if not worker.failure:  # what it said itself has been told
        draft.tell(Happened.WORKER_FAILED, reason, worker=worker)
    ending.descend(draft, replace(worker, cause=cause, ladder=ending.GRACEFUL), reason)


def end_late(draft: Draft, worker: Worker, _event: WorkerEvent) -> None:
    """Its patience is over: the next rung."""
    reason = worker.reason
    if worker.state is WorkerState.DRAINING:
        limit = draft.pool.policy.grace_period
        overdue = worker.overdue or f"did not finish within its grace period ({limit:g} s)"
        reason = f"{reason}; {overdue}"
    elif worker.ladder[:1] != (Rung.TERMINATE,):  # after the stacks SIGTERM is as planned
        reason = f"{reason}; SIGTERM had no effect"
    ending.descend(draft, worker, reason)


def kill_again(draft: Draft, worker: Worker, _event: WorkerEvent) -> None:
    """SIGKILL works at once, but for a process that the kernel itself holds (state D).

    Its slot goes on without it; after a second one it is given up for now, since more would pile
    up.
    """
    reason = "SIGKILL had no effect yet; the kernel may hold it in a system call"
    ending.kill(draft, replace(worker, stuck=True), reason)
    cause = worker.cause or Cause.CRASH
    rollouts.judge(draft, worker, cause, reason, answered=False)
    _leave_slot(draft, worker, cause, reason, answered=False)
    slot = draft.home(worker)
    waits = slot is not None and slot.state in (SlotState.EMPTY, SlotState.BACKOFF)
    if slot is not None and waits and draft.wanted(slot) and slots.is_held(draft, slot):
        slots.fail(draft, slot, reason)


def exit_starting(draft: Draft, worker: Worker, event: WorkerEvent) -> None:
    """A failed start, unless somebody killed it."""
    assert isinstance(event, Exited)
    cause = Cause.SIGNALLED if event.foreign_signal else Cause.FAILED_START
    told = f"{_ended(event)} before it was ready"
    reason = f"{worker.failure} ({event.description})" if worker.failure else told
    _gone(draft, worker, cause, reason, answered=False, told=told)


def exit_ready(draft: Draft, worker: Worker, event: WorkerEvent) -> None:
    """A crash, whatever the exit code says: drumd did not ask for it."""
    assert isinstance(event, Exited)
    cause = Cause.SIGNALLED if event.foreign_signal else Cause.CRASH
    told = f"{_ended(event)} while it served"
    reason = f"{worker.failure} ({event.description})" if worker.failure else told
    _gone(draft, worker, cause, reason, answered=event.answered, told=told)


def exit_expected(draft: Draft, worker: Worker, event: WorkerEvent) -> None:
    """It went as it was told to, or as it had to."""
    assert isinstance(event, Exited)
    reason = f"{worker.reason}; {event.description}"
    _gone(draft, worker, worker.cause or Cause.CRASH, reason, answered=event.answered)


def _ended(event: Exited) -> str:
    return f"{event.description} from elsewhere" if event.foreign_signal else event.description


def _gone(
    draft: Draft, worker: Worker, cause: Cause, reason: str, *, answered: bool, told: str = ""
) -> None:
    """Take note of its end. `told`: instead of a reason that has just been told."""
    draft.tell(
        Happened.WORKER_EXITED,
        told or reason,
        worker=worker,
        cause=cause.value,
        lived=round(draft.now - worker.spawned_at, 3),
    )
    draft.forget(worker)
    if draft.pool.room is not None and worker.kind is not Kind.TEMPLATE:  # till it is measured
        draft.change(room=replace(draft.pool.room, workers=draft.pool.room.workers + 1))
    rollouts.judge(draft, worker, cause, reason, answered=answered)
    _leave_slot(draft, worker, cause, reason, answered=answered)


def _leave_slot(draft: Draft, worker: Worker, cause: Cause, reason: str, *, answered: bool) -> None:
    slot = draft.home(worker)
    if slot is None or worker.attempt not in (slot.incumbent, slot.successor):
        return  # it had handed its slot on before
    draft.vacate(worker)
    slots.settle(draft, worker, cause, reason, answered=answered)


TABLE: Mapping[tuple[WorkerState, type[WorkerEvent]], Handler] = {
    # An event's row, then what each state makes of it.
    (S, SpawnFailed): fail_spawn,
    (R, SpawnFailed): ignore,
    (D, SpawnFailed): ignore,
    (T, SpawnFailed): fail_spawn,
    (K, SpawnFailed): fail_spawn,
    (X, SpawnFailed): ignore,
    (S, BecameReady): become_ready,
    (R, BecameReady): ignore,
    (D, BecameReady): ignore,
    (T, BecameReady): ignore,
    (K, BecameReady): ignore,
    (X, BecameReady): ignore,
    (S, ReportedFailure): note_failure,
    (R, ReportedFailure): note_failure,
    (D, ReportedFailure): note_failure,
    (T, ReportedFailure): ignore,
    (K, ReportedFailure): ignore,
    (X, ReportedFailure): ignore,
    (S, BeganLeaving): call_off,
    (R, BeganLeaving): let_leave,
    (D, BeganLeaving): ignore,
    (T, BeganLeaving): ignore,
    (K, BeganLeaving): ignore,
    (X, BeganLeaving): ignore,
    (S, Drained): ignore,
    (R, Drained): ignore,
    (D, Drained): expect_exit,
    (T, Drained): ignore,
    (K, Drained): ignore,
    (X, Drained): ignore,
    (S, LostContact): lose_contact,
    (R, LostContact): lose_contact,
    (D, LostContact): ignore,
    (T, LostContact): ignore,
    (K, LostContact): ignore,
    (X, LostContact): ignore,
    (S, Stalled): ignore,
    (R, Stalled): note_stall,
    (D, Stalled): ignore,
    (T, Stalled): ignore,
    (K, Stalled): ignore,
    (X, Stalled): ignore,
    (S, Recovered): ignore,
    (R, Recovered): note_recovery,
    (D, Recovered): ignore,
    (T, Recovered): ignore,
    (K, Recovered): ignore,
    (X, Recovered): ignore,
    (S, Hung): ignore,
    (R, Hung): end_hung,
    (D, Hung): ignore,
    (T, Hung): ignore,
    (K, Hung): ignore,
    (X, Hung): ignore,
    (S, ProbeFailed): note_probe,
    (R, ProbeFailed): ignore,
    (D, ProbeFailed): ignore,
    (T, ProbeFailed): ignore,
    (K, ProbeFailed): ignore,
    (X, ProbeFailed): ignore,
    (S, RecycleDue): ignore,
    (R, RecycleDue): note_age,
    (D, RecycleDue): ignore,
    (T, RecycleDue): ignore,
    (K, RecycleDue): ignore,
    (X, RecycleDue): ignore,
    (S, DeadlinePassed): time_out_start,
    (R, DeadlinePassed): end_overdue,
    (D, DeadlinePassed): end_late,
    (T, DeadlinePassed): end_late,
    (K, DeadlinePassed): kill_again,
    (X, DeadlinePassed): ignore,
    (S, Exited): exit_starting,
    (R, Exited): exit_ready,
    (D, Exited): exit_expected,
    (T, Exited): exit_expected,
    (K, Exited): exit_expected,
    (X, Exited): ignore,
}
