"""gunicorn's config and logger for one worker, made from the worker's spec."""

import logging
import math
from typing import Any

from drumd.wire.messages import Interface
from drumd.wire.spec import WorkerSpec
from drumd.workers.log_pipe import PipeHandler
from drumd.workers.meter import Meter
from drumd.workers.runtime import AppError, gunicorn_worker_class

WORKER_CLASSES = ("sync", "gthread", "gevent", "asgi")
"""gunicorn's worker classes that drumd runs; each has a module `gunicorn_<name>` here."""

_ARBITER_HOOKS = (
    "on_starting",
    "on_reload",
    "when_ready",
    "pre_fork",
    "post_fork",
    "child_exit",
    "worker_exit",
    "pre_exec",
    "nworkers_changed",
    "on_exit",
)
"""Hooks that gunicorn's master calls; drumd has no such process."""


class OptionError(AppError):
    """cannot use an option of gunicorn's."""


def worker_class(spec: WorkerSpec, interface: Interface) -> str:
    """Return the worker class for an app; raise `OptionError` when drumd does not run it."""
    name = gunicorn_worker_class(spec, interface)
    if name not in WORKER_CLASSES:
        raise OptionError(
            f"cannot use gunicorn's worker_class {name!r}: drumd runs "
            f"{', '.join(WORKER_CLASSES)}; set one of these under [pools.{spec.pool}.gunicorn]"
        )
    return name


def options(spec: WorkerSpec) -> dict[str, Any]:
    """Return the options that are passed through to gunicorn."""
    return dict(spec.options.get("gunicorn", {}))


def make_config(spec: WorkerSpec, threads: int) -> Any:
    """Return gunicorn's `Config` for a worker of `threads` threads.

    Raises `OptionError` for an option that gunicorn refuses.
    gunicorn 27.0.1: `Config()` reads neither arguments, files nor `GUNICORN_CMD_ARGS`.
    """
    from gunicorn.config import Config  # noqa: PLC0415 - gevent must patch before this is imported

    cfg = Config(prog="drumd")
    ours = {
        "threads": threads,
        "keepalive": math.ceil(spec.keepalive),  # whole seconds; less than asked would cut clients
        "backlog": spec.backlog,
        "graceful_timeout": math.ceil(spec.grace_period),
        "control_socket_disable": True,
        # Only its being more than one is looked at: apps see wsgi.multiprocess, and gevent takes
        # one connection at a time instead of a hundred, which leaves some to the siblings.
        "workers": 2,
    }
    passed = options(spec)
    if spec.access_log and "accesslog" not in passed:
        passed["accesslog"] = "-"
    for name, value in {**passed, **ours}.items():
        if name != "worker_class":
            _set(cfg, name, value)
    try:
        cfg.validate()
    except Exception as error:
        raise OptionError(f"cannot use gunicorn's options for pool {spec.pool}: {error}") from error
    if cfg.is_ssl:
        _check_tls(cfg)
    return cfg


def make_logger(cfg: Any, meter: Meter) -> Any:
    """Return gunicorn's logger, changed so that a line for a standard stream never waits."""
    # gunicorn 27.0.1: glogging.Logger makes its handlers in `_set_handler`, "-" being the streams.
    base = cfg.logger_class

    class Logger(base):  # type: ignore[misc,valid-type]  # the class is the user's choice
        def _set_handler(
            self, log: logging.Logger, output: str | None, fmt: Any, stream: Any = None
        ) -> None:
            if output != "-":
                super()._set_handler(log, output, fmt, stream)
                return
            for handler in [each for each in log.handlers if getattr(each, "_gunicorn", False)]:
                log.removeHandler(handler)
            handler = PipeHandler(2 if stream is None else 1, meter.log_dropped)
            handler.setFormatter(fmt)
            handler._gunicorn = True  # type: ignore[attr-defined]  # noqa: SLF001 - its own mark
            log.addHandler(handler)

    log = Logger(cfg)
    useless = [
        name
        for name in _ARBITER_HOOKS
        if cfg.settings[name].get() is not cfg.settings[name].default
    ]
    if useless:
        log.warning("drumd has no gunicorn master: never called: %s", ", ".join(useless))
    return log


def _check_tls(cfg: Any) -> None:
    """Raise `OptionError` for certificates that cannot be used, which some classes load late."""
    from gunicorn.sock import ssl_context  # noqa: PLC0415 - gevent must patch before this

    try:
        ssl_context(cfg)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise OptionError(
            f"cannot use gunicorn's TLS options: certfile {cfg.certfile!r}, "
            f"keyfile {cfg.keyfile!r}: {error}"
        ) from error


def _set(cfg: Any, name: str, value: Any) -> None:
    if name not in cfg.settings:
        from difflib import get_close_matches  # noqa: PLC0415 - only a worker that fails pays

        close = get_close_matches(name, cfg.settings, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise OptionError(f"cannot use gunicorn's option {name!r}: there is none{hint}")
    try:
        cfg.set(name, value)
    except Exception as error:
        raise OptionError(f"cannot use gunicorn's option {name} = {value!r}: {error}") from error
