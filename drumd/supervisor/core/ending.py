"""How a worker is ended: drained when it has requests, then led down a ladder to SIGKILL."""

from dataclasses import replace

from drumd.supervisor.core.actions import Drain, DumpStacks, Kill, Terminate
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import Cause, Kind, Rung, Worker, WorkerState

GRACEFUL = (Rung.TERMINATE, Rung.KILL)
STUCK = (Rung.STACKS, Rung.TERMINATE, Rung.KILL)

STACKS_PATIENCE = 0.5
"""Seconds for writing stacks before SIGTERM, which would otherwise win the race."""
START_PATIENCE = 0.25
"""Seconds between SIGTERM and SIGKILL for a worker that has no requests yet."""
CONTACT_PATIENCE = 1.0
"""Seconds between a closed control socket and the exit that normally comes with it."""
KILL_PATIENCE = 5.0
"""Seconds after which SIGKILL is sent again, and said to be without effect."""


def retire(draft: Draft, worker: Worker, cause: Cause, reason: str) -> None:
    """Have a worker go in the gentlest way that its state allows."""
    if worker.state is WorkerState.READY and worker.kind is not Kind.TEMPLATE:
        drain(draft, worker, cause, reason)
    elif worker.state in (WorkerState.STARTING, WorkerState.READY):
        descend(draft, replace(worker, cause=cause, ladder=GRACEFUL), reason)


def expect_exit(draft: Draft, worker: Worker, patience: float, overdue: str) -> Worker:
    """Leave a worker `patience` seconds to exit by itself; its state stays."""
    deadline = draft.now + patience
    if worker.deadline is not None:
        deadline = min(worker.deadline, deadline)
    return draft.put(replace(worker, deadline=deadline, overdue=overdue))


def drain(
    draft: Draft, worker: Worker, cause: Cause, reason: str, *, tell_worker: bool = True
) -> None:
    """Let a worker finish what it has, for the grace period."""
    policy = draft.pool.policy
    deadline = draft.now + policy.grace_period
    if worker.deadline is not None:  # it is expected to exit even sooner
        deadline = min(worker.deadline, deadline)
    worker = draft.transition(
        worker,
        WorkerState.DRAINING,
        reason,
        deadline=deadline,
        event=Happened.WORKER_DRAINING,
        cause=cause,
        ladder=GRACEFUL,
        stalled=False,
    )
    if tell_worker:
        draft.act(
            Drain(
                attempt=worker.attempt,
                deadline=deadline,
                linger=min(policy.linger, policy.grace_period),
            )
        )


def descend(draft: Draft, worker: Worker, reason: str) -> None:
    """Take the next rung of a worker's ladder."""
    rung, *rest = worker.ladder or (Rung.KILL,)
    worker = replace(worker, ladder=tuple(rest), stalled=False, overdue="")
    if rung is Rung.KILL:
        kill(draft, worker, reason)
        return
    if rung is Rung.STACKS:
        patience = STACKS_PATIENCE
    elif worker.ready_at is None or worker.kind is Kind.TEMPLATE:
        patience = START_PATIENCE
    else:
        patience = draft.pool.policy.stop_timeout
    draft.transition(
        worker,
        WorkerState.STOPPING,
        reason,
        deadline=draft.now + patience,
        event=Happened.WORKER_STOPPING,
    )
    action = DumpStacks if rung is Rung.STACKS else Terminate
    draft.act(action(attempt=worker.attempt))


def kill(draft: Draft, worker: Worker, reason: str) -> None:
    """Send SIGKILL, and be back to see whether it helped."""
    draft.transition(
        replace(worker, ladder=(), stalled=False, overdue=""),
        WorkerState.KILLING,
        reason,
        deadline=draft.now + KILL_PATIENCE,
        event=Happened.WORKER_KILLING,
    )
    draft.act(Kill(attempt=worker.attempt))
