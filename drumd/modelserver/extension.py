"""What a model directory adds to the app that serves it: `init_app(app)`."""

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from drumd.errors import PlainError
from drumd.modelserver.errors import LoadError

_FUNCTION = "init_app"


def extend(app: Any, file_name: str, code_dir: Path) -> None:
    """Have `file_name` of a model directory, if it is there, add to the app what it likes.

    Raises `LoadError` when the file has no `init_app`, or when that, or its import, raises.
    """
    path = code_dir / file_name
    if not path.is_file():
        return
    try:
        module = _imported(path)
    except PlainError:
        raise
    except BaseException as error:
        raise _load_error(f"cannot import {file_name}", error, path) from error
    function = getattr(module, _FUNCTION, None)
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise LoadError(
            f"cannot use {file_name}: it has no function {_FUNCTION}(app); define it, "
            "without async, or remove the file"
        )
    try:
        function(app)
    except PlainError:
        raise
    except BaseException as error:
        raise _load_error(
            f"cannot extend the app: {_FUNCTION} in {file_name}", error, path
        ) from error


def _imported(path: Path) -> ModuleType:
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"cannot import {path.name}: Python knows no loader for it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_error(doing: str, error: BaseException, path: Path) -> LoadError:
    frames = error.__traceback__
    # What came before the file's own lines says nothing to its author.
    while frames is not None and frames.tb_frame.f_code.co_filename != str(path):
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames or error.__traceback__)
    return LoadError(f"{doing} raised {type(error).__name__}: {error}", "".join(lines))
