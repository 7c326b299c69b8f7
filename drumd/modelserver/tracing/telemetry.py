"""Traces by OpenTelemetry, where its environment variables ask for them.

Nothing of OpenTelemetry is imported otherwise.
"""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from drumd.config.modelserver.settings import ModelSettings
from drumd.modelserver.errors import LoadError

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI
    from flask import Flask

PROTOCOL = "http/protobuf"
"""The only way to send that is offered: what gRPC keeps does not survive a fork."""

_provider: Any = None


def wanted(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether traces are to be sent; raise `LoadError` if they cannot be, as it is asked."""

    def value(name: str) -> str:
        return environ.get(name, "").strip()

    if (
        not value("OTEL_EXPORTER_OTLP_ENDPOINT")
        or value("OTEL_SDK_DISABLED").lower() == "true"
        or value("OTEL_TRACES_EXPORTER").lower() == "none"
    ):
        return False
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := value(name):
            if protocol != PROTOCOL:
                raise LoadError(
                    f"cannot send traces by {name}={protocol}: the model server speaks {PROTOCOL}; "
                    f"set {name}={PROTOCOL}, and OTEL_EXPORTER_OTLP_ENDPOINT to the collector's "
                    "address for it, whose port is mostly 4318"
                )
            break
    return True


def instrument_flask(app: "Flask", settings: ModelSettings) -> None:
    """Trace the requests to a Flask app, if that is wanted; raise `LoadError` if it cannot be."""
    if not wanted():
        return
    provider = _make_provider()
    try:
        from opentelemetry.instrumentation.flask import (  # noqa: PLC0415 - an extra
            FlaskInstrumentor,
        )
    except ImportError as error:
        raise _missing(error) from error
    FlaskInstrumentor().instrument_app(
        app, tracer_provider=provider, excluded_urls=_excluded("FLASK", settings)
    )


def instrument_fastapi(app: "FastAPI", settings: ModelSettings) -> None:
    """Trace the requests to a FastAPI app, if that is wanted; raise `LoadError` if it cannot be."""
    if not wanted():
        return
    provider = _make_provider()
    try:
        from opentelemetry.instrumentation.fastapi import (  # noqa: PLC0415 - an extra
            FastAPIInstrumentor,
        )
    except ImportError as error:
        raise _missing(error) from error
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=_excluded("FASTAPI", settings),
        exclude_spans=["receive", "send"],  # one for each piece of a stream
    )


def instrument_client(client: "httpx.Client | httpx.AsyncClient") -> None:
    """Trace what `client` asks, and have it tell of the trace, if the app is traced."""
    if _provider is not None:
        from opentelemetry.instrumentation.httpx import (  # noqa: PLC0415 - an extra
            HTTPXClientInstrumentor,
        )

        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=_provider)


def _make_provider() -> Any:
    global _provider  # noqa: PLW0603 - one a process, as OpenTelemetry has it
    if _provider is None:
        try:
            from drumd.modelserver.tracing import spans  # noqa: PLC0415 - it needs an extra
        except ImportError as error:
            raise _missing(error) from error
        _provider = spans.make_provider()
    return _provider


def _missing(error: ImportError) -> LoadError:
    return LoadError(
        f"cannot send traces to OTEL_EXPORTER_OTLP_ENDPOINT: {error}; pip install 'drumd[otel]', "
        "or set OTEL_SDK_DISABLED=true"
    )


def _excluded(framework: str, settings: ModelSettings) -> str | None:
    """Return which URLs make no spans: health checks, unless the environment says which."""
    if {f"OTEL_PYTHON_{framework}_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS"} & os.environ.keys():
        return None
    prefix = re.escape(settings.url_prefix).replace(",", r"\x2c")  # it is a list, with commas
    return rf"^\w+://[^/]*{prefix}/(ping|health)/?(\?.*)?$"
