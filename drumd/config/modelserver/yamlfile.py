"""A YAML file that holds one mapping, with the line of each of its keys."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drumd.config.problems import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlFile:
    """What a file says; nothing where there is a problem with the file itself."""

    name: str
    """As it is shown."""
    data: Mapping[Any, Any] = field(default_factory=dict, repr=False)
    texts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The same, with every value as it is written: `yes` is a text here, no boolean."""
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict)
    """By path: the keys of the mapping, and those of mappings and lists in it."""
    problems: tuple[Problem, ...] = ()
    digest: str = ""
    """Another one for other content; nothing for a file that cannot be read."""

    def origin(self, *path: str | int) -> str:
        """Return where the value at a path is said, such as `params.yaml:3`."""
        line = self.lines.get(path)
        return self.name if line is None else f"{self.name}:{line}"


def read_yaml(file: Path, name: str, what: str) -> YamlFile:
    """Read `file`, which is shown as `name` and meant as `what` ("the runtime parameters")."""

    def refused(message: str, suggestion: str = "", origin: str = name) -> YamlFile:
        problem = Problem(
            key=name,
            message=f"cannot read {what}: {message}",
            suggestion=suggestion,
            origin=origin,
        )
        return YamlFile(name=name, problems=(problem,))

    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return refused("there is no such file", f"looked for {file}")
    except OSError as error:
        return refused(os.strerror(error.errno or 0).lower())
    try:
        import yaml  # noqa: PLC0415 - a model without such a file needs no YAML
    except ModuleNotFoundError:
        return refused("PyYAML is not installed", "install it with pip install 'drumd[model]'")
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
        data = yaml.safe_load(content)
        # A loader that makes texts and nothing else: safer than the safe one.
        texts = yaml.load(content, Loader=yaml.BaseLoader)  # noqa: S506 - see above
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        origin = name if mark is None else f"{name}:{mark.line + 1}"
        return refused(f"it is no YAML: {error.problem or error.context}", origin=origin)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        # yaml makes numbers and dates by Python's own classes, which say what is wrong.
        said = str(error).splitlines()
        return refused(f"it is no YAML: {said[0] if said else type(error).__name__}")
    if data is None:
        return YamlFile(name=name, digest=_digest(content))
    if not isinstance(data, dict) or root is None:
        return refused(
            f"it is {_KINDS.get(type(data), 'no mapping')}, where a mapping is expected",
            "write NAME: value, one a line",
        )
    lines: dict[tuple[str | int, ...], int] = {}
    twice: list[Problem] = []
    _walk(root, (), lines, twice, name)
    return YamlFile(
        name=name,
        data=data,
        texts=texts,
        lines=lines,
        problems=tuple(twice),
        digest=_digest(content),
    )


_KINDS: dict[type, str] = {list: "a list", str: "a text", int: "a number", float: "a number"}
_DEEPEST = 4
"""Levels whose lines are told of: deeper ones are nobody's settings."""


def _walk(
    node: Any,
    path: tuple[str | int, ...],
    lines: dict[tuple[str | int, ...], int],
    twice: list[Problem],
    name: str,
) -> None:
    """Note the line of each key, and each key that is there twice: YAML takes the last."""
    if len(path) >= _DEEPEST:
        return
    if node.id == "sequence":
        for at, item in enumerate(node.value):
            lines[(*path, at)] = item.start_mark.line + 1
            _walk(item, (*path, at), lines, twice, name)
    if node.id != "mapping":
        return
    for key, value in node.value:
        if key.id != "scalar":
            continue
        inner = (*path, key.value)
        line = key.start_mark.line + 1
        if inner in lines:
            twice.append(
                Problem(
                    key=".".join(map(str, inner)),
                    message=f"is there twice, on lines {lines[inner]} and {line}",
                    suggestion="leave one out",
                    origin=f"{name}:{line}",
                )
            )
        lines[inner] = line
        _walk(value, inner, lines, twice, name)


def _digest(content: bytes) -> str:
    import hashlib  # noqa: PLC0415 - as above

    return hashlib.sha256(content).hexdigest()[:12]
