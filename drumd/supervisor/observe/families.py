"""Families of the apps' metrics from several generations: what may be added up, and what not.

A release may define a metric anew: as another type, or with other buckets. Numbers of both are
then no numbers of one thing.
"""

import json
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_LARGEST, _LEAST = ("max", "livemax"), ("min", "livemin")
_SUMS = ("sum", "livesum")


@dataclass(slots=True)
class Definition:
    """What a family is: its type, and the bounds of its buckets as far as there are samples."""

    kind: str
    bounds: set[str] = field(default_factory=set)


def definitions(values: Iterable[tuple[str, str]]) -> dict[str, Definition]:
    """Return the definitions by family, from the type of each file and the keys in it."""
    found: dict[str, Definition] = {}
    for kind, key in values:
        family, _sample, labels, _help = json.loads(key)
        definition = found.setdefault(family, Definition(kind))
        if kind == "histogram" and "le" in labels:
            definition.bounds.add(labels["le"])
    return found


def family_of(key: str) -> str:
    """Return the family that a key in a file belongs to."""
    return str(json.loads(key)[0])


def join(families: dict[str, "Metric"], others: Iterable["Metric"]) -> int:
    """Add what another generation has counted to `families`, which count in case of doubt.

    Return how many were left out, since they are defined otherwise. Of gauges whose values cannot
    be one (shown by process, or the most recent) the value in `families` stays.
    """
    left_out = 0
    for other in others:
        family = families.setdefault(other.name, other)
        if family is other:
            continue
        if _defined(family) != _defined(other):
            left_out += 1
            continue
        known = {_key(sample): at for at, sample in enumerate(family.samples)}
        for sample in other.samples:
            at = known.get(_key(sample))
            if at is None:
                family.samples.append(sample)
            else:
                mine = family.samples[at]
                family.samples[at] = mine._replace(value=_one(family, mine.value, sample.value))
    return left_out


def _defined(family: "Metric") -> tuple[str, str, Mapping[str, None]]:
    bounds = {s.labels["le"]: None for s in family.samples if "le" in s.labels}
    # A counter's or summary's own label may be called so; in a histogram it means the buckets.
    return family.type, _mode(family), bounds if family.type == "histogram" else {}


def _key(sample: Any) -> Hashable:
    return sample.name, frozenset(sample.labels.items())


def _mode(family: "Metric") -> str:
    """Return how a gauge is put together; "" for other types (prometheus_client, multiprocess)."""
    return str(getattr(family, "_multiprocess_mode", ""))


def _one(family: "Metric", mine: float, other: float) -> float:
    mode = _mode(family)
    if mode in _LARGEST:
        return max(mine, other)
    if mode in _LEAST:
        return min(mine, other)
    if family.type == "gauge" and mode not in _SUMS:
        return mine
    return mine + other
