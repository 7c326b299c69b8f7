"""The model in force: what a model server serves, and by which parameters, as operators see it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from drumd.config.modelserver.command import POOL
from drumd.config.modelserver.keys import read_by_workers
from drumd.config.modelserver.parameters import PREFIX
from drumd.config.modelserver.reading import Reading
from drumd.config.modelserver.server_type import Server
from drumd.config.modelserver.values import shown
from drumd.config.secrets import redact
from drumd.config.writing import align, to_toml

_WIDEST = 48
"""Columns that align the comments; one long value does not push all of them to the right."""
_MAX_VALUE = 96
"""Characters of a value that people are shown; programs get all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterInForce:
    """One runtime parameter that somebody has set, or the model defines."""

    name: str
    value: Any = field(repr=False)
    """As it is, secrets included; None for an empty one."""
    origin: str
    by_workers: bool
    """Workers read it themselves: when it changes, they are replaced."""

    @property
    def shown(self) -> Any:
        """The value, or what is shown in its place."""
        return _masked(self.name, self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInForce:
    """What the pool `model` serves."""

    code_dir: str
    server: str
    target_type: str
    target_name: str
    labels: tuple[str, ...]
    parameters: tuple[ParameterInForce, ...]


def model_in_force(reading: Reading, server: Server) -> ModelInForce:
    """Return what is in force where `reading` is what was read."""
    settings = reading.settings
    return ModelInForce(
        code_dir=str(settings.code_dir),
        server=server.name,
        target_type=str(settings.target.type),
        target_name=settings.target.name,
        labels=tuple(map(str, settings.target.labels)),
        parameters=tuple(
            ParameterInForce(
                name=name,
                value=parameter.value,
                origin=parameter.origin,
                by_workers=read_by_workers(name),
            )
            for name, parameter in sorted(reading.parameters.by_name.items())
        ),
    )


def document(model: ModelInForce) -> dict[str, Any]:
    """Return it as JSON has it; secrets are masked, and a value of null is empty."""
    return {
        "code_dir": model.code_dir,
        "server_type": model.server,
        "target": {
            "type": model.target_type,
            "name": model.target_name,
            "labels": list(model.labels),
        },
        "parameters": [
            {"name": each.name, "value": each.shown, "origin": each.origin}
            for each in model.parameters
        ],
    }


def render(model: ModelInForce) -> str:
    """Return it as comments for people; secrets are masked."""
    return "\n".join(f"# {line}" for line in _lines(model))


def _lines(model: ModelInForce) -> Iterator[str]:
    labels = f", labels {', '.join(model.labels)}" if model.labels else ""
    yield f"the model in {model.code_dir}: server type {model.server}"
    yield f"target type {model.target_type}, name {model.target_name}{labels}"
    yield "runtime parameters:" if model.parameters else "runtime parameters: none are set"
    rows = [(_row(each), each.origin) for each in model.parameters]
    yield from (f"  {line}" for line in align(rows, _WIDEST))


def _row(parameter: ParameterInForce) -> str:
    if parameter.value is None:
        return f"{parameter.name} is empty"
    text = to_toml(parameter.shown)
    return f"{parameter.name} = {text if len(text) <= _MAX_VALUE else text[:_MAX_VALUE] + '…'}"


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        items = [_masked(name, item) for item in value]
        return shown(name, items, None)
    return redact(("pools", POOL, "environment", PREFIX + name), shown(name, value, None))
