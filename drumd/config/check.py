"""What `drumd check` prints: the whole config with origins, or all that is wrong with it."""

from typing import Any

from pydantic import BaseModel

from drumd.config.cpus import resolve_workers
from drumd.config.layers import KeyPath
from drumd.config.loading import DEFAULT, Loaded
from drumd.config.modelserver import inforce
from drumd.config.problems import ABSENT, ConfigInvalid, Problem
from drumd.config.secrets import redact
from drumd.config.settings import PoolSettings
from drumd.config.writing import BOLD, DIM, RED, YELLOW, align, paint, to_toml, toml_key, written

_WIDEST = 48
"""Columns that align the comments; one long value does not push all of them to the right."""


def render(loaded: Loaded, *, color: bool) -> str:
    """Return the config as TOML: it may be copied into a file, secrets excepted.

    Comments tell where each value came from. With `color`, defaults are dimmed.
    """
    blocks: list[str] = []
    _render_table((), loaded.settings, loaded, blocks, color=color)
    if loaded.model is not None:
        blocks.append(inforce.render(loaded.model))
    warnings = [paint(f"# warning: {warning}", YELLOW, color=color) for warning in loaded.warnings]
    if warnings:
        blocks.append("\n".join(warnings))
    return "\n\n".join(blocks) + "\n"


def render_problems(error: ConfigInvalid, *, color: bool = False) -> str:
    """Return all problems, one block each."""
    count = len(error.problems)
    blocks = [f"cannot use the config: {count} problem{'' if count == 1 else 's'}"]
    blocks += [_render_problem(problem, color=color) for problem in error.problems]
    hints = [paint(f"warning: {hint}", YELLOW, color=color) for hint in error.hints]
    if hints:
        blocks.append("\n".join(hints))
    return "\n\n".join(blocks) + "\n"


def _render_problem(problem: Problem, *, color: bool) -> str:
    head = paint(problem.key, BOLD, color=color)
    if problem.value is not ABSENT:
        head += f" = {_shown(problem.value)}"
    if problem.origin not in ("", problem.key):
        head += f"   # {problem.origin}"
    lines = [head, "  " + paint(problem.message, RED, color=color)]
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
    key = toml_key(path[-1])
    # TOML has no null: what is not set is shown as a comment.
    text = f"# {key} is not set" if value is None else f"{key} = {to_toml(redact(path, value))}"
    return text, comment, origin == DEFAULT


def _block(path: KeyPath, rows: list[_Row], *, color: bool) -> str:
    lines = [paint(f"[{toml_key(*path)}]", BOLD, color=color)]
    aligned = align([(text, comment) for text, comment, _ in rows], _WIDEST)
    for line, (_, _, is_default) in zip(aligned, rows, strict=True):
        lines.append(paint(line, DIM, color=color and is_default))
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """Return a wrong value on one line, cut where it is very long."""
    text = to_toml(value)
    return text if len(text) <= _WIDEST * 2 else text[: _WIDEST * 2] + "…"
