"""What a server imports only when it starts: had by a template before, its forks share it.

It saves each fork 30 to 80 ms and some 10 MB. What is not there is not needed, or is told of by the
worker that needs it.
"""

import contextlib
import importlib

from drumd.wire.messages import Interface
from drumd.wire.spec import RuntimeName, WorkerSpec
from drumd.workers.runtime import gunicorn_worker_class

_UVICORN = (
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.websockets.auto",
    "drumd.workers.uvicorn_httptools",
)
_GUNICORN = ("gunicorn.config", "gunicorn.glogging")


def warm(runtime: RuntimeName, spec: WorkerSpec, interface: Interface) -> None:
    """Import what `runtime` will need to serve an app that speaks `interface`; raise nothing."""
    modules: tuple[str, ...] = ()
    if runtime == "uvicorn":
        modules = _UVICORN
    elif runtime == "gunicorn":
        name = gunicorn_worker_class(spec, interface)
        modules = (*_GUNICORN, f"drumd.workers.gunicorn_{name}")
        if name == "asgi":
            modules += ("uvloop",)
    for module in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
