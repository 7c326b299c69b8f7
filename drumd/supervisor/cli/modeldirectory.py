"""What `drumd score` and `drumd validate` share: a model directory, and what it is told."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from drumd.exitcodes import BatchExit
from drumd.supervisor.cli.modelflags import said_of_model

if TYPE_CHECKING:
    from drumd.config.modelserver.reading import Reading
    from drumd.config.modelserver.settings import ModelSettings
    from drumd.errors import PlainError

_OF_MODELS = ("numpy", "pandas", "pyarrow", "scipy", "yaml")
"""Modules that the extra `model` brings."""
_PATHS = ("CLASS_LABELS_FILE", "RUNTIME_PARAMS_FILE")


def read_model(given: argparse.Namespace) -> "Reading":
    """Return what flags, environment and files say of the model, and all that is wrong with it.

    The server type is nobody's business here. What the flags say is put into the environment,
    since the model's code may read that as well.
    """
    # Imported when needed: `--help` and a typing error are to be answered at once.
    from drumd.config.modelserver.directory import refuse_directory  # noqa: PLC0415
    from drumd.config.modelserver.known import SERVER_TYPE  # noqa: PLC0415
    from drumd.config.modelserver.lookup import remember  # noqa: PLC0415
    from drumd.config.modelserver.metadata import CODE_DIR  # noqa: PLC0415
    from drumd.config.modelserver.reading import read_all  # noqa: PLC0415
    from drumd.config.modelserver.sayings import Sayings  # noqa: PLC0415
    from drumd.config.problems import Problem  # noqa: PLC0415

    here = Path.cwd()
    flags = said_of_model(given)
    named = given.code_dir or os.environ.get(CODE_DIR) or "."
    code_dir = here / Path(named).expanduser()
    reading = read_all(Sayings(environ=dict(os.environ), flags=flags), code_dir, here)
    remember(reading.parameters)
    os.environ.update(flags)
    os.environ[CODE_DIR] = str(reading.settings.code_dir)
    for variable in filter(os.environ.get, _PATHS):
        os.environ[variable] = str(here / Path(os.environ[variable]).expanduser())
    problems = [each for each in reading.problems if each.key != SERVER_TYPE]
    message, suggestion = refuse_directory(code_dir)
    if message:
        # What else is wrong comes of that.
        problems = [
            Problem(key=CODE_DIR, value=str(code_dir), message=message, suggestion=suggestion)
        ]
    return replace(reading, problems=tuple(problems))


def enter(settings: "ModelSettings") -> None:
    """Go where the model's code expects to be, as a worker does."""
    os.chdir(settings.code_dir)
    sys.path.insert(0, str(settings.code_dir))


def tell(error: "PlainError") -> int:
    """Print an error, below the traceback of the model's own code; return the exit code."""
    if error.traceback:
        print(error.traceback.rstrip(), file=sys.stderr)
    print(f"drumd: {error}", file=sys.stderr)
    return exit_code(error)


def told_missing(error: ModuleNotFoundError) -> int:
    """Print which package is missing that drumd itself needs here; return the exit code.

    What the model's own code imports is told as an error of the model.
    """
    package = (error.name or "").partition(".")[0]
    if package not in _OF_MODELS:
        raise error
    print(
        f"drumd: cannot load models: {package} is not installed; run: pip install 'drumd[model]'",
        file=sys.stderr,
    )
    return BatchExit.CONFIG


def exit_code(error: "PlainError") -> BatchExit:
    """Return how a command ends that an error ended."""
    from drumd.config.modelserver.invalid import ModelSettingsInvalid  # noqa: PLC0415
    from drumd.modelserver.batch.errors import BatchUsageError  # noqa: PLC0415
    from drumd.modelserver.errors import LoadError  # noqa: PLC0415

    codes = {
        ModelSettingsInvalid: BatchExit.CONFIG,
        LoadError: BatchExit.LOAD_FAILED,
        BatchUsageError: BatchExit.USAGE,
    }
    found = (code for kind, code in codes.items() if isinstance(error, kind))
    return next(found, BatchExit.FAILED)


@contextmanager
def results_alone() -> Iterator[BinaryIO]:
    """Yield standard output, for results; what is printed by others goes to standard error."""
    sys.stdout.flush()
    with open(os.dup(1), "wb") as stream:  # noqa: PTH123 - a file descriptor
        os.dup2(2, 1)
        try:
            yield stream
        finally:
            sys.stdout.flush()
            os.dup2(stream.fileno(), 1)


def absolute(name: str | None) -> Path | None:
    """Return the path of a file as it is from here, before the model's directory is entered.

    None for `-`, a standard stream.
    """
    return None if name is None or name == "-" else Path(name).absolute()
