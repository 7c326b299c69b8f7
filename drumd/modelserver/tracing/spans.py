"""Where spans go: to a collector, by OTLP over HTTP. Importing this needs the extra `otel`."""

import atexit
import contextlib
import threading
from typing import Any

import opentelemetry.instrumentation.httpx  # noqa: F401 - missed while the app is loaded, or later
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

SERVICE = "drumd-model"
FAREWELL = 1.0
"""Seconds that a worker takes at most to send its last spans."""


def make_provider() -> Any:
    """Return the process's provider; one that the model's code has made already stays."""
    present = trace.get_tracer_provider()
    if isinstance(present, TracerProvider):
        return present
    resource = Resource.create()  # with what the environment says
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(_Sender())
    trace.set_tracer_provider(provider)
    return provider


class _Sender(SpanProcessor):  # type: ignore[misc]  # untyped here
    """A `BatchSpanProcessor` that is made with the first span.

    Its thread and its connection are then the worker's own, whether the app was loaded in the
    worker or in a template that forked it.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._batches: Any = None

    def on_end(self, span: Any) -> None:
        """Send a span, with others, some time."""
        if self._batches is None:
            with self._guard:
                if self._batches is None:
                    self._batches = BatchSpanProcessor(OTLPSpanExporter())
                    atexit.register(self._farewell)
        self._batches.on_end(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what there is."""
        return self._batches is None or bool(self._batches.force_flush(timeout_millis))

    def shutdown(self) -> None:
        """Send what there is, and end."""
        if self._batches is not None:
            self._batches.shutdown()

    def _farewell(self) -> None:
        # The SDK would wait for a silent collector, half a minute or longer by its version.
        last = threading.Thread(target=self.shutdown, daemon=True)
        with contextlib.suppress(RuntimeError):  # an interpreter that ends starts no threads
            last.start()
            last.join(FAREWELL)
