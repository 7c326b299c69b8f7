"""The gunicorn runtime: gunicorn's own worker classes, without its Arbiter."""

import os
from importlib import import_module
from typing import Any

from drumd.wire.spec import WorkerSpec
from drumd.workers.gunicorn_config import (
    OptionError,
    make_config,
    make_logger,
    options,
    worker_class,
)
from drumd.workers.gunicorn_requests import note_status
from drumd.workers.gunicorn_worker import NoHeartbeatFile, PlacedApp
from drumd.workers.runtime import Place

_SUBCLASSES = {"sync": "Sync", "gthread": "GThread", "gevent": "Gevent", "asgi": "Asgi"}
"""The class in each module `gunicorn_<worker class>`."""


def make(spec: WorkerSpec) -> "GunicornRuntime":
    """Return the runtime for `spec`; before the app is imported, since gevent patches here.

    Raises `OptionError` for a worker class that cannot be used.
    """
    if worker_class(spec, "wsgi") == "gevent":
        _patch_for_gevent(spec)
    return GunicornRuntime()


class GunicornRuntime:
    """One of gunicorn's worker classes, constructed and run in the main thread."""

    def serve(self, place: Place) -> None:
        """Block until drained or stopped; raise what made serving impossible."""
        spec = place.spec
        # Without a choice the app decides; with one the class loads the app in its own time.
        chosen = "worker_class" in options(spec)
        name = worker_class(spec, "wsgi" if chosen else place.load().interface)
        kind = getattr(import_module(f"drumd.workers.gunicorn_{name}"), _SUBCLASSES[name])
        threads = spec.threads if kind.threaded else 1
        cfg = make_config(spec, threads)
        meter = place.meter(
            threaded=kind.threaded, capacity=threads if kind.threaded else kind.capacity
        )
        worker = _construct(kind, cfg, make_logger(cfg, meter), place)
        worker.enlist(place, meter)
        if kind.interface == "wsgi":
            note_status(cfg)
        worker.init_process()


def _construct(kind: Any, cfg: Any, log: Any, place: Place) -> Any:
    base: Any = import_module("gunicorn.workers.base")
    # gunicorn 27.0.1: Worker.__init__ makes its temporary file by this name.
    base.WorkerTmp = lambda _cfg: NoHeartbeatFile(place.control.fileno())
    return kind(
        age=0,
        ppid=os.getppid(),
        sockets=[],
        app=PlacedApp(place, kind.interface),
        timeout=cfg.timeout,
        cfg=cfg,
        log=log,
    )


def _patch_for_gevent(spec: WorkerSpec) -> None:
    try:
        from gevent import monkey  # noqa: PLC0415 - only the gevent class needs it
    except ImportError as error:
        raise OptionError(
            f"cannot use gunicorn's worker_class 'gevent' in pool {spec.pool}: gevent is not "
            "installed; install drumd[gevent]"
        ) from error
    monkey.patch_all()
