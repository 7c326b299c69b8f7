"""The pool of `drumd server`, as layers of the config: what is settled, said, and default.

Runtime parameters are a source of their own, below flags and environment and above the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from drumd.config.kinds import Workers
from drumd.config.layers import Layer, LayerBuilder, pool_tables
from drumd.config.modelserver.command import POOL, ModelServer
from drumd.config.modelserver.directory import refuse_directory
from drumd.config.modelserver.inforce import ModelInForce, model_in_force
from drumd.config.modelserver.keys import DIGEST, digest, keys_of
from drumd.config.modelserver.known import SERVER_TYPE, WORKERS
from drumd.config.modelserver.metadata import CODE_DIR
from drumd.config.modelserver.misspelt import misspelt_parameters
from drumd.config.modelserver.packages import missing_packages
from drumd.config.modelserver.parameters import FILE
from drumd.config.modelserver.reading import Reading, read_all
from drumd.config.modelserver.sayings import Sayings, flag_of
from drumd.config.modelserver.server_type import FLASK, Choice, choose
from drumd.config.modelserver.targets import LABELS, LABELS_FILE
from drumd.config.problems import ABSENT, Problem

ADDRESS = "ADDRESS"

_HERE = "drumd server"
_START_TIMEOUT = 600.0
"""Seconds: a model of some gigabytes takes minutes to load."""
_SETTLED = ("app", "app_dir", "runtime")
"""Keys that follow from the model directory and its server type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLayers:
    """What the model server adds to the config."""

    settled: Layer
    """Above everything else."""
    parameters: Layer
    """Below the environment."""
    defaults: Layer
    """Below everything else."""
    model: ModelInForce | None
    """None where there is no model directory to read."""
    problems: Sequence[Problem]
    warnings: Sequence[Problem]
    hints: Sequence[Problem]
    """Those of the warnings that count as well where something is wrong."""


def pool_layers(
    server: ModelServer, environ: Mapping[str, str], others: Sequence[Layer], here: Path
) -> PoolLayers:
    """Read the model directory and its parameters; nothing of the model's is imported.

    `others` are the other sources; relative paths are taken from `here`.
    """
    return _Reader(server, {**environ, **_variables(others)}, others, here).layers()


@dataclass(slots=True)
class _Reader:
    """Puts the layers together, and goes on after a problem."""

    server: ModelServer
    environ: Mapping[str, str]
    others: Sequence[Layer]
    here: Path
    settled: LayerBuilder = field(init=False)
    parameters: LayerBuilder = field(init=False)
    model: ModelInForce | None = None
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    hints: list[Problem] = field(default_factory=list)

    def layers(self) -> PoolLayers:
        self.settled, self.parameters = LayerBuilder(self.here), LayerBuilder(self.here)
        self._refuse_settled()
        self._address()
        code_dir = self._code_dir()
        if code_dir is None:
            self._settle(Choice(FLASK, _HERE))
        else:
            self._read(code_dir)
        defaults = LayerBuilder(self.here)
        defaults.put(_path("start_timeout"), _START_TIMEOUT, _HERE)
        return PoolLayers(
            settled=self.settled.layer(),
            parameters=self.parameters.layer(),
            defaults=defaults.layer(),
            model=self.model,
            problems=self.problems,
            warnings=[*self.warnings, *self.hints],
            hints=self.hints,
        )

    def _read(self, code_dir: Path) -> None:
        sayings = Sayings(environ=self.environ, flags=self.server.flags)
        reading = read_all(sayings, code_dir, self.here)
        choice = choose(reading.parameters, code_dir)
        self._settle(choice)
        self.model = model_in_force(reading, choice.server)
        missing = list(
            missing_packages(
                choice.server, reading.settings, self.environ.get("PYTHONPATH", ""), choice.origin
            )
        )
        self.problems += [*reading.problems, *missing]
        self.warnings += choice.warnings
        self.hints += misspelt_parameters(reading.parameters)
        for key, value, origin in keys_of(reading.parameters, choice.server):
            # A server that is not installed cannot look at its options.
            if not missing or "." not in key or not key.startswith(choice.server.runtime):
                self.parameters.put(_path(key), value, origin)
        if choice.server is FLASK:
            self._warn_of_flask(choice)
            self._one_process(reading, choice)
        self._environment(sayings, reading)

    def _settle(self, choice: Choice) -> None:
        self.settled.put(_path("app"), choice.server.app, choice.origin)
        self.settled.put(_path("runtime"), choice.server.runtime, choice.origin)

    def _address(self) -> None:
        if self.server.address:
            self.settled.put(_path("bind"), self.server.address, "flag --address")
        elif self.environ.get(ADDRESS):
            self.parameters.put(_path("bind"), self.environ[ADDRESS], f"environment {ADDRESS}")

    def _code_dir(self) -> Path | None:
        """Return the model directory, if it can be one."""
        said = self.server.code_dir or self.environ.get(CODE_DIR)
        if not said:
            self._wrong(
                "app_dir",
                "is missing: which model directory?",
                f"name it with --code-dir, or {CODE_DIR}",
            )
            return None
        origin = "flag --code-dir" if self.server.code_dir else f"environment {CODE_DIR}"
        code_dir = self.here / Path(said).expanduser()
        self.settled.put(_path("app_dir"), str(code_dir), origin)
        message, suggestion = refuse_directory(code_dir)
        if message:
            self._wrong("app_dir", message, suggestion, str(code_dir), origin)
            return None
        return code_dir

    def _environment(self, sayings: Sayings, reading: Reading) -> None:
        """Tell the workers what flags said; all else they read themselves, where they are.

        They are in the model directory, which a link may lead to: the one that it led to when
        their generation began.
        """
        variables = {**self.server.flags, CODE_DIR: "."}
        variables[DIGEST] = digest(reading.parameters, reading.settings.target)
        for name in (FILE, LABELS_FILE):
            said = sayings.get(name)
            if said is not None:
                variables[name] = str(self.here / Path(said[0]).expanduser())
        chosen = {each.variable for each in sayings.one_of(LABELS, LABELS_FILE)}
        # The flag is above the other variable, which the workers have from the environment.
        variables |= {name: "" for name in {LABELS, LABELS_FILE} - chosen if name in self.environ}
        for name, value in variables.items():
            origin = f"flag {flag_of(name)}" if name in self.server.flags else _HERE
            self.settled.put((*_path("environment"), name), value, origin)

    def _warn_of_flask(self, choice: Choice) -> None:
        self.warnings.append(
            Problem(
                key=SERVER_TYPE,
                value=choice.server.name,
                message="is Werkzeug's development server",
                suggestion="set it to gunicorn or fastapi to serve others",
                origin=choice.origin,
            )
        )

    def _one_process(self, reading: Reading, choice: Choice) -> None:
        """Have one worker, and warn where more are asked for."""
        said = [
            (value, layer.origin_of(_path("workers")))
            for layer in self.others
            for value in [_workers_in(layer)]
            if value is not None
        ]
        asked = reading.parameters.by_name.get(WORKERS)
        if asked is not None:
            said.append((asked.value, asked.origin))
        if not all(_is_count(value) for value, _ in said):
            return  # what is no number of workers is told by whoever reads the pool's settings
        self.settled.put(_path("workers"), 1, choice.origin)
        for value, origin in said[:1]:
            if str(value) != "1":
                self.warnings.append(
                    Problem(
                        key=".".join(_path("workers")),
                        value=value,
                        message="has no effect: the server type flask is one process",
                        suggestion=f"set {SERVER_TYPE} to gunicorn or fastapi",
                        origin=origin,
                    )
                )

    def _refuse_settled(self) -> None:
        for layer in self.others:
            said = dict(pool_tables(layer.data)).get(POOL, {})
            for key in _SETTLED:
                if key in said:
                    self._wrong(
                        key,
                        "cannot be set: it follows from the model directory and its server type",
                        "leave it out",
                        said[key],
                        layer.origin_of(_path(key)),
                    )

    def _wrong(
        self, key: str, message: str, suggestion: str, value: Any = ABSENT, origin: str = ""
    ) -> None:
        self.problems.append(
            Problem(
                key=".".join(_path(key)),
                value=value,
                message=message,
                suggestion=suggestion,
                origin=origin,
            )
        )


def _path(key: str) -> tuple[str, ...]:
    return ("pools", POOL, *key.split("."))


def _variables(layers: Sequence[Layer]) -> dict[str, str]:
    """Return the variables that the config gives to the workers: they count as the environment."""
    found: dict[str, str] = {}
    for layer in reversed(layers):
        said = dict(pool_tables(layer.data)).get(POOL, {}).get("environment")
        if isinstance(said, Mapping):
            found |= {name: text for name, text in said.items() if isinstance(text, str)}
    return found


def _workers_in(layer: Layer) -> Any:
    return dict(pool_tables(layer.data)).get(POOL, {}).get("workers")


def _is_count(value: Any) -> bool:
    try:
        TypeAdapter(Workers).validate_python(value)
    except ValidationError:
        return False
    return True
