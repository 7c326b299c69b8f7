"""Trying what a model directory adds to the apps of the server types."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from drumd.config.modelserver.packages import missing_packages
from drumd.config.modelserver.server_type import FASTAPI, FLASK, Server
from drumd.errors import PlainError
from drumd.modelserver.inference.model import Model
from drumd.modelserver.validation.steps import Step, failed, ok, skipped

_SERVERS = (FLASK, FASTAPI)
"""One for each framework: its app is the same under all server types."""


def try_extensions(model: Model) -> Iterator[Step]:
    """Build the app of each framework that the directory has an extension for."""
    for server in _SERVERS:
        if (model.settings.code_dir / server.extension).is_file():
            yield _try(server, model)


def _try(server: Server, model: Model) -> Step:
    name = server.extension
    missing = list(
        missing_packages(server, model.settings, os.environ.get("PYTHONPATH", ""), origin="")
    )
    if missing:
        told = "; ".join(problem.message for problem in missing)
        return skipped(name, told, *(f"run: {problem.suggestion}" for problem in missing))
    try:
        with _own_metrics():
            # Imported here alone: it takes the framework.
            importlib.import_module(server.app.partition(":")[0]).app_of(model)
    except PlainError as error:
        return failed(name, str(error), traceback=error.traceback)
    return ok(name, f"extends the {server.framework} app")


@contextmanager
def _own_metrics() -> Iterator[None]:
    """Forget what is registered meanwhile: both files may well count under the same names.

    No worker imports both.
    """
    from prometheus_client import REGISTRY  # noqa: PLC0415 - few directories have extensions

    # What the servers count themselves is registered once, as they are imported.
    importlib.import_module("drumd.modelserver.serving.metrics")
    before = set(REGISTRY._collector_to_names)  # noqa: SLF001 - there is no public list of them
    try:
        yield
    finally:
        for collector in set(REGISTRY._collector_to_names) - before:  # noqa: SLF001 - see above
            REGISTRY.unregister(collector)
