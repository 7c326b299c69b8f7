"""Durations and sizes as people write them: `30s`, `1h30m`, `512MB`, `2GiB`."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, get_args

from pydantic import GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PLAIN_NUMBER = re.compile(rf"[+-]?{_NUMBER}")

_SECONDS_PER_UNIT = {
    "d": Decimal(86_400),
    "h": Decimal(3_600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
    "us": Decimal("0.000001"),
}
"""Units of durations, the longest first: `1h30m` names them in this order."""

_DURATION_PART = re.compile(rf"({_NUMBER})(us|ms|[dhms])")

_BYTES_PER_UNIT = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}

_UNIT_BY_SPELLING = {
    **{unit.lower(): unit for unit in _BYTES_PER_UNIT},
    **{unit[0].lower(): unit for unit in ("KB", "MB", "GB", "TB")},
    **{unit[:2].lower(): unit for unit in ("KiB", "MiB", "GiB", "TiB")},
}

_SIZE = re.compile(rf"({_NUMBER}) ?([a-zA-Z]*)")

_SECONDS_STAY_BELOW = 120
"""Below this many seconds a duration is shown in seconds: 75s says more than 1m15s."""


def parse_duration(value: object) -> float:
    """Return the seconds that `value` means: a number is seconds, a string may have units.

    Raise `ValueError` for what cannot be read, and for NaN, infinities and booleans.
    """
    unreadable = ValueError(f"cannot read {value!r} as a duration; write e.g. 30s, 500ms or 1h30m")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise unreadable
    if isinstance(value, str):
        seconds = _parse_duration_text(value.strip())
        if seconds is None:
            raise unreadable
        return seconds
    return _finite(value, unreadable)


def _parse_duration_text(text: str) -> float | None:
    if _PLAIN_NUMBER.fullmatch(text):
        return float(text)
    parts = _DURATION_PART.findall(text)
    units = [unit for _, unit in parts]
    in_order = [unit for unit in _SECONDS_PER_UNIT if unit in units]
    if not parts or "".join(map("".join, parts)) != text or units != in_order:
        return None
    return float(sum(Decimal(number) * _SECONDS_PER_UNIT[unit] for number, unit in parts))


def format_duration(seconds: float) -> str:
    """Return `seconds` as `parse_duration` reads it back: `250ms`, `75s`, `1h30m`."""
    exact = Decimal(repr(float(seconds) + 0.0))  # + 0.0 makes -0.0 plain
    if exact < 0:  # no setting allows it; a message about one shows it
        return _plain(exact)
    if 0 < exact < 1:
        return _plain(exact * 1000) + "ms"
    if exact < _SECONDS_STAY_BELOW or exact != exact.to_integral_value():
        return _plain(exact) + "s"
    parts = []
    rest = int(exact)
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, int(_SECONDS_PER_UNIT[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def parse_size(value: object) -> int:
    """Return the bytes that `value` means: a number is bytes, a string may have a unit.

    `KB MB GB TB` and `K M G T` are powers of 1000, `KiB MiB GiB TiB` powers of 1024; upper and
    lower case are the same. Raise `ValueError` for what cannot be read and for parts of a byte.
    """
    unreadable = ValueError(f"cannot read {value!r} as a size; write e.g. 512MB, 512MiB or 1.5GB")
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise unreadable
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        unit = _UNIT_BY_SPELLING.get(match[2].lower() or "b") if match else None
        if match is None or unit is None:
            raise unreadable
        exact = Decimal(match[1]) * _BYTES_PER_UNIT[unit]
    else:
        exact = Decimal(repr(_finite(value, unreadable)) if isinstance(value, float) else value)
    if exact != exact.to_integral_value():
        raise ValueError(f"cannot use {value!r} as a size: that is no whole number of bytes")
    return int(exact)


def format_size(size: int) -> str:
    """Return `size` as `parse_size` reads it back, in the largest unit that is exact."""
    if size:
        for unit, factor in sorted(_BYTES_PER_UNIT.items(), key=lambda item: -item[1]):
            if size % factor == 0:
                return f"{size // factor}{unit}"
    return f"{size}B"


def _finite(value: float, unreadable: ValueError) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise unreadable from None
    if not math.isfinite(number):
        raise unreadable
    return number


def _plain(number: Decimal) -> str:
    """Return the number without an exponent and without zeros that say nothing."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class _Quantity:
    """An annotation that reads a value by `parse` before pydantic looks at it."""

    parse: Callable[[object], Any]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(type(self).parse, handler(source))


class Seconds(_Quantity):
    """Annotates a float field that is written as a duration."""

    parse = staticmethod(parse_duration)


class ByteSize(_Quantity):
    """Annotates an int field that is written as a size."""

    parse = staticmethod(parse_size)


def is_quantity(known: FieldInfo, quantity: type[_Quantity]) -> bool:
    """Tell whether a field is annotated with this quantity, be it optional or not."""
    parts = [known.annotation, *get_args(known.annotation)]
    metadata = [*known.metadata, *(item for part in parts for item in get_args(part)[1:])]
    return any(isinstance(item, quantity) for item in metadata)
