"""Values of runtime parameters: their types, and what a plain text means."""

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from drumd.config.secrets import MASK, looks_secret


class ParameterType(StrEnum):
    """What kind of value a parameter has."""

    STRING = "string"
    BOOLEAN = "boolean"
    NUMERIC = "numeric"
    CREDENTIAL = "credential"
    """A mapping that nobody is shown."""
    DEPLOYMENT = "deployment"
    """The id of a deployment."""


class Credential(dict[str, Any]):
    """A credential: a dict as any other, which does not show what is in it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__({key: _hidden(value) for key, value in values.items()})

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key!r}: {MASK!r}" for key in self) + "}"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        return Credential, (dict(self),)


def _hidden(value: Any) -> Any:
    """Return the value with every mapping in it hidden."""
    if isinstance(value, Mapping):
        return Credential(value)
    return [_hidden(item) for item in value] if isinstance(value, list) else value


def shown(name: str, value: Any, kind: ParameterType | None) -> Any:
    """Return what may be shown of a value, wrong ones included.

    Only credentials are mappings: what is one, or is to be one, is not shown whatever its type
    is said to be, since that may be what is wrong.
    """
    secret = kind is ParameterType.CREDENTIAL or _looks_like_a_mapping(value)
    return MASK if secret or looks_secret(name) else value


def _looks_like_a_mapping(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_looks_like_a_mapping, value))
    return isinstance(value, Mapping) or (
        isinstance(value, str) and value.lstrip().startswith(("{", "[{"))
    )


def plain(text: str) -> Any:
    """Return what a text looks like: a number, a boolean, other JSON, or the text itself.

    What only looks broken is a text; nothing is refused.
    """
    if text.strip().lower() in _BOOLEANS:
        return _BOOLEANS[text.strip().lower()]
    found = _json(text)
    return text if found is _NO_JSON or isinstance(found, str) else found


def typed(text: str) -> tuple[str, Any] | None:
    """Return type and payload of `{"type": …, "payload": …}`; None for any other text."""
    if not looks_typed(text):
        return None
    found = _json(text)
    if isinstance(found, dict) and "type" in found and "payload" in found:
        return str(found["type"]), found["payload"]
    return None


def converted(text: str, kind: ParameterType) -> Any:
    """Return what a plain text means as a value of this type; None for an empty one.

    Raise `ValueError` for what cannot be one.
    """
    if kind is ParameterType.STRING:
        return text
    if looks_typed(text):
        _refuse_untyped(text, kind)
    if kind is ParameterType.DEPLOYMENT:
        return text
    if not text.strip():
        return None
    found = plain(text)
    return checked(found, kind)


def looks_typed(text: str) -> bool:
    """Return whether a text begins as JSON with a type and a payload does."""
    return text.lstrip().startswith("{")


def _refuse_untyped(text: str, kind: ParameterType) -> None:
    """Raise `ValueError` for broken JSON, which is never repeated, and for one without payload."""
    example = f'write {{"type": "{kind}", "payload": {_PAYLOADS.get(kind, "…")}}}'
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        # What follows a colon may be of the text.
        reason = error.msg.partition(":")[0].removesuffix(" at").lower()
        raise ValueError(f"is no JSON: {reason} at character {error.pos + 1}; {example}") from None
    except (ValueError, RecursionError):  # told by whoever looks at what it means
        return
    if "type" not in found or "payload" in found:
        return
    # A credential need not say its type, and may have a key of that name, as Google's have.
    if kind is not ParameterType.CREDENTIAL or found["type"] in list(ParameterType):
        raise ValueError(f"has no payload; {example}")


def checked(value: Any, kind: ParameterType) -> Any:
    """Return a value that is of this type, or nothing; raise `ValueError` for another one."""
    if value is None:
        return None
    fits, expected = _FITS[kind]
    is_one = isinstance(value, fits) and isinstance(value, bool) is (kind is ParameterType.BOOLEAN)
    if not is_one or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"must be {expected}")
    if kind is not ParameterType.CREDENTIAL:
        return value
    try:
        return Credential(value)
    except RecursionError:
        raise ValueError("must be a mapping that is not nested as deep") from None


_FITS: dict[ParameterType, tuple[Any, str]] = {
    ParameterType.STRING: (str, "a string; numbers, dates, yes and no need quotes to be one"),
    ParameterType.BOOLEAN: (bool, "true or false"),
    ParameterType.NUMERIC: ((int, float), "a number"),
    ParameterType.CREDENTIAL: (Mapping, "a mapping, such as one with a credentialType"),
    ParameterType.DEPLOYMENT: (str, "a string, the id of a deployment"),
}
_PAYLOADS = {ParameterType.CREDENTIAL: "{…}", ParameterType.DEPLOYMENT: '"…"'}
_BOOLEANS = {"true": True, "false": False}
_NO_JSON = object()


def _json(text: str) -> Any:
    """Return what JSON means, or `_NO_JSON`; NaN, and numbers beyond all bounds, are none."""

    def finite(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise ValueError(digits)
        return number

    def refused(name: str) -> Any:
        raise ValueError(name)

    try:
        return json.loads(text, parse_float=finite, parse_constant=refused)
    except (ValueError, RecursionError):  # Python reads no number of more than 4300 digits
        return _NO_JSON
