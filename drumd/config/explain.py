"""Turn what pydantic found into problems that an operator can act on."""

import re
from collections.abc import Callable, Collection
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from drumd.config.layers import KeyPath, is_section, is_table_of_pools, variable_name
from drumd.config.problems import ABSENT, Problem, nearest
from drumd.config.quantities import Seconds, format_duration, is_quantity
from drumd.config.secrets import looks_secret, redact
from drumd.config.settings import PoolSettings, Settings

OriginOf = Callable[[KeyPath], str]

_BOUNDS = {
    "greater_than": ("gt", "must be more than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}

_WRONG_TYPE = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "string_type": "must be a string, in quotes",
    "tuple_type": "must be a list of strings",
    "too_short": "must have at least one item",
    "string_too_short": "must not be empty",
    "too_long": "has too many items",
}

SIMPLE_TYPES = frozenset({*_WRONG_TYPE, "literal_error"})
"""pydantic's errors that can be said in words without knowing more of the key."""

_TABLE_EXPECTED = frozenset({"model_type", "dict_type", "model_attributes_type"})


def explain(error: ErrorDetails, origin_of: OriginOf, whole_pools: Collection[str]) -> Problem:
    """Return the problem that `error` means; `whole_pools` are the pools that do have an app."""
    kind = error["type"]
    path = path_of(error)
    origin = origin_of(path[:-1] if kind == "missing" else path)
    message, suggestion = _sentence(error, path, origin, whole_pools)
    value = ABSENT if kind == "missing" or _is_about_name(error) else redact(path, error["input"])
    if kind == "extra_forbidden":
        # Nothing is known about such a key, so its name alone says whether it holds a secret.
        value = ABSENT if isinstance(value, dict) or looks_secret(path[-1]) else value
    return Problem(
        key=".".join(path), value=value, message=message, suggestion=suggestion, origin=origin
    )


def path_of(error: ErrorDetails) -> KeyPath:
    """Return the path of the key that an error is about; of a list, the whole list."""
    location = error["loc"][:-1] if _is_about_name(error) else error["loc"]
    return tuple(part for part in location if isinstance(part, str))


def _is_about_name(error: ErrorDetails) -> bool:
    """Tell whether it is a pool's name that is wrong: pydantic adds a mark to its location."""
    location = error["loc"]
    return (
        len(location) == _NAME_DEPTH and location[2] == "[key]" and error["type"] == "value_error"
    )


_NAME_DEPTH = len(("pools", "NAME", "[key]"))


def _sentence(
    error: ErrorDetails, path: KeyPath, origin: str, whole_pools: Collection[str]
) -> tuple[str, str]:
    """Return the message and the suggestion."""
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path, origin)
    if kind == "missing":
        return "is missing", _advice_on_missing(path, whole_pools)
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {_bound(path, error['ctx'][name])}", ""
    if kind in _TABLE_EXPECTED:
        return f"must be a table, [{'.'.join(path)}]", ""
    return explain_type(error)


def explain_type(error: ErrorDetails) -> tuple[str, str]:
    """Return the message and the suggestion for a value that is of the wrong kind."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        message, _, suggestion = str(context["error"]).partition("; ")
        return message, suggestion
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        return must_be_one_of(error["input"], choices)
    return _WRONG_TYPE.get(kind, error["msg"][:1].lower() + error["msg"][1:]), ""


def must_be_one_of(value: object, choices: Collection[str]) -> tuple[str, str]:
    """Return the message and the suggestion for a value that is none of the choices."""
    meant = nearest(str(value), choices)
    return f"must be {_either(list(choices))}", f"did you mean {meant}?" if meant else ""


def _unknown_key(path: KeyPath, origin: str) -> tuple[str, str]:
    table, name = path[:-1], path[-1]
    meant = nearest(name, _keys_of(table))
    elsewhere = [known for known in _all_keys(table) if known[-1] == name]
    if meant is not None:
        suggested = [(*table, meant)]
    elif elsewhere:
        suggested = elsewhere
    else:
        close = nearest(name, {known[-1] for known in _all_keys(table)})
        suggested = [known for known in _all_keys(table) if known[-1] == close]
    if origin.startswith("environment "):
        where, shown = "drumd has no such setting", [variable_name(key) for key in suggested]
    else:
        where = f"is no key of [{'.'.join(table)}]" if table else "is no table of the config"
        shown = [".".join(key) for key in suggested]
    if shown:
        return where, f"did you mean {_either(shown)}?"
    return where, "docs/configuration.md lists them all"


def _keys_of(table: KeyPath) -> list[str]:
    """Return the keys that the table at a path may have."""
    annotation: Any = Settings
    for name in table:
        if is_table_of_pools(annotation):
            annotation = PoolSettings
        elif is_section(annotation) and name in annotation.model_fields:
            annotation = annotation.model_fields[name].annotation
        else:
            return []
    return list(annotation.model_fields) if is_section(annotation) else []


def _all_keys(near: KeyPath) -> list[KeyPath]:
    """Return the path of every key; pools are called as the one that `near` is in, or NAME."""
    pool = near[1] if near[:1] == ("pools",) and len(near) > 1 else "NAME"

    def below(annotation: Any, path: KeyPath) -> list[KeyPath]:
        if is_table_of_pools(annotation):
            return below(PoolSettings, (*path, pool))
        if not is_section(annotation):
            return [path]
        return [
            key
            for name, known in annotation.model_fields.items()
            for key in below(known.annotation, (*path, name))
        ]

    return below(Settings, ())


def _advice_on_missing(path: KeyPath, whole_pools: Collection[str]) -> str:
    if path[-1] != "app":
        return ""
    meant = nearest(path[1], whole_pools)
    if meant is not None:
        return f'did you mean the pool {meant}? Otherwise name this one\'s app: app = "main:app"'
    return 'name it: app = "main:app"'


def _bound(path: KeyPath, bound: float) -> str:
    """Return a bound in the key's own unit."""
    known = _field_of(path)
    if known is not None and is_quantity(known, Seconds) and bound:
        return format_duration(bound)
    return f"{bound:g}"


def _field_of(path: KeyPath) -> FieldInfo | None:
    """Return the field at a path, or the one whose table it is in; None for a pool."""
    annotation: Any = Settings
    known: FieldInfo | None = None
    for name in path:
        if is_table_of_pools(annotation):
            annotation, known = PoolSettings, None
        elif is_section(annotation):
            known = annotation.model_fields[name]
            annotation = known.annotation
    return known


def _either(choices: list[str]) -> str:
    if len(choices) == 1:
        return choices[0]
    return ", ".join(choices[:-1]) + " or " + choices[-1]
