"""Runtime parameters: what environment, file and definitions make of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drumd.config.modelserver.definitions import (
    Definition,
    parameter_type,
    read_definitions,
    unknown_type,
)
from drumd.config.modelserver.known import PLAIN_VARIABLES
from drumd.config.modelserver.metadata import METADATA, Metadata
from drumd.config.modelserver.sayings import Sayings
from drumd.config.modelserver.table import KNOWN
from drumd.config.modelserver.values import (
    ParameterType,
    checked,
    converted,
    looks_typed,
    plain,
    shown,
    typed,
)
from drumd.config.modelserver.yamlfile import YamlFile, read_yaml
from drumd.config.problems import ABSENT, Problem, nearest

PREFIX = "MLOPS_RUNTIME_PARAM_"
FILE = "RUNTIME_PARAMS_FILE"
ENVIRONMENT = "environment "
"""How the origins of variables begin."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter with its value."""

    name: str
    value: Any = field(repr=False)
    """None for an empty one."""
    origin: str
    """Where it was said: `environment MLOPS_RUNTIME_PARAM_X`, `params.yaml:3`."""


def origin_of(parameter: Parameter) -> str:
    """Return where a parameter was said, as origins of settings have it."""
    where = "environment" if parameter.origin.startswith(ENVIRONMENT) else parameter.origin
    return f"runtime parameter {parameter.name} ({where})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """All parameters, and all that is wrong with them."""

    by_name: Mapping[str, Parameter]
    problems: tuple[Problem, ...]
    defined: frozenset[str] = frozenset()
    """Names that the model has a definition of."""

    def get(self, name: str, otherwise: Any = None) -> Any:
        """Return the value of a parameter, or `otherwise` where it has none."""
        found = self.by_name.get(name)
        return otherwise if found is None or found.value is None else found.value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """What one source says of a parameter."""

    value: Any
    origin: str
    is_text: bool = False
    """A plain text, which means what its parameter's type makes of it."""
    type: str | None = None
    """Said with the value."""


def read_parameters(sayings: Sayings, metadata: Metadata, directory: Path) -> Parameters:
    """Read all parameters; a file that flag or environment name is looked for in `directory`."""
    definitions, problems = read_definitions(metadata)
    file = _file(sayings, directory)
    said_by_file, unknown = _of_file(file, definitions)
    problems += [*file.problems, *unknown]
    said = said_by_file | dict(_of_environment(sayings.environ))
    found: dict[str, Parameter] = {}
    for name in [*definitions, *(name for name in said if name not in definitions)]:
        parameter, problem = _settle(name, said.get(name), definitions.get(name))
        if problem is not None:
            problems.append(problem)
        if parameter is not None:
            found[name] = parameter
    return Parameters(by_name=found, problems=tuple(problems), defined=frozenset(definitions))


def _file(sayings: Sayings, directory: Path) -> YamlFile:
    named = sayings.get(FILE)
    if named is None:
        return YamlFile(name="")
    return read_yaml(directory / Path(named[0]).expanduser(), named[0], "the runtime parameters")


def _of_file(
    file: YamlFile, definitions: Mapping[str, Definition]
) -> tuple[dict[str, _Said], list[Problem]]:
    """Return what the file says, and what it says of parameters that there are not."""
    said: dict[str, _Said] = {}
    unknown: list[Problem] = []
    for name, value in file.data.items():
        origin = file.origin(str(name))
        if name in definitions or name in KNOWN:
            said[name] = _Said(value=value, origin=origin)
            continue
        meant = nearest(str(name), [*definitions, *KNOWN])
        advice = f"add it to runtimeParameterDefinitions in {METADATA}"
        unknown.append(
            Problem(
                key=str(name),
                message="is no parameter of this model",
                suggestion=f"did you mean {meant}? else {advice}" if meant else advice,
                origin=origin,
            )
        )
    return said, unknown


def _of_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, _Said]]:
    for variable in (each for each in sorted(PLAIN_VARIABLES) if environ.get(each)):
        yield variable, _from_text(environ[variable], f"{ENVIRONMENT}{variable}")
    for variable, text in sorted(environ.items()):
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and name:
            yield name, _from_text(text, f"{ENVIRONMENT}{variable}")


def _from_text(text: str, origin: str) -> _Said:
    found = typed(text)
    if found is None:
        return _Said(value=text, origin=origin, is_text=True)
    return _Said(value=found[1], origin=origin, type=found[0])


def _settle(
    name: str, said: _Said | None, definition: Definition | None
) -> tuple[Parameter | None, Problem | None]:
    """Return the parameter, or what is wrong with it."""
    if said is None:
        if definition is None:  # nobody says anything: not reached
            return None, None
        if definition.default is None and not definition.allow_empty:
            return None, Problem(
                key=name,
                message="must have a value: it may not be empty, and has no default",
                suggestion=f"set {PREFIX}{name}, or {name} in the runtime parameters' file",
                origin=definition.origin,
            )
        said = _Said(value=definition.default, origin=definition.origin)
        if said.value is None:
            return Parameter(name, None, said.origin), None
    try:
        return Parameter(name, _value(name, said, definition), said.origin), None
    except ValueError as error:
        message, _, suggestion = str(error).partition("; ")
        kind = _type_of(said, definition)
        return None, Problem(
            key=name,
            value=ABSENT if said.value is None else shown(name, said.value, kind),
            message=message,
            suggestion=suggestion,
            origin=said.origin,
        )


def _type_of(said: _Said, definition: Definition | None) -> ParameterType | None:
    """Return the type to hide a value by: if anybody may hold it for a credential, it is one."""
    if said.is_text and looks_typed(said.value):
        return ParameterType.CREDENTIAL  # broken, or cut off: it may have been one
    if said.type is not None and parameter_type(said.type) is None:
        return ParameterType.CREDENTIAL  # misspelt, perhaps
    claimed = parameter_type(said.type) if said.type is not None else None
    if definition is None or claimed is ParameterType.CREDENTIAL:
        return claimed
    return definition.type


def _value(name: str, said: _Said, definition: Definition | None) -> Any:
    """Return what was said as the definition has it, and drumd; raise `ValueError`."""
    known = KNOWN.get(name)
    value = said.value
    if said.type is not None:
        value = _typed_value(said, definition)
    if definition is not None:
        value = converted(value, definition.type) if said.is_text else value
        value = definition.check(value)
    elif said.is_text and known is None:
        value = plain(value)
    return value if known is None else known.check(value)


def _typed_value(said: _Said, definition: Definition | None) -> Any:
    kind = parameter_type(said.type)
    if kind is None:
        raise ValueError(f"has a type that {unknown_type(said.type)[0]}")
    if definition is not None and definition.type is not kind:
        raise ValueError(f"is said to be a {kind}, and defined as a {definition.type}")
    return checked(said.value, kind)
