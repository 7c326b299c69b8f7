"""A collector of traces: it takes in what is sent by OTLP over HTTP, and decodes it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.waiting import wait_until


@dataclass(frozen=True)
class Span:
    """A span, with ids in hex."""

    service: str
    trace: str
    id: str
    parent: str
    name: str
    kind: str
    attributes: dict[str, Any]


class Collector:
    """Listens on a port of its own; `with` it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.paths: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self, trace: str = "") -> list[Span]:
        """Return the spans so far, of one trace or of all."""
        found = []
        for body in list(self.received):
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _attributes(of_resource.resource.attributes)
                found += [
                    Span(
                        service=str(resource["service.name"]),
                        trace=span.trace_id.hex(),
                        id=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        name=span.name,
                        kind=span.SpanKind.Name(span.kind),
                        attributes=_attributes(span.attributes),
                    )
                    for of_scope in of_resource.scope_spans
                    for span in of_scope.spans
                ]
        return [span for span in found if trace in ("", span.trace)]

    def wait(self, trace: str, count: int) -> list[Span]:
        """Wait until a trace has that many spans, and return them."""
        return wait_until(
            lambda: spans if len(spans := self.spans(trace)) >= count else [],
            what=f"{count} spans of {trace}",
        )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in pairs}


def _handler(collector: Collector) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.paths.add(self.path)
            collector.received.append(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
