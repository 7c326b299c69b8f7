"""What `drumd check` prints: the whole config with origins, or all that is wrong with it."""

import json
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from drumd.config.cpus import resolve_workers
from drumd.config.layers import KeyPath
from drumd.config.loading import DEFAULT, Loaded
from drumd.config.problems import ABSENT, ConfigInvalid, Problem
from drumd.config.quantities import ByteSize, Seconds, format_duration, format_size
from drumd.config.secrets import redact
from drumd.config.settings import PoolSettings

_DIM = "\x1b[2m"
_YELLOW = "\x1b[33m"
_RED = "\x1b[31m"
_BOLD = "\x1b[1m"
_RESET = "\x1b[0m"

_WIDEST = 48
"""Columns that align the comments; one long value does not push all of them to the right."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def render(loaded: Loaded, *, color: bool) -> str:
    """Return the config as TOML: it may be copied into a file, secrets excepted.

    Comments tell where each value came from. With `color`, defaults are dimmed.
    """
    blocks: list[str] = []
    _render_table((), loaded.settings, loaded, blocks, color=color)
    warnings = [
        _paint(f"# warning: {warning}", _YELLOW, color=color) for warning in loaded.warnings
    ]
    if warnings:
        blocks.append("\n".join(warnings))
    return "\n\n".join(blocks) + "\n"


def render_problems(error: ConfigInvalid, *, color: bool = False) -> str:
    """Return all problems, one block each."""
    count = len(error.problems)
    blocks = [f"cannot use the config: {count} problem{'' if count == 1 else 's'}"]
    blocks += [_render_problem(problem, color=color) for problem in error.problems]
    return "\n\n".join(blocks) + "\n"


def _render_problem(problem: Problem, *, color: bool) -> str:
    head = _paint(problem.key, _BOLD, color=color)
    if problem.value is not ABSENT:
        head += f" = {_shown(problem.value)}"
    if problem.origin not in ("", problem.key):
        head += f"   # {problem.origin}"
    lines = [head, "  " + _paint(problem.message, _RED, color=color)]
    if problem.suggestion:
        lines.append("  " + problem.suggestion)
    return "\n".join("  " + line for line in lines)


def _render_table(
    path: KeyPath, section: BaseModel, loaded: Loaded, blocks: list[str], *, color: bool
) -> None:
    """Append the table's own keys, then the tables in it."""
    rows: list[_Row] = []
    below: list[tuple[KeyPath, Any]] = []
    for name, known in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            below.append(((*path, name), value))
        elif isinstance(value, dict):
            models = {key: inner for key, inner in value.items() if isinstance(inner, BaseModel)}
            below += [((*path, name, key), inner) for key, inner in models.items()]
            if value and not models:
                below.append(((*path, name), value))
        else:
            rows.append(_row((*path, name), written(value, known), section, loaded))
    if rows:
        blocks.append(_block(path, rows, color=color))
    for inner_path, inner in below:
        if isinstance(inner, BaseModel):
            _render_table(inner_path, inner, loaded, blocks, color=color)
        else:
            values = redact(inner_path, inner)
            rows = [_row((*inner_path, key), value, None, loaded) for key, value in values.items()]
            blocks.append(_block(inner_path, rows, color=color))


_Row = tuple[str, str, bool]
"""What is set, the comment, and whether it is a default."""


def _row(path: KeyPath, value: Any, section: BaseModel | None, loaded: Loaded) -> _Row:
    origin = loaded.origins[".".join(path)]
    comment = origin
    if isinstance(section, PoolSettings) and path[-1] == "workers" and value == "auto":
        count, reason = resolve_workers(section)
        comment = f"{origin}; {count}: {reason}"
    key = _key(path[-1])
    # TOML has no null: what is not set is shown as a comment.
    text = f"# {key} is not set" if value is None else f"{key} = {to_toml(redact(path, value))}"
    return text, comment, origin == DEFAULT


def _block(path: KeyPath, rows: list[_Row], *, color: bool) -> str:
    lengths = (len(text) for text, _, _ in rows)
    width = max((length for length in lengths if length <= _WIDEST), default=0)
    lines = [_paint(f"[{'.'.join(map(_key, path))}]", _BOLD, color=color)]
    for text, comment, is_default in rows:
        line = f"{text:<{width}}  # {comment}"
        lines.append(_paint(line, _DIM, color=color and is_default))
    return "\n".join(lines)


def written(value: Any, known: FieldInfo) -> Any:
    """Return a field's value as people write it: `75s`, `512MB`."""
    if value is None:
        return None
    if is_quantity(known, Seconds):
        return format_duration(value)
    if is_quantity(known, ByteSize):
        return format_size(value)
    return value


def is_quantity(known: FieldInfo, quantity: type) -> bool:
    """Tell whether a field is annotated with this quantity, be it optional or not."""
    parts = [known.annotation, *get_args(known.annotation)]
    metadata = [*known.metadata, *(item for part in parts for item in get_args(part)[1:])]
    return any(isinstance(item, quantity) for item in metadata)


def to_toml(value: Any) -> str:
    """Return a value as TOML writes it on one line."""
    if isinstance(value, str):
        # JSON's strings are TOML's basic strings, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(str(key))} = {to_toml(item)}" for key, item in value.items())
        return "{ " + inner + " }" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return str(value)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else to_toml(name)


def _shown(value: Any) -> str:
    """Return a wrong value on one line, cut where it is very long."""
    text = to_toml(value)
    return text if len(text) <= _WIDEST * 2 else text[: _WIDEST * 2] + "…"


def _paint(text: str, code: str, *, color: bool) -> str:
    return f"{code}{text}{_RESET}" if color else text
