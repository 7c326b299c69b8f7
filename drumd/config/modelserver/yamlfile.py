"""A YAML file that holds one mapping, with the line of each of its keys."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drumd.config.problems import Problem

Place = tuple[str | int, ...]
"""The keys, and positions in lists, that lead to a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlFile:
    """What a file says; nothing where there is a problem with the file itself."""

    name: str
    """As it is shown."""
    data: Mapping[Any, Any] = field(default_factory=dict, repr=False)
    texts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The same, with every value as it is written: `yes` is a text here, no boolean."""
    lines: Mapping[Place, int] = field(default_factory=dict)
    """By path: the keys of the mapping, and those of mappings and lists in it."""
    problems: tuple[Problem, ...] = ()

    def origin(self, *path: str | int) -> str:
        """Return where the value at a path is said, such as `params.yaml:3`."""
        line = self.lines.get(path)
        return self.name if line is None else f"{self.name}:{line}"


def read_yaml(file: Path, name: str, what: str) -> YamlFile:
    """Read `file`, which is shown as `name` and meant as `what` ("the runtime parameters")."""
    try:
        content = _content(file)
        root, data, texts = _parsed(content)
    except _UnreadableError as error:
        problem = Problem(
            key=name,
            message=f"cannot read {what}: {error}",
            suggestion=error.suggestion,
            origin=f"{name}:{error.line}" if error.line else name,
        )
        return YamlFile(name=name, problems=(problem,))
    lines: dict[Place, int] = {}
    twice = list(_walk(root, (), lines, name))
    return YamlFile(name=name, data=data, texts=texts, lines=lines, problems=tuple(twice))


class _UnreadableError(Exception):
    """cannot read a file."""

    def __init__(self, message: str, suggestion: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.suggestion = suggestion
        self.line = line


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise _UnreadableError("there is no such file", f"looked for {file}") from None
    except (OSError, ValueError) as error:  # a NUL in a name is a ValueError
        why = error.strerror if isinstance(error, OSError) else None
        raise _UnreadableError((why or str(error)).lower()) from None


def _parsed(content: bytes) -> tuple[Any, Mapping[Any, Any], Mapping[str, Any]]:
    """Return YAML's nodes, and what they mean, and the same as texts; raise `_UnreadableError`."""
    try:
        import yaml  # noqa: PLC0415 - a model without such a file needs no YAML
    except ModuleNotFoundError:
        raise _UnreadableError(
            "PyYAML is not installed", "install it with pip install 'drumd[model]'"
        ) from None
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
        data = yaml.safe_load(content)
        # A loader that makes texts and nothing else: safer than the safe one.
        texts = yaml.load(content, Loader=yaml.BaseLoader)  # noqa: S506 - see above
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 0 if mark is None else mark.line + 1
        raise _UnreadableError(
            f"it is no YAML: {error.problem or error.context}", line=line
        ) from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        # yaml makes numbers and dates by Python's own classes, which say what is wrong.
        said = str(error).splitlines()
        raise _UnreadableError(
            f"it is no YAML: {said[0] if said else type(error).__name__}"
        ) from None
    if data is None:
        return None, {}, {}
    if not isinstance(data, dict):
        found = _KINDS.get(type(data), "no mapping")
        raise _UnreadableError(
            f"it is {found}, where a mapping is expected", "write NAME: value, one a line"
        )
    return root, data, texts


_KINDS: dict[type, str] = {list: "a list", str: "a text", int: "a number", float: "a number"}
_DEEPEST = 4
"""Levels whose lines are told of: deeper ones are nobody's settings."""


def _walk(node: Any, path: Place, lines: dict[Place, int], name: str) -> Iterator[Problem]:
    """Note the line of each key; yield a problem for each that is there twice: YAML takes the last.

    A key is looked at only where it is a text, and not too deep.
    """
    if node is None or len(path) >= _DEEPEST:
        return
    if node.id == "sequence":
        for at, item in enumerate(node.value):
            lines[(*path, at)] = item.start_mark.line + 1
            yield from _walk(item, (*path, at), lines, name)
    if node.id != "mapping":
        return
    for key, value in node.value:
        if key.id != "scalar":
            continue
        inner = (*path, key.value)
        line = key.start_mark.line + 1
        if inner in lines:
            yield Problem(
                key=".".join(map(str, inner)),
                message=f"is there twice, on lines {lines[inner]} and {line}",
                suggestion="leave one out",
                origin=f"{name}:{line}",
            )
        lines[inner] = line
        yield from _walk(value, inner, lines, name)
