"""What a parameter may be: its type, range and default, as the model or drumd itself says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drumd.config.modelserver.metadata import METADATA, Metadata
from drumd.config.modelserver.values import ParameterType, checked, shown
from drumd.config.problems import ABSENT, Problem, nearest

_KEY = "runtimeParameterDefinitions"
_FIELDS = ("fieldName", "type", "defaultValue", "minValue", "maxValue", "allowEmpty", "description")
_REQUIRED = ("fieldName", "type")
_IGNORED = ("credentialType",)
"""Fields that others read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One parameter. A value of `None` is an empty one."""

    name: str
    type: ParameterType
    default: Any = None
    least: float | None = None
    most: float | None = None
    allow_empty: bool = True
    origin: str = METADATA

    def check(self, value: Any) -> Any:
        """Return the value; raise `ValueError` that says what is allowed.

        The value is of this type, or of another one, or nothing.
        """
        found = checked(value, self.type)
        if found is None or found == "" or found == {}:
            if not self.allow_empty:
                raise ValueError("must not be empty")
            return found
        if self.type is ParameterType.NUMERIC:
            check_range(found, self.least, self.most)
        return found


def check_range(number: float, least: float | None, most: float | None) -> None:
    """Raise `ValueError` for a number that is out of its range, and say the range."""
    if (least is not None and number < least) or (most is not None and number > most):
        raise ValueError(f"must be {range_in_words(least, most)}")


def range_in_words(least: float | None, most: float | None) -> str:
    """Return `from 1 to 256`, `at least 1`, or `at most 256`."""
    if least is None:
        return f"at most {_number(most)}"
    return (
        f"at least {_number(least)}"
        if most is None
        else f"from {_number(least)} to {_number(most)}"
    )


def _number(number: float | None) -> str:
    return str(int(number)) if number is not None and number == int(number) else str(number)


def read_definitions(metadata: Metadata) -> tuple[dict[str, Definition], list[Problem]]:
    """Return the definitions of a model by name, and all that is wrong with them."""
    listed = metadata.value(_KEY)
    if listed is None:
        return {}, []
    origin = metadata.file.origin(_KEY)
    if not isinstance(listed, list):
        return {}, [Problem(key=_KEY, message="must be a list of definitions", origin=origin)]
    found: dict[str, Definition] = {}
    problems: list[Problem] = []
    for at, item in enumerate(listed):
        origin = metadata.file.origin(_KEY, at)
        definition, wrong = _read(item, f"{_KEY}[{at}]", origin)
        problems += wrong
        if definition is None:
            continue
        if definition.name in found:
            first = found[definition.name].origin
            message = f"is defined twice, at {first} and here"
            problems.append(Problem(key=definition.name, message=message, origin=origin))
        found[definition.name] = definition
    return found, problems


def _read(item: Any, place: str, origin: str) -> tuple[Definition | None, list[Problem]]:
    """Read one definition; what is wrong with its values leaves the rest of it in force."""
    problems: list[Problem] = []

    def wrong(field: str, message: str, suggestion: str = "", value: Any = ABSENT) -> None:
        key = f"{name or place}.{field}" if field else (name or place)
        problems.append(
            Problem(key=key, value=value, message=message, suggestion=suggestion, origin=origin)
        )

    name = ""
    if not isinstance(item, Mapping):
        wrong("", "must be a mapping with fieldName and type")
        return None, problems
    given = item.get("fieldName")
    name = given if isinstance(given, str) else ""
    for field in item:
        if field not in (*_FIELDS, *_IGNORED):
            meant = nearest(str(field), _FIELDS)
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(_FIELDS)}"
            wrong(str(field), "is no field of a definition", hint)
    missing = [field for field in _REQUIRED if item.get(field) in (None, "")]
    for field in missing:
        wrong(field, "is missing")
    if not name:
        if "fieldName" not in missing:
            wrong("fieldName", "must be a string", value=given)
        return None, problems
    if "type" in missing:
        return None, problems
    kind = parameter_type(item["type"])
    if kind is None:
        wrong("type", *unknown_type(item["type"]), value=item["type"])
        return None, problems
    bounds: dict[str, float | None] = {}
    for field in ("minValue", "maxValue"):
        try:
            bounds[field] = checked(item.get(field), ParameterType.NUMERIC)
        except ValueError as error:
            bounds[field] = None
            wrong(field, str(error), value=item[field])
        if bounds[field] is not None and kind is not ParameterType.NUMERIC:
            wrong(field, f"is for numeric parameters, and this one is a {kind}")
    least, most = bounds["minValue"], bounds["maxValue"]
    if least is not None and most is not None and least > most:
        wrong("minValue", f"must be at most maxValue, which is {_number(most)}", value=least)
        least = most = None
    empty = item.get("allowEmpty", True)
    if not isinstance(empty, bool):
        wrong("allowEmpty", "must be true or false", value=empty)
        empty = True
    definition = Definition(
        name=name, type=kind, least=least, most=most, allow_empty=empty, origin=origin
    )
    default = item.get("defaultValue")
    if default in (None, ""):
        return definition, problems
    try:
        value = definition.check(default)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        wrong("defaultValue", message, hint, shown(name, default, kind))
        return definition, problems
    return (
        Definition(
            name=name,
            type=kind,
            default=value,
            least=least,
            most=most,
            allow_empty=empty,
            origin=origin,
        ),
        problems,
    )


def parameter_type(text: Any) -> ParameterType | None:
    """Return the type of this name, or None."""
    try:
        return ParameterType(str(text).strip().lower())
    except ValueError:
        return None


def unknown_type(text: Any) -> tuple[str, str]:
    """Return what is wrong with the name of a type, and what was meant."""
    meant = nearest(str(text), ParameterType)
    return (
        f"must be one of {', '.join(ParameterType)}",
        f"did you mean {meant}?" if meant else "",
    )
