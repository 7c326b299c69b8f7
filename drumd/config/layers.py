"""A layer: what one source says, as nested tables, and where in that source each key was said."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from drumd.config.kinds import WorkerRange
from drumd.config.problems import Problem
from drumd.config.settings import PoolSettings, Settings

KeyPath = tuple[str, ...]
"""The names that lead to a value: `("pools", "web", "workers")`."""

ENVIRONMENT_PREFIX = "DRUMD_"

NOT_CONFIG = frozenset({"DRUMD_SOCKET", "DRUMD_INSTANCE", "DRUMD_SPEC_FD"})
"""Variables that say something else: drumctl's socket, and what drumd tells its own children."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one source says."""

    data: dict[str, Any]
    directory: Path
    """What relative paths in this layer are relative to."""
    origin_of: Callable[[KeyPath], str]
    """Tell where in this source the value at a path was said."""
    problems: tuple[Problem, ...] = ()
    """What is wrong with the source itself."""


@dataclass(slots=True)
class LayerBuilder:
    """Collects values and where they were said."""

    directory: Path
    data: dict[str, Any] = field(default_factory=dict)
    said_by: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def put(self, path: KeyPath, value: object, origin: str) -> None:
        """Set the value at `path`, in the table that is there already if there is one."""
        self.said_by[path] = origin
        table = self.data
        for name in path[:-1]:
            inner = table.get(name)
            if not isinstance(inner, dict):
                inner = table[name] = {}
            table = inner
        table[path[-1]] = value

    def layer(self) -> Layer:
        """Return what was collected."""
        return Layer(
            data=self.data,
            directory=self.directory,
            origin_of=lambda path: nearest_origin(self.said_by, path, otherwise=""),
            problems=tuple(self.problems),
        )


def nearest_origin(said_by: Mapping[KeyPath, str], path: KeyPath, *, otherwise: str) -> str:
    """Return who said `path`: itself, or something in it, or else the table that it is in."""
    if path in said_by:
        return said_by[path]
    for said, origin in said_by.items():
        if said[: len(path)] == path:
            return origin
    around = (said_by[path[:n]] for n in range(len(path) - 1, 0, -1) if path[:n] in said_by)
    return next(around, otherwise)


def flags_layer(flags: Mapping[str, object], directory: Path) -> Layer:
    """Read flags, given by dotted key (`pools.web.workers`); None means "not given".

    Relative paths are taken from `directory`.
    """
    builder = LayerBuilder(directory)
    for key, value in flags.items():
        if value is not None:
            path = tuple(key.split("."))
            builder.put(path, value, _flag_origin(path))
    return builder.layer()


def _flag_origin(path: KeyPath) -> str:
    if path[-1] == "app":
        return "argument APP"
    return "flag --" + path[-1].replace("_", "-")


def environment_layer(
    environ: Mapping[str, str], pool_names: Collection[str], directory: Path
) -> Layer:
    """Read the `DRUMD_…` variables; `__` goes down into a table.

    A variable's name holds no dash: `DRUMD_POOLS__MY_POOL__…` means the pool `my-pool` where one of
    `pool_names` is that, and `my_pool` otherwise. Relative paths are taken from `directory`.
    """
    builder = LayerBuilder(directory)
    for variable, text in sorted(environ.items()):  # a table comes before the keys in it
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in NOT_CONFIG:
            continue
        origin = f"environment {variable}"
        parts = variable.removeprefix(ENVIRONMENT_PREFIX).split("__")
        path, annotation = _locate(parts, pool_names)
        try:
            value = _decode(text, annotation)
        except ValueError as error:
            builder.problems.append(
                Problem(
                    key=".".join(path),
                    message=f"cannot read the value: {error}",
                    suggestion=_json_advice(annotation),
                    origin=origin,
                )
            )
        else:
            builder.put(path, value, origin)
    return builder.layer()


def variable_name(path: KeyPath) -> str:
    """Return the environment variable that sets the key at `path`."""
    return ENVIRONMENT_PREFIX + "__".join(path).replace("-", "_").upper()


def _locate(parts: list[str], pool_names: Collection[str]) -> tuple[KeyPath, Any]:
    """Return the key's path and its annotation; None for a key that the settings don't know."""
    annotation: Any = Settings
    path: KeyPath = ()
    rest = parts
    while rest:
        if is_section(annotation):
            name = rest[0].lower()
            known = annotation.model_fields.get(name)
            path, rest = (*path, name), rest[1:]
            annotation = known.annotation if known else None
        elif is_table_of_pools(annotation):
            path, rest = (*path, _pool_name(rest[0], pool_names)), rest[1:]
            annotation = PoolSettings
        elif get_origin(annotation) is dict:
            # The rest is one name: it belongs to the app or to a server, and may hold `__` itself.
            name = "__".join(rest)
            if path[-1] != "environment":
                name = name.lower()
            return (*path, name), get_args(annotation)[1]
        else:
            return (*path, *(name.lower() for name in rest)), None
    return path, annotation


def _pool_name(part: str, pool_names: Collection[str]) -> str:
    name = part.lower()
    if name in pool_names:
        return name
    return next((known for known in sorted(pool_names) if known.replace("-", "_") == name), name)


def is_section(annotation: Any) -> bool:
    """Tell whether a field is a table with keys of its own."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def is_table_of_pools(annotation: Any) -> bool:
    """Tell whether a field is the table of named pools."""
    return get_origin(annotation) is dict and get_args(annotation)[1] is PoolSettings


def _decode(text: str, annotation: Any) -> object:
    """Return the value that a variable's text means; raise `ValueError` for broken JSON."""
    if get_origin(annotation) is tuple:
        if text.lstrip().startswith("["):
            return _json(text)
        return [part.strip() for part in text.split(",") if part.strip()]
    if is_section(annotation) or get_origin(annotation) is dict:
        return _json(text)
    if annotation is Any and text.lstrip().startswith(("[", "{")):
        return _json(text)
    if WorkerRange in get_args(annotation) and text.lstrip().startswith("{"):
        return _json(text)
    return text


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        # The text itself stays out of the message: it may hold a secret.
        raise ValueError(f"no JSON: {error.msg} at character {error.pos + 1}") from None


def _json_advice(annotation: Any) -> str:
    if get_origin(annotation) is tuple:
        return "write a JSON list, or the items with commas between them"
    return "write JSON, or one variable for each key, with __ before its name"


def pool_tables(data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pools that are tables, as they should be, with their names."""
    tables = data.get("pools")
    if isinstance(tables, dict):
        for name, pool in tables.items():
            if isinstance(pool, dict):
                yield name, pool
