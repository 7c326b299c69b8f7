"""How far an operation is, slot by slot: what `drumctl` draws while it waits."""

from enum import StrEnum

from drumd.supervisor.core.model import Operation, OperationKind, Pool, Slot, Worker, WorkerState
from drumd.supervisor.core.views import incumbent


class Cell(StrEnum):
    """What one slot shows. The first letters differ, so a text of these is enough to compare."""

    OLD = "old"
    """A worker that is to be replaced serves; or one that is to go is still there."""
    STARTING = "starting"
    """The worker that is wanted there is on its way, beside an old one or alone."""
    NEW = "new"
    """The worker that is wanted there serves."""
    EMPTY = "empty"
    """Nobody serves, and nobody is on the way: it waits, has failed, or is stopped."""


def picture(pool: Pool, operation: Operation) -> tuple[Cell, ...]:
    """Return a cell for each slot that the operation is for, in their order."""
    concerned = [slot for slot in pool.slots if operation.slot in (None, slot.number)]
    return tuple(_cell(pool, operation, slot) for slot in concerned)


def _cell(pool: Pool, operation: Operation, slot: Slot) -> Cell:
    worker = incumbent(pool, slot)
    if worker is None:
        return Cell.EMPTY
    if _is_old(pool, operation, slot, worker):
        return Cell.OLD if slot.successor is None else Cell.STARTING
    return Cell.NEW if worker.state is WorkerState.READY else Cell.STARTING


def _is_old(pool: Pool, operation: Operation, slot: Slot, worker: Worker) -> bool:
    match operation.kind:
        case OperationKind.RELOAD:
            return worker.generation != operation.generation
        case OperationKind.RESTART:
            return worker.attempt in operation.old
        case OperationKind.STOP:
            return True
        case OperationKind.START | OperationKind.SCALE:
            return slot.number >= pool.size
