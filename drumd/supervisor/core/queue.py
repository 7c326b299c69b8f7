"""A pool's queue of operations: how each one stands, and how it ended."""

from dataclasses import replace

from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import Operation, OperationState

_FINISHED = {
    OperationState.DONE: Happened.OPERATION_DONE,
    OperationState.FAILED: Happened.OPERATION_FAILED,
    OperationState.CANCELLED: Happened.OPERATION_CANCELLED,
}


def who(operation: Operation) -> str:
    """Return who asked for it."""
    return operation.by or "an operator"


def put(draft: Draft, operation: Operation) -> Operation:
    """Store an operation instead of its former value."""
    draft.change(
        operations=tuple(
            operation if known.id == operation.id else known for known in draft.pool.operations
        )
    )
    return operation


def finish(draft: Draft, operation: Operation, state: OperationState, reason: str) -> None:
    """End an operation: it leaves the queue."""
    operation = replace(operation, state=state, reason=reason)
    draft.change(
        operations=tuple(known for known in draft.pool.operations if known.id != operation.id)
    )
    draft.finished.append(operation)
    tell(draft, _FINISHED[state], operation)


def tell(draft: Draft, event: Happened, operation: Operation) -> None:
    """Add a fact about an operation."""
    what = operation.kind.value
    if operation.slot is not None:
        what += f" slot {operation.slot}"
    if operation.size is not None:
        what += f" to {operation.size}"
    draft.tell(event, f"{what}: {operation.reason}", operation=operation.id, by=operation.by)
