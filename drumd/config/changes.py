"""What a reload would change, shown: a table for people, a document for programs."""

from collections.abc import Iterator, Sequence
from typing import Any

from drumd.config.diff import Change, Changes, Fate, PoolChange
from drumd.config.effects import Effect
from drumd.config.kinds import WorkerRange
from drumd.config.writing import BOLD, RED, YELLOW, align, paint, to_toml, toml_key

_WIDEST = 56
"""Columns that align the comments; one long value does not push all of them to the right."""

_COLORS = {Effect.NEW_WORKERS: YELLOW, Effect.RESTART: RED}


def render(changes: Changes, *, color: bool) -> str:
    """Return what changes, a block for each table: old and new value, and what each key takes."""
    if not changes:
        return "nothing has changed\n"
    blocks = []
    if changes.supervisor:
        blocks.append(_block("supervisor", "", changes.supervisor, color=color))
    for pool in changes.pools:
        head = toml_key("pools", pool.name)
        blocks.append(_block(head, "; ".join(steps(pool)), pool.changes, color=color))
    if changes.restart:
        keys = ", ".join(changes.restart)
        told = f"# to be changed by a restart of drumd only, not by a reload: {keys}"
        blocks.append(paint(told, RED, color=color))
    return "\n\n".join(blocks) + "\n"


def document(changes: Changes) -> dict[str, Any]:
    """Return what changes as JSON has it; values are written as in the config file.

    A value of null is not set.
    """
    return {
        "changed": bool(changes),
        "restart": list(changes.restart),
        "supervisor": [_change_document(change) for change in changes.supervisor],
        "pools": [_pool_document(pool) for pool in changes.pools],
    }


def steps(pool: PoolChange) -> tuple[str, ...]:
    """Return in words what happens to the pool."""
    return tuple(_steps(pool))


def _steps(pool: PoolChange) -> Iterator[str]:
    if pool.fate is Fate.REMOVED:
        yield "removed: its workers drain and end"
    if pool.fate is Fate.ADDED and pool.after is not None:
        yield f"added: {pool.after.app}, {_workers(pool.workers)}"
    if pool.rollout:
        yield "a rollout to new workers"
    if pool.fate is Fate.CHANGED and pool.workers is not None:
        yield f"scaled to {_workers(pool.workers)}"
    if pool.opened:
        yield f"opens {', '.join(pool.opened)}"
    if pool.closed:
        yield f"closes {', '.join(pool.closed)}"


def _workers(wanted: int | WorkerRange | None) -> str:
    return f"{wanted} worker{'' if wanted == 1 else 's'}"


def _block(head: str, happens: str, changes: Sequence[Change], *, color: bool) -> str:
    lines = [paint(f"[{head}]", BOLD, color=color) + (f"  # {happens}" if happens else "")]
    rows = [(_row(change), str(change.effect)) for change in changes]
    for line, change in zip(align(rows, _WIDEST), changes, strict=True):
        code = _COLORS.get(change.effect)
        lines.append(paint(line, code or "", color=color and code is not None))
    return "\n".join(lines)


def _row(change: Change) -> str:
    # Within [supervisor] one name is said already, within [pools.NAME] two.
    said = 1 if change.path[0] == "supervisor" else 2
    return f"{toml_key(*change.path[said:])} = {_value(change.before)} -> {_value(change.after)}"


def _value(value: Any) -> str:
    return "not set" if value is None else to_toml(value)


def _change_document(change: Change) -> dict[str, Any]:
    return {
        "key": change.key,
        "before": change.before,
        "after": change.after,
        "effect": str(change.effect),
    }


def _pool_document(pool: PoolChange) -> dict[str, Any]:
    workers = pool.workers
    if isinstance(workers, WorkerRange):
        workers_document: Any = {"min": workers.least, "max": workers.most}
    else:
        workers_document = workers
    return {
        "name": pool.name,
        "fate": str(pool.fate),
        "steps": list(steps(pool)),
        "rollout": pool.rollout,
        "workers": workers_document,
        "opens": list(pool.opened),
        "closes": list(pool.closed),
        "changes": [_change_document(change) for change in pool.changes],
    }
