"""What machines make up of the FastAPI app's own description, and of bytes at /predict."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.serving.routes import ROUTES
from tests import models
from tests.e2e.model_requests import FORM, form, part
from tests.e2e.model_servers import Asked, ModelServer, all_types, model_server
from tests.models import Built
from tests.models.generative import chat_hook

QUICK = settings(
    deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
OPEN = """
    import pandas as pd

    def score(data, model):
        return pd.DataFrame({"answer": ["said"] * data.shape[0]})

    def chat(completion_create_params, model):
        if completion_create_params.get("stream"):
            return chunks(completion_create_params, ["all", "said"])
        return completion(completion_create_params, "said")

    def get_supported_llm_models(model):
        return ["parrot"]
"""
"""A model that predicts from any table, and answers any chat."""


def anything_transformed(directory: Path) -> Built:
    """Build a model that returns any table as it is."""
    source = "def transform(data, model):\n    return data\n"
    return models.with_custom(directory, source, Target(TargetType.TRANSFORM))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """Serve the open model by FastAPI."""
    home = tmp_path_factory.mktemp("open")
    built = chat_hook(home, OPEN)
    with model_server(home / "run", built, "fastapi") as started:
        yield started


MODES = pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=str)


def answered(server: ModelServer, mode: GenerationMode, *paths: str) -> set[tuple[str, int]]:
    """Ask for these paths, or for all; return them with the statuses, each of which is described.

    So are content type, headers and form of each answer.
    """
    described = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    operations = [each.ok() for each in described.get_all_operations() if isinstance(each, Ok)]
    assert len(operations) == 16
    asked = set()
    for operation in operations:
        if paths and operation.path not in paths:
            continue
        if mode is GenerationMode.NEGATIVE and not any(each.is_required for each in operation.body):
            continue  # there is nothing to ask for in a wrong way

        @settings(QUICK, max_examples=12)
        @given(case=operation.as_strategy(generation_mode=mode))
        def answer(case: schemathesis.Case[Any]) -> None:
            # Which columns a model takes no description tells, so valid rows may be refused.
            response = case.call_and_validate(excluded_checks=[positive_data_acceptance])
            asked.add((case.operation.path, response.status_code))

        answer()
    return asked


@MODES
def test_every_answer_is_as_the_description_says(server: ModelServer, mode: GenerationMode) -> None:
    """Each endpoint answers as it is described, whatever it is sent."""
    asked = answered(server, mode)
    if mode is GenerationMode.POSITIVE:
        found = {path for path, status in asked if status == 200}
        assert {"/ping", "/v1/models", "/predict", "/chat/completions"} <= found


@MODES
@pytest.mark.parametrize(
    ("build", "paths"),
    [
        (anything_transformed, ("/transform",)),
        (models.unstructured, ("/predictUnstructured", "/predictionsUnstructured")),
    ],
    ids=["transform", "unstructured"],
)
def test_answers_of_other_targets_are_as_the_description_says(
    tmp_path: Path, build: Callable[[Path], Built], paths: tuple[str, ...], mode: GenerationMode
) -> None:
    """So do those endpoints that other models have."""
    with model_server(tmp_path / "run", build(tmp_path), "fastapi") as started:
        asked = answered(started, mode, *paths)
    if mode is GenerationMode.POSITIVE:
        assert {path for path, status in asked if status == 200} == set(paths)


def test_the_description_names_each_endpoint_once(server: ModelServer) -> None:
    """Every documented path is there without its slash at the end, with its method alone."""
    paths = server.get("/openapi.json").json()["paths"]
    assert {path: list(methods) for path, methods in paths.items()} == {
        path: [route.method.lower()] for route in ROUTES for path in route.paths
    }


# --- bytes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModelServer]]:
    """Serve a regression of two columns by each server type."""
    home = tmp_path_factory.mktemp("bytes")
    built = two_columns(home)
    with all_types(home, built) as started:
        yield started


def two_columns(directory: Path) -> Built:
    source = "def score(data, model):\n    return [1.0] * data.shape[0]\n"
    return models.with_custom(directory, source)


TYPES = st.sampled_from(
    [
        None,
        "text/csv",
        "text/csv; charset=utf-16",
        "text/csv; charset=utf-7",
        "text/mtx",
        "application/json",
        "application/vnd.apache.arrow.stream",
        "application/vnd.apache.arrow.file",
        FORM,
        "multipart/form-data; boundary=;",
        'multipart/form-data; boundary=""',
        "text/html",
        ";;;",
    ]
)
NEARLY = st.sampled_from(
    [
        b"a,b\n1,2\n",
        b'[{"a": 1, "b": 2}]',
        b"%%MatrixMarket matrix coordinate real general\n2 2 1\n1 1 3.0\n",
        form(part("X", b"a,b\n1,2\n")),
        b"ARROW1\0\0",
    ]
)
BODIES = st.binary(max_size=300) | st.builds(
    lambda nearly, at, noise: nearly[:at] + noise + nearly[at:],
    NEARLY,
    st.integers(0, 60),
    st.binary(max_size=5),
)


@settings(QUICK, max_examples=120)
@given(body=BODIES, content_type=TYPES)
def test_no_bytes_make_predict_fail(
    servers: dict[str, ModelServer], body: bytes, content_type: str | None
) -> None:
    """Whatever is sent is predicted from or refused, alike by each server type: never a 500."""
    asked = Asked("POST", "/predict", body=body, content_type=content_type)
    answers = [server.ask(asked).comparable() for server in servers.values()]
    assert answers[0] == answers[1] == answers[2]
    status, told = answers[0]["status"], answers[0]["body"]
    assert status in (200, 415, 422), answers[0]
    if status != 200:
        assert told["message"].startswith("ERROR: cannot ")
        assert "Traceback" not in json.dumps(told)
