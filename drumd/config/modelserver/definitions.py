"""What a parameter may be: its type, range and default, as the model or drumd itself says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Any

from drumd.config.modelserver.metadata import METADATA, Metadata
from drumd.config.modelserver.values import ParameterType, checked, shown
from drumd.config.problems import ABSENT, Problem, nearest

_KEY = "runtimeParameterDefinitions"
_FIELDS = ("fieldName", "type", "defaultValue", "minValue", "maxValue", "allowEmpty", "description")
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
        if found is None or found in ("", {}):
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
        place = f"{_KEY}[{at}]"
        if not isinstance(item, Mapping):
            message = "must be a mapping with fieldName and type"
            problems.append(Problem(key=place, message=message, origin=origin))
            continue
        reader = _Reader(item, place, origin)
        definition = reader.definition()
        problems += reader.problems
        if definition is None:
            continue
        if definition.name in found:
            first = found[definition.name].origin
            message = f"is defined twice, at {first} and here"
            problems.append(Problem(key=definition.name, message=message, origin=origin))
        found[definition.name] = definition
    return found, problems


@dataclass(slots=True)
class _Reader:
    """Reads one definition; what is wrong with its values leaves the rest of it in force."""

    item: Mapping[Any, Any]
    place: str
    origin: str
    problems: list[Problem] = dataclass_field(default_factory=list)

    def definition(self) -> Definition | None:
        self._look_at_fields()
        name, said_type = self.item.get("fieldName"), self.item.get("type")
        if not isinstance(name, str) or not name:
            self._wrong("fieldName", "is missing" if name in (None, "") else "must be a string")
            return None
        self.place = name
        if said_type in (None, ""):
            self._wrong("type", "is missing")
            return None
        kind = parameter_type(said_type)
        if kind is None:
            self._wrong("type", "; ".join(unknown_type(said_type)), said_type)
            return None
        least, most = self._bounds(kind)
        empty = self.item.get("allowEmpty", True)
        if not isinstance(empty, bool):
            self._wrong("allowEmpty", "must be true or false", empty)
            empty = True
        bare = Definition(
            name=name, type=kind, least=least, most=most, allow_empty=empty, origin=self.origin
        )
        return self._with_default(bare)

    def _look_at_fields(self) -> None:
        for field in self.item:
            if field not in (*_FIELDS, *_IGNORED):
                meant = nearest(str(field), _FIELDS)
                hint = f"did you mean {meant}?" if meant else f"there are {', '.join(_FIELDS)}"
                self._wrong(str(field), f"is no field of a definition; {hint}")

    def _bounds(self, kind: ParameterType) -> tuple[float | None, float | None]:
        least, most = self._bound("minValue", kind), self._bound("maxValue", kind)
        if least is not None and most is not None and least > most:
            self._wrong("minValue", f"must be at most maxValue, which is {_number(most)}", least)
            return None, None
        return least, most

    def _bound(self, field: str, kind: ParameterType) -> float | None:
        value = self.item.get(field)
        if value is not None and kind is not ParameterType.NUMERIC:
            self._wrong(field, f"is for numeric parameters, and this one is a {kind}")
            return None
        try:
            bound: float | None = checked(value, ParameterType.NUMERIC)
        except ValueError as error:
            self._wrong(field, str(error), value)
            return None
        return bound

    def _with_default(self, definition: Definition) -> Definition:
        default = self.item.get("defaultValue")
        if default is None or default == "":
            return definition
        try:
            return replace(definition, default=definition.check(default))
        except ValueError as error:
            value = shown(definition.name, default, definition.type)
            self._wrong("defaultValue", str(error), value)
            return definition

    def _wrong(self, field: str, message: str, value: Any = ABSENT) -> None:
        message, _, suggestion = message.partition("; ")
        self.problems.append(
            Problem(
                key=f"{self.place}.{field}",
                value=value,
                message=message,
                suggestion=suggestion,
                origin=self.origin,
            )
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
