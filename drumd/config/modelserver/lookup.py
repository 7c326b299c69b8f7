"""Runtime parameters as a model's own code reads them."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from drumd.config.modelserver.invalid import ModelSettingsInvalid
from drumd.config.modelserver.metadata import CODE_DIR, read_metadata
from drumd.config.modelserver.parameters import FILE, PREFIX, Parameters, read_parameters
from drumd.config.modelserver.sayings import Sayings
from drumd.errors import PlainError


class ParameterMissing(PlainError, ValueError):  # noqa: N818 - named after the fact
    """cannot find a runtime parameter."""


class RuntimeParameters:
    """The runtime parameters of the model that this process serves.

    Outside of a model server they are read from the environment, the file that RUNTIME_PARAMS_FILE
    names, and the model-metadata.yaml of CODE_DIR or of the current directory.
    """

    @staticmethod
    def has(name: str) -> bool:
        """Tell whether a parameter has a value."""
        return _parameters().get(name) is not None

    @staticmethod
    def get(name: str) -> Any:
        """Return a parameter's value; None for one that is defined and empty.

        A credential is a dict that does not show what is in it. Raise `ParameterMissing`, a
        `ValueError`, for a parameter that nobody has set.
        """
        by_name = _parameters().by_name
        if name not in by_name:
            there = ", ".join(sorted(by_name)) or "none"
            raise ParameterMissing(
                f"cannot find the runtime parameter {name!r}: there are {there}; "
                f"set {PREFIX}{name}, or define it in model-metadata.yaml"
            )
        return by_name[name].value


def remember(parameters: Parameters) -> None:
    """Have this process go by these parameters."""
    _Process.parameters = parameters


class _Process:
    parameters: Parameters | None = None


def _parameters() -> Parameters:
    if _Process.parameters is not None:
        return _Process.parameters
    said = {
        name: text
        for name, text in os.environ.items()
        if name.startswith(PREFIX) or name in (FILE, "OPENAI_HOST", "OPENAI_PORT")
    }
    code_dir = Path(os.environ.get(CODE_DIR) or ".").absolute()
    return _read(tuple(sorted(said.items())), code_dir)


@lru_cache(maxsize=4)
def _read(environ: tuple[tuple[str, str], ...], code_dir: Path) -> Parameters:
    metadata = read_metadata(code_dir)
    found = read_parameters(Sayings(environ=dict(environ)), metadata, Path.cwd())
    if metadata.problems or found.problems:
        raise ModelSettingsInvalid([*metadata.problems, *found.problems])
    return found
