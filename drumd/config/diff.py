"""What a reload would change: which keys, what each takes, and what happens to each pool."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from drumd.config.cpus import resolve_workers
from drumd.config.effects import Effect, effect_of
from drumd.config.kinds import WorkerRange
from drumd.config.layers import KeyPath
from drumd.config.modelserver.server_type import is_one_process
from drumd.config.secrets import redact
from drumd.config.settings import PoolSettings, Settings
from drumd.config.writing import written


class Fate(StrEnum):
    """What becomes of a pool."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A key whose value is another. The values are as people write them, secrets masked."""

    path: KeyPath
    before: Any
    """None: it was not set."""
    after: Any
    """None: it is not set any more."""
    effect: Effect

    @property
    def key(self) -> str:
        """The dotted key, such as `pools.web.health.stall_after`."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolChange:
    """What a reload does to one pool."""

    name: str
    fate: Fate
    before: PoolSettings | None = field(repr=False)
    """None for a pool that is added."""
    after: PoolSettings | None = field(repr=False)
    """None for a pool that is removed."""
    changes: tuple[Change, ...] = ()
    """The keys that changed, of a pool that stays."""
    workers: int | WorkerRange | None = None
    """The number or range that the pool's size is brought to; None where it stays as it is."""
    opened: tuple[str, ...] = ()
    """Addresses that it gets."""
    closed: tuple[str, ...] = ()
    """Addresses that it gives up; another pool may be the one that gets them."""

    @property
    def rollout(self) -> bool:
        """Whether running workers are to be replaced by a new generation."""
        return self._takes(Effect.NEW_WORKERS)

    @property
    def sockets(self) -> bool:
        """Whether sockets are opened or closed, or connections spread in another way."""
        return self._takes(Effect.SOCKETS)

    @property
    def live(self) -> bool:
        """Whether something counts at once: the policy, limits, what is recycled, or the size."""
        return self._takes(Effect.LIVE)

    def resized(self, size: int) -> int | None:
        """Return the size that a pool of `size` slots is brought to; None where it stays."""
        if self.workers is None:
            return None
        wanted = self.workers
        wanted = wanted.clamp(size) if isinstance(wanted, WorkerRange) else wanted
        return None if wanted == size else wanted

    def _takes(self, effect: Effect) -> bool:
        return any(change.effect is effect for change in self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """All that a reload would change; false where there is nothing."""

    supervisor: tuple[Change, ...] = ()
    pools: tuple[PoolChange, ...] = ()
    """Those that change in any way; removed ones first, since they free addresses."""

    def __bool__(self) -> bool:
        return bool(self.supervisor or self.pools)

    @property
    def keys(self) -> tuple[Change, ...]:
        """The changed keys of the daemon and of the pools that stay."""
        return (*self.supervisor, *(change for pool in self.pools for change in pool.changes))

    @property
    def takes_effect(self) -> bool:
        """Whether a reload changes anything: some keys wait for a restart of drumd."""
        return bool(self.pools) or any(
            change.effect is not Effect.RESTART for change in self.supervisor
        )

    @property
    def restart(self) -> tuple[str, ...]:
        """Keys whose new value does not count before drumd itself is restarted."""
        return tuple(change.key for change in self.keys if change.effect is Effect.RESTART)


def diff(before: Settings, after: Settings) -> Changes:
    """Return what a reload changes that finds `after` where `before` runs.

    Only what the config says is compared: an `app_dir` that is a symlink and points elsewhere by
    now is no change of a key.
    """
    removed = [
        _removed(name, pool) for name, pool in before.pools.items() if name not in after.pools
    ]
    stays_or_added = (
        _changed(name, before.pools[name], pool) if name in before.pools else _added(name, pool)
        for name, pool in after.pools.items()
    )
    return Changes(
        supervisor=tuple(_key_changes(("supervisor",), before.supervisor, after.supervisor)),
        pools=(*removed, *(change for change in stays_or_added if change is not None)),
    )


def _added(name: str, pool: PoolSettings) -> PoolChange:
    return PoolChange(
        name=name,
        fate=Fate.ADDED,
        before=None,
        after=pool,
        workers=_wanted_workers(pool),
        opened=pool.bind,
    )


def _removed(name: str, pool: PoolSettings) -> PoolChange:
    return PoolChange(name=name, fate=Fate.REMOVED, before=pool, after=None, closed=pool.bind)


def _changed(name: str, before: PoolSettings, after: PoolSettings) -> PoolChange | None:
    changes = tuple(_key_changes(("pools", name), before, after))
    if not changes:
        return None
    workers = _wanted_workers(after)
    # What an operator scaled to stays, but where there may be only one it does not.
    becomes_one = is_one_process(after) and not is_one_process(before)
    return PoolChange(
        name=name,
        fate=Fate.CHANGED,
        before=before,
        after=after,
        changes=changes,
        workers=workers if becomes_one or workers != _wanted_workers(before) else None,
        opened=tuple(address for address in after.bind if address not in before.bind),
        closed=tuple(address for address in before.bind if address not in after.bind),
    )


def _wanted_workers(pool: PoolSettings) -> int | WorkerRange:
    # `auto` depends on other keys, too, such as the runtime.
    return pool.workers if isinstance(pool.workers, WorkerRange) else resolve_workers(pool)[0]


def _key_changes(path: KeyPath, before: BaseModel, after: BaseModel) -> Iterator[Change]:
    """Yield what differs in two tables of the same kind, and in the tables in them."""
    for name, known in type(before).model_fields.items():
        inner = (*path, name)
        old, new = getattr(before, name), getattr(after, name)
        if isinstance(old, BaseModel):
            yield from _key_changes(inner, old, new)
        elif isinstance(old, dict):
            yield from _item_changes(inner, old, new, effect_of(known))
        elif old != new:
            yield _change(inner, written(old, known), written(new, known), effect_of(known))


def _item_changes(
    path: KeyPath, before: dict[str, Any], after: dict[str, Any], effect: Effect
) -> Iterator[Change]:
    """Yield what differs in two tables whose keys are the operator's."""
    for key in dict.fromkeys([*before, *after]):
        if key in before and key in after and _same(before[key], after[key]):
            continue
        yield _change((*path, key), before.get(key), after.get(key), effect)


def _same(one: Any, other: Any) -> bool:
    """Compare values that travel as JSON: for Python alone, `true` would be 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _change(path: KeyPath, before: Any, after: Any, effect: Effect) -> Change:
    shown = (None if value is None else redact(path, value) for value in (before, after))
    return Change(path=path, before=next(shown), after=next(shown), effect=effect)
