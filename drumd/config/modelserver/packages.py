"""Which packages a server type takes, looked for and not imported, and the extra of each."""

import os
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec

from drumd.config.modelserver.server_type import FASTAPI, FLASK, GUNICORN, Server
from drumd.config.modelserver.settings import ModelSettings
from drumd.config.problems import Problem

_OF_SERVER = {
    FLASK: ("flask", "werkzeug"),
    GUNICORN: ("flask", "werkzeug", "gunicorn"),
    FASTAPI: ("fastapi", "starlette", "uvicorn"),
}
"""Modules of a server; the extra of their packages has the name of the server."""
_OF_ALL = ("numpy", "pandas", "python_multipart")
_OF_BACKEND = ("httpx",)
_PACKAGES = {"python_multipart": "python-multipart"}


def missing_packages(
    server: Server, settings: ModelSettings, python_path: str, origin: str
) -> Iterator[Problem]:
    """Yield what is not installed of a server and of what reads a model's data.

    The directory of the model and `python_path` (as PYTHONPATH) come first, as in a worker.
    """
    paths = [str(settings.code_dir), *filter(None, python_path.split(os.pathsep))]
    needed = [*_OF_ALL]
    if settings.backend is not None:
        needed += _OF_BACKEND
    for extra, modules in ((server.name, _OF_SERVER[server]), ("model", needed)):
        absent = [_PACKAGES.get(name, name) for name in _absent(modules, paths)]
        if absent:
            is_one = len(absent) == 1
            yield Problem(
                key=f"server type {server.name}",
                message=f"cannot serve: {', '.join(absent)} {'is' if is_one else 'are'} "
                "not installed",
                suggestion=f"pip install 'drumd[{extra}]'",
                origin=origin,
            )


def _absent(modules: Iterable[str], paths: list[str]) -> Iterator[str]:
    for name in modules:
        if not _is_module(PathFinder.find_spec(name, paths)) and not _is_installed(name):
            yield name


def _is_installed(name: str) -> bool:
    try:
        return _is_module(find_spec(name))
    except ValueError:  # a module without a spec was put into sys.modules
        return True


def _is_module(spec: ModuleSpec | None) -> bool:
    """Tell a module from nothing, and from a mere directory of its name."""
    return spec is not None and spec.origin is not None
