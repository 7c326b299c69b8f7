"""The documents that the admin API takes and gives, apart from the status, which is the owner's."""

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from drumd.config.changes import document, render
from drumd.supervisor.admin.operator import FINAL, Operation, Pending, Reload


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RestartBody(_Body):
    """What to restart: one slot, or the whole pool."""

    slot: Annotated[int, Field(ge=0)] | None = None


class ScaleBody(_Body):
    """What to scale to."""

    size: Annotated[int, Field(ge=0)]


class ReloadBody(_Body):
    """What to reload: one pool, or all that the config changes."""

    pool: str | None = None


def reload_document(reload: Reload) -> dict[str, Any]:
    """Return what a reload has begun, as the API shows it."""
    return {
        "operations": [operation_document(operation) for operation in reload.operations],
        "notes": list(reload.notes),
    }


def changes_document(pending: Pending, *, color: bool) -> dict[str, Any]:
    """Return what a reload would change; `text` is for people, coloured with `color`."""
    changes, moved = pending.changes, pending.moved
    told = [
        f"# pool {name}: app_dir leads to {place} by now: a rollout to new workers"
        for name, place in moved.items()
    ]
    text = [render(changes, color=color)] if changes or not told else []
    return {
        **document(changes),
        "changed": bool(changes or moved),
        "moved": dict(moved),
        "text": "\n".join(text) + "".join(f"{line}\n" for line in told),
    }


def operation_document(operation: Operation) -> dict[str, Any]:
    """Return an operation as the API shows it."""
    return {
        **asdict(operation),
        "progress": list(operation.progress),
        "slots": list(operation.slots),
        "last_lines": list(operation.last_lines),
        "final": is_final(operation),
        "reading": reading(operation),
    }


def is_final(operation: Operation) -> bool:
    """Say whether the operation has ended, in whatever way."""
    return operation.state in FINAL


def reading(operation: Operation) -> str:
    """Return a text that changes whenever what there is to show of the operation does."""
    done, total = operation.progress
    slots = "".join(cell[0] for cell in operation.slots)
    return f"{operation.state}:{done}:{total}:{slots}:{operation.reason}"
