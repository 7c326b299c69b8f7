"""Which runtime parameters a reload changes, by name; the pool's keys know them by a digest."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from drumd.config.diff import Change, Changes, diff
from drumd.config.loading import Loaded
from drumd.config.modelserver.command import POOL
from drumd.config.modelserver.inforce import ModelInForce, ParameterInForce
from drumd.config.modelserver.keys import DIGEST, comparable

_PATH = ("pools", POOL)
_DIGEST = (*_PATH, "environment", DIGEST)


def changes_between(before: Loaded, after: Loaded) -> Changes:
    """Return what a reload changes, with what workers read of parameters and target by name."""
    changes = diff(before.settings, after.settings)
    if before.model is None or after.model is None:
        return changes
    pools = (
        replace(pool, changes=tuple(_named(pool.changes, before.model, after.model)))
        for pool in changes.pools
    )
    return replace(changes, pools=tuple(pools))


def _named(
    changes: tuple[Change, ...], before: ModelInForce, after: ModelInForce
) -> Iterator[Change]:
    for change in changes:
        if change.path != _DIGEST:
            yield change
            continue
        found = [*_of_target(before, after), *_of_parameters(before, after)]
        for key, old, new in found:
            yield Change(path=(*_PATH, *key), before=old, after=new, effect=change.effect)
        if not found:  # another version of drumd had made the digest
            yield change


def _of_target(
    before: ModelInForce, after: ModelInForce
) -> Iterator[tuple[tuple[str, str], Any, Any]]:
    for key, old, new in (
        ("type", before.target_type, after.target_type),
        ("name", before.target_name, after.target_name),
        ("labels", before.labels, after.labels),
    ):
        if old != new:
            yield ("target", key), _listed(old), _listed(new)


def _of_parameters(
    before: ModelInForce, after: ModelInForce
) -> Iterator[tuple[tuple[str, str], Any, Any]]:
    """Yield what workers read and is another by now; of a secret, that it is another one."""
    old = {each.name: each for each in before.parameters if each.by_workers}
    new = {each.name: each for each in after.parameters if each.by_workers}
    for name in sorted({*old, *new}):
        one, other = old.get(name), new.get(name)
        if _text(one) != _text(other):
            yield ("runtime_parameters", name), one and one.shown, other and other.shown


def _text(parameter: ParameterInForce | None) -> str:
    return "" if parameter is None else comparable(parameter.value)


def _listed(value: str | tuple[str, ...]) -> str | list[str]:
    return value if isinstance(value, str) else list(value)
