"""uvicorn's Config for a worker: the pool's options, with ours where there are none."""

import importlib.util
from typing import Any

from uvicorn.config import LOGGING_CONFIG, Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from drumd.workers.loader import is_double_callable
from drumd.workers.log_pipe import PipeHandler
from drumd.workers.runtime import AppError, Place
from drumd.workers.uvicorn_forwarded import ForwardedHeaders
from drumd.workers.uvicorn_protocols import Instruments, WatchedProtocol

STDERR = 2


class WorkerConfig(Config):
    """Takes the app from its place, so that it is imported where uvicorn would: in its loop."""

    def __init__(self, place: Place, instruments: Instruments) -> None:
        spec = place.spec
        self._place = place
        options: dict[str, Any] = {
            "timeout_keep_alive": spec.keepalive,
            "access_log": spec.access_log,
            "log_config": log_config(instruments),
            **spec.options.get("uvicorn", {}),
            "backlog": spec.backlog,
            # Else $WEB_CONCURRENCY is read, which is for a server without a supervisor.
            "workers": 1,
            # The loader has called it already.
            "factory": False,
        }
        options["http"] = _watched_protocol(options.get("http", "auto"), instruments)
        super().__init__(spec.app, **options)

    @property
    def can_hand_over(self) -> bool:
        """Return whether another process could go on with a connection.

        The keys of a TLS session are in this one; and of other protocols it is not known when a
        connection is at rest.
        """
        watched = isinstance(self.http, type) and issubclass(self.http, WatchedProtocol)
        return watched and not self.is_ssl

    def load(self) -> None:
        """Load the app, and put our own class in the place of uvicorn's for a proxy's headers."""
        super().load()
        if type(self.loaded_app) is ProxyHeadersMiddleware:
            self.loaded_app = ForwardedHeaders(self.loaded_app.app, self.forwarded_allow_ips)

    def load_app(self) -> Any:
        """Return the app; raise `AppError` if uvicorn cannot serve it."""
        app = self._place.load()
        if self.interface == "auto":
            if app.interface == "wsgi":
                raise AppError(
                    f"cannot serve {self.app} with uvicorn: it is a WSGI app; "
                    'use runtime "gunicorn" (or "auto"), '
                    'or set interface = "wsgi" in the uvicorn options'
                )
            self.interface = "asgi2" if is_double_callable(app.call) else "asgi3"
        return app.call


def log_config(instruments: Instruments) -> dict[str, Any]:
    """Return uvicorn's own logging config, but on a stderr that no request waits for."""
    handler = {"()": PipeHandler, "fd": STDERR, "dropped": instruments.meter.log_dropped}
    return {
        **LOGGING_CONFIG,
        # uvicorn writes to these when it is told whether to use colours.
        "formatters": {name: {**each} for name, each in LOGGING_CONFIG["formatters"].items()},
        "handlers": {name: {**handler, "formatter": name} for name in ("default", "access")},
    }


def _watched_protocol(http: Any, instruments: Instruments) -> Any:
    """Return the value for uvicorn's option `http`: one of its own protocols, with instruments.

    What is neither `auto`, `httptools` nor `h11` is returned as it is: it serves, unmetered.
    """
    if http == "auto":
        http = "httptools" if importlib.util.find_spec("httptools") else "h11"
    base: type
    # Each parser is imported only where it is used.
    if http == "httptools":
        from drumd.workers.uvicorn_httptools import WatchedHttpTools as base  # noqa: PLC0415, N813
    elif http == "h11":
        from drumd.workers.uvicorn_h11 import WatchedH11 as base  # noqa: PLC0415, N813
    else:
        return http
    return type(base.__name__, (base,), {"instruments": instruments})
