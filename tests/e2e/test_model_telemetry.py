"""The model server's traces, as a collector gets them from each server type."""

import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumd.exitcodes import DaemonExit
from tests.e2e.backend import Backend
from tests.e2e.collector import Collector
from tests.e2e.daemon import free_port
from tests.e2e.modelled import SERVERS, Models, Site, models

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
NEVER = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
SECRET = "Bearer swordfish"


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend() as running:
        yield running


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def served(
    backend: Backend, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Models]:
    there = {
        "OPENAI_HOST": "127.0.0.1",
        "OPENAI_PORT": str(backend.port),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        **SOON,
    }
    variants = {
        "plain": there,
        "preload": {**there, "URL_PREFIX": "/m"},
        "disabled": {**there, "OTEL_SDK_DISABLED": "True"},
        "unset": {**there, "OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    }
    options = {"preload": {"preload": True, "workers": 2}}
    with models(tmp_path_factory.mktemp("traces"), variants, options) as running:
        yield running


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def traced(site: Site, target: str, **options: object) -> tuple[str, str]:
    """Ask within a trace; return its id and that of the span that asks."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace}-{span}-01", "Authorization": SECRET}
    assert site.ask(target, headers=headers, **options).status == 200  # type: ignore[arg-type]
    return trace, span


@pytest.mark.parametrize(("variant", "prefix"), [("plain", ""), ("preload", "/m")])
def test_trace_goes_through_the_proxy(
    served: Models, server: str, variant: str, prefix: str, backend: Backend, collector: Collector
) -> None:
    """A client's trace goes on through the server's span and the proxy's to the backend."""
    site = served.site(server, variant)
    trace, asking = traced(
        site, f"{prefix}/directAccess/v1/{server}/{variant}", method="POST", body=b"x"
    )
    asked = backend.wait_asked(f"/v1/{server}/{variant}")
    by_kind = {span.kind: span for span in collector.wait(trace, 2)}
    of_server, of_client = by_kind["SPAN_KIND_SERVER"], by_kind["SPAN_KIND_CLIENT"]
    assert len(collector.spans(trace)) == 2
    assert of_server.parent == asking
    assert of_client.parent == of_server.id
    assert asked.all("traceparent") == [f"00-{trace}-{of_client.id}-01"]
    assert of_server.service == "drumd-model"
    assert of_server.attributes["http.status_code"] == 200
    assert collector.paths == {"/v1/traces"}


@pytest.mark.parametrize(("variant", "prefix"), [("plain", ""), ("preload", "/m")])
def test_spans_of_the_model(
    served: Models, server: str, variant: str, prefix: str, collector: Collector
) -> None:
    """Spans that the model's own code makes are in the request's trace."""
    site = served.site(server, variant)
    trace, asking = traced(site, f"{prefix}/predictUnstructured", method="POST", body=b"span")
    spans = {span.name: span for span in collector.wait(trace, 2)}
    own = spans.pop("the model's own")
    (of_server,) = spans.values()
    assert (own.parent, of_server.parent) == (of_server.id, asking)
    assert "/predictUnstructured" in of_server.name


def test_health_checks_are_left_out(served: Models, server: str, collector: Collector) -> None:
    """Health checks make no spans; what is asked after them does."""
    for variant, prefix in (("plain", ""), ("preload", "/m")):
        site = served.site(server, variant)
        checks = [
            traced(site, prefix + path)[0] for path in ("/ping", "/ping/", "/health?x=1", "/health")
        ]
        after = [traced(site, prefix + path)[0] for path in ("/info", "/nim/health")]
        for trace in after:
            assert collector.wait(trace, 1)
        assert not [trace for trace in checks if collector.spans(trace)]


@pytest.mark.parametrize("variant", ["disabled", "unset"])
def test_not_wanted(served: Models, server: str, variant: str, collector: Collector) -> None:
    """Disabled, or without a collector, nothing of OpenTelemetry is imported, and nothing sent.

    FastAPI itself imports the interface, by its version; what would do something is not there.
    """
    site = served.site(server, variant)
    trace, _ = traced(site, "/directAccess/x")
    loaded = site.ask("/predictUnstructured", method="POST", body=b"modules").body.decode().split()
    if server == "fastapi":
        active = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation")
        loaded = [name for name in loaded if name.startswith(active)]
    assert loaded == []
    present, _ = traced(served.site(server, "plain"), "/directAccess/x")
    assert collector.wait(present, 2)
    assert not collector.spans(trace)


def test_context_goes_on_untraced(served: Models, server: str, backend: Backend) -> None:
    """Without traces of its own the server passes a client's context on as it is."""
    trace, span = traced(served.site(server, "disabled"), f"/nim/untraced/{server}")
    assert backend.wait_asked(f"/untraced/{server}").all("traceparent") == [f"00-{trace}-{span}-01"]


def test_no_secrets(served: Models, server: str, collector: Collector) -> None:
    """Neither headers nor bodies are in what is sent."""
    trace, _ = traced(served.site(server, "plain"), "/nim/x", method="POST", body=b"swordfish too")
    assert collector.wait(trace, 2)
    assert not [body for body in collector.received if b"swordfish" in body]


def test_last_spans(collector: Collector, tmp_path: Path) -> None:
    """What was not sent yet is sent when the workers end."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **NEVER}
    variants = {"late": environ, "forked": environ}
    with models(tmp_path, variants, {"forked": {"preload": True}}) as served:
        traces = [
            traced(served.site(server, variant), "/info")[0]
            for server in SERVERS
            for variant in variants
        ]
        assert not any(map(collector.spans, traces))
        served.daemon.signal(signal.SIGTERM)
        assert served.wait_exit() == DaemonExit.STOPPED
    for trace in traces:
        assert collector.wait(trace, 1)


def test_collector_in_vain(tmp_path: Path) -> None:
    """A collector that refuses, or is silent, hurts neither answers nor the end of the workers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ends = {"refusing": free_port(), "silent": silent.getsockname()[1]}
        variants = {
            name: {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                "OTEL_EXPORTER_OTLP_TIMEOUT": "100",
                **SOON,
            }
            for name, port in ends.items()
        }
        patient = {"grace_period": 30, "stop_timeout": 30}
        with models(tmp_path, variants, dict.fromkeys(variants, patient)) as served:
            for _ in range(3):
                for server in SERVERS:
                    for variant in variants:
                        traced(served.site(server, variant), "/info")
            silent.settimeout(30)
            connection, _ = silent.accept()  # somebody has tried
            served.daemon.signal(signal.SIGTERM)
            assert served.wait_exit(cap=20) == DaemonExit.STOPPED
            connection.close()
            exits = served.events("worker.exited")
    assert len(exits) == 6
    assert {each["reason"] for each in exits} == {"drumd stops: got SIGTERM; exit 0"}
