"""Showing values in messages, bounded: clients send columns by the thousand."""

from collections.abc import Sequence
from typing import Any

_MAX_NAMES = 10
_MAX_VALUE = 60


def some_of(names: Sequence[Any]) -> str:
    """Return the first names, with commas between them."""
    return ", ".join(map(str, names[:_MAX_NAMES])) + (" …" if len(names) > _MAX_NAMES else "")


def quoted(names: Sequence[Any]) -> str:
    """Return the first names, each in quotes."""
    return some_of([repr(str(name)) for name in names])


def other_separator(columns: Sequence[Any]) -> str:
    """Return what to add to a message where one column seems to be several; mostly nothing."""
    name = str(columns[0]) if len(columns) == 1 else ""
    if not any(separator in name for separator in ";\t"):
        return ""
    return f"; there is one column, {short(name)}: separate the fields with commas"


def kind_of(value: Any) -> str:
    """Return the name of a value's type with its article."""
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def short(value: Any) -> str:
    """Return a value's repr, cut."""
    text = repr(value)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]} …"
