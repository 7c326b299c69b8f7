"""Load the config: merge the sources, validate, and say where each value came from."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from drumd.config.explain import explain, path_of
from drumd.config.layers import (
    KeyPath,
    Layer,
    environment_layer,
    flags_layer,
    pool_tables,
)
from drumd.config.modelserver.command import POOL as MODEL_POOL
from drumd.config.modelserver.command import ModelServer
from drumd.config.modelserver.inforce import ModelInForce
from drumd.config.modelserver.pool import PoolLayers, pool_layers
from drumd.config.passthrough import check_options
from drumd.config.paths import with_absolute_paths, with_default_directories
from drumd.config.problems import ConfigInvalid, Problem
from drumd.config.rules import Finding, errors, warnings
from drumd.config.secrets import redact
from drumd.config.settings import PoolSettings, Settings
from drumd.config.tomlfile import file_layer

DEFAULT = "default"
"""The origin of what nobody said."""

_STAND_IN_APP = "unknown:app"
"""Takes the place of a missing app while the rest of its pool is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A valid config."""

    settings: Settings
    origins: Mapping[str, str]
    """Where each value came from, by dotted key; `default` for what nobody said."""
    warnings: Sequence[Problem]
    """What is allowed and probably not meant."""
    sources: "Sources" = field(repr=False)
    """What it was read from, to be read again."""
    model: ModelInForce | None = None
    """What `drumd server` serves; None for any other command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the config is read from: once at the start, and again at each reload."""

    flags: Mapping[str, object]
    """By dotted key, such as `{"pools.web.workers": 4}`; None means "not given"."""
    environ: Mapping[str, str] = field(repr=False)
    config: str | os.PathLike[str] | None
    """The file; None for none."""
    directory: Path = field(default_factory=Path.cwd)
    """What relative paths in flags, environment and `config` are relative to.

    It is looked up once: where it is a release that was deleted meanwhile, getcwd(2) fails.
    """
    model_server: ModelServer | None = None
    """What `drumd server` serves; None for any other command."""

    def load(self) -> Loaded:
        """Return the config that flags, environment, file and defaults make, in this order.

        With a model server its runtime parameters stand between the environment and the file.
        Raise `ConfigInvalid` with all problems at once.
        """
        here = self.directory
        file = [] if self.config is None else [file_layer(self.config, here)]
        given = flags_layer(self.flags, here)
        names = {name for layer in (given, *file) for name, _ in pool_tables(layer.data)}
        names |= {MODEL_POOL} if self.model_server is not None else set()
        environment = environment_layer(self.environ, names, here)
        said = [given, environment, *file]
        model = self._model(said)
        if model is not None:
            said = [model.settled, given, environment, model.parameters, *file, model.defaults]
        layers = [with_absolute_paths(layer) for layer in said]
        settings, problems = _validate(layers)
        problems = [*(problem for layer in layers for problem in layer.problems), *problems]
        if model is not None:
            problems = [*model.problems, *problems]

        settings = with_default_directories(settings, layers, here)
        settings, findings = _check_options(settings)
        origins = {".".join(path): _origin_of(layers, path) for path in _leaves(settings)}
        wrong = {problem.key for problem in problems} | _unsaid_binds(settings, layers)
        found = [*findings, *errors(settings, from_file=bool(file))]
        problems += [_problem(item, layers) for item in found if not _concerns(item, wrong)]
        if problems:
            raise ConfigInvalid(problems, () if model is None else model.hints)
        warned = [] if model is None else list(model.warnings)
        # What a model server settles by itself, it also warns of.
        settled = set() if model is None else {("pools", MODEL_POOL, "runtime")}
        warned += [
            _problem(item, layers)
            for item in warnings(settings, origins)
            if item.path not in settled
        ]
        return Loaded(
            settings=settings,
            origins=origins,
            warnings=warned,
            sources=self,
            model=None if model is None else model.model,
        )

    def _model(self, others: Sequence[Layer]) -> PoolLayers | None:
        if self.model_server is None:
            return None
        return pool_layers(self.model_server, self.environ, others, self.directory)


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    config_path: str | os.PathLike[str] | None,
) -> Loaded:
    """Return the config that flags, environment, file and defaults make, in this order.

    `flags` are given by dotted key, such as `{"pools.web.workers": 4}`; None means "not given".
    Raise `ConfigInvalid` with all problems at once.
    """
    return Sources(flags=flags, environ=environ, config=config_path).load()


def _validate(layers: Sequence[Layer]) -> tuple[Settings, list[Problem]]:
    """Return settings in any case: what is wrong is a problem, and left at its default.

    So the rules that look at several keys can be applied to the rest.
    """
    problems: dict[KeyPath, Problem] = {}
    whole_pools = _pools_with_app(layers)
    kept = list(layers)
    seen: set[tuple[KeyPath, str]] = set()
    while True:
        try:
            return _read(kept), list(problems.values())
        except ValidationError as error:
            found = {(path_of(detail), detail["type"]): detail for detail in error.errors()}
            if found.keys() <= seen:  # taking it out did not help, so it is a bug of drumd's own
                raise
        seen |= found.keys()
        for (path, kind), detail in found.items():
            problem = explain(detail, lambda path: _origin_of(layers, path), whole_pools)
            problems.setdefault(path, problem)
            kept = [_without(layer, path) for layer in kept]
            if kind == "missing" and path[:-1] not in problems:  # else its whole pool is taken out
                kept.insert(0, _stand_in(path))


def _read(layers: Sequence[Layer]) -> Settings:
    class Sourced(Settings):
        """The settings, read from the layers and from nothing else."""

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: object, **__: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(_LayerSource(settings_cls, layer) for layer in layers)

    sourced = Sourced()
    return Settings.model_construct(supervisor=sourced.supervisor, pools=sourced.pools)


class _LayerSource(PydanticBaseSettingsSource):
    """A layer as pydantic-settings wants it."""

    def __init__(self, settings_cls: type[BaseSettings], layer: Layer) -> None:
        super().__init__(settings_cls)
        self._layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        del field
        return self._layer.data.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._layer.data


def _pools_with_app(layers: Sequence[Layer]) -> set[str]:
    return {name for layer in layers for name, pool in pool_tables(layer.data) if "app" in pool}


def _unsaid_binds(settings: Settings, layers: Sequence[Layer]) -> set[str]:
    """Return the binds that nobody said of pools that are probably a misspelt name alone."""
    return {
        f"pools.{name}.bind"
        for name in settings.pools.keys() - _pools_with_app(layers)
        if _origin_of(layers, ("pools", name, "bind")) == DEFAULT
    }


def _without(layer: Layer, path: KeyPath) -> Layer:
    """Return the layer without what it says at `path`."""
    return replace(layer, data=_cut(layer.data, path))


def _cut(table: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    name, rest = path[0], path[1:]
    if name not in table:
        return table
    kept = {key: value for key, value in table.items() if key != name}
    if rest and isinstance(table[name], dict):
        kept[name] = _cut(table[name], rest)
    return kept


def _stand_in(path: KeyPath) -> Layer:
    data: Any = _STAND_IN_APP
    for name in reversed(path):
        data = {name: data}
    return Layer(data=data, directory=Path(), origin_of=lambda _: "")


def _origin_of(layers: Sequence[Layer], path: KeyPath) -> str:
    """Return where the value at `path` was said; of several sources, the one that wins."""
    for layer in layers:
        value: Any = layer.data
        for name in path:
            value = value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is not _ABSENT:
            return layer.origin_of(path)
    return DEFAULT


_ABSENT = object()


def _check_options(settings: Settings) -> tuple[Settings, list[Finding]]:
    """Check the tables that are passed through to servers; read their values as they would."""
    findings: list[Finding] = []
    pools: dict[str, PoolSettings] = {}
    for name, pool in settings.pools.items():
        options, found = check_options(name, pool)
        findings += found
        pools[name] = pool.model_copy(update=cast("dict[str, Any]", options))
    return settings.model_copy(update={"pools": pools}), findings


def _leaves(section: BaseModel, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every value, one for each key of a table that the operator fills."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*path, name))
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, BaseModel):
                    yield from _leaves(inner, (*path, name, key))
                else:
                    yield (*path, name, key)
        else:
            yield (*path, name)


def _problem(finding: Finding, layers: Sequence[Layer]) -> Problem:
    return Problem(
        key=".".join(finding.path),
        value=redact(finding.path, finding.value),
        message=finding.message,
        suggestion=finding.suggestion,
        origin=_origin_of(layers, finding.path),
    )


def _concerns(finding: Finding, wrong: set[str]) -> bool:
    """Tell whether a finding rests on a value that is itself a problem."""
    return any(".".join(path) in wrong for path in (finding.path, *finding.with_paths))
