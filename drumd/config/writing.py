"""How values of the config are written for people: as TOML, with units, perhaps in colour."""

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from drumd.config.kinds import WorkerRange
from drumd.config.quantities import (
    ByteSize,
    Seconds,
    format_duration,
    format_size,
    is_quantity,
)

DIM = "\x1b[2m"
YELLOW = "\x1b[33m"
RED = "\x1b[31m"
BOLD = "\x1b[1m"
_RESET = "\x1b[0m"

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def written(value: Any, known: FieldInfo) -> Any:
    """Return a field's value as people write it: `75s`, `512MB`, `{ min = 2, max = 8 }`."""
    if value is None:
        return None
    if isinstance(value, WorkerRange):
        return {"min": value.least, "max": value.most}
    if is_quantity(known, Seconds):
        return format_duration(value)
    if is_quantity(known, ByteSize):
        return format_size(value)
    return value


def to_toml(value: Any) -> str:
    """Return a value as TOML writes it on one line."""
    if isinstance(value, str):
        # JSON's strings are TOML's basic strings, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{toml_key(str(key))} = {to_toml(item)}" for key, item in value.items())
        return "{ " + inner + " }" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return str(value)


def toml_key(*path: str) -> str:
    """Return a key, or the dotted key of a path, with quotes where TOML wants them."""
    return ".".join(name if _BARE_KEY.fullmatch(name) else to_toml(name) for name in path)


def align(rows: list[tuple[str, str]], widest: int) -> list[str]:
    """Return each text with its comment, the comments in one column.

    A text longer than `widest` does not push the others' comments to the right.
    """
    lengths = (len(text) for text, _ in rows)
    width = max((length for length in lengths if length <= widest), default=0)
    return [f"{text:<{width}}  # {comment}" for text, comment in rows]


def paint(text: str, code: str, *, color: bool) -> str:
    """Return the text in a colour, or as it is without `color`."""
    return f"{code}{text}{_RESET}" if color else text
