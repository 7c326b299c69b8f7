"""Telling which column belongs to which label, however either is written."""

from collections.abc import Iterable, Sequence
from typing import Any


def matched(columns: Iterable[Any], labels: Sequence[str]) -> dict[Any, str] | None:
    """Return the label of each of `columns`; None unless each has one, and all have theirs."""
    found = assigned(columns, labels)
    complete = len(found) == len(labels) and all(column in found for column in columns)
    return found if complete else None


def assigned(columns: Iterable[Any], labels: Sequence[str]) -> dict[Any, str]:
    """Return the labels of those columns that have one.

    A column is compared as text; what is left over, as a number: a model that was trained with 0.0
    and 1.0 has the labels "0" and "1".
    """
    found: dict[Any, str] = {}
    left = dict.fromkeys(labels)
    rest = []
    for column in columns:
        text = str(column)
        if text in left:
            found[column] = text
            del left[text]
        else:
            rest.append(column)
    numbers = {value: label for label in left if (value := _number(label)) is not None}
    for column in rest:
        number = _number(column)
        if number is not None and number in numbers:
            found[column] = numbers.pop(number)
    return found


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
