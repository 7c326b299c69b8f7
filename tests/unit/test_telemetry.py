"""When the model server sends traces, and what it says when it cannot."""

import subprocess
import sys
from collections.abc import Mapping

import pytest

from drumd.modelserver.errors import LoadError
from drumd.modelserver.tracing import telemetry

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
TRACES_PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        (ENDPOINT, True),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "false"}, True),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "TRUE", PROTOCOL: "grpc"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {PROTOCOL: "http/protobuf"}, True),
        (ENDPOINT | {PROTOCOL: "grpc", TRACES_PROTOCOL: "http/protobuf"}, True),
    ],
)
def test_wanted(environ: Mapping[str, str], *, wanted: bool) -> None:
    """Traces are sent where a collector is named, and nothing says that they are not to be."""
    assert telemetry.wanted(environ) == wanted


@pytest.mark.parametrize("name", [PROTOCOL, TRACES_PROTOCOL])
@pytest.mark.parametrize("protocol", ["grpc", "http/json"])
def test_other_protocols(name: str, protocol: str) -> None:
    """A protocol that is not spoken is an error that names the one that is."""
    with pytest.raises(
        LoadError, match=f"cannot send traces by {name}={protocol}: .*{name}=http/protobuf"
    ):
        telemetry.wanted(ENDPOINT | {name: protocol})


@pytest.mark.parametrize("framework", ["flask", "fastapi"])
@pytest.mark.parametrize(
    "missing",
    ["opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation"],
)
def test_missing_packages(framework: str, missing: str) -> None:
    """A package that is missing is an error, while the app is loaded, that names the extra."""
    code = f"""
import sys
sys.modules[{missing!r}] = None
from drumd.modelserver.tracing import telemetry
try:
    telemetry.instrument_{framework}(None, None)
except telemetry.LoadError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENDPOINT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("cannot send traces to OTEL_EXPORTER_OTLP_ENDPOINT: ")
    assert "pip install 'drumd[otel]'" in done.stdout
