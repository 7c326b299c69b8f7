"""Flask, gunicorn and FastAPI give the same answers, but for a short list of differences."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deepdiff import DeepDiff

from drumd.config.modelserver.target import Target, TargetType
from tests import models
from tests.e2e.daemon import Document
from tests.e2e.model_requests import (
    BREAKING_STREAMS,
    FORM,
    MAX_BODY,
    READING,
    SAME_ROWS,
    chat_requests,
    data_requests,
    form_of,
    hook_requests,
    mood_requests,
    protocol_requests,
    table_requests,
    transform_requests,
    unstructured_requests,
)
from tests.e2e.model_servers import TYPES, Asked, ModelServer, all_types, answers
from tests.models import Built
from tests.models.built import CSV, JSON


@dataclass(frozen=True)
class Difference:
    """One way in which the server types may differ."""

    requests: tuple[str, ...]
    """Names of requests that it concerns."""
    types: tuple[str, ...]
    """Server types that answer in another way than Flask, or another status than is asked for."""
    why: str


ALLOWED = (
    Difference(
        ("unknown method",),
        ("fastapi",),
        "Uvicorn's parser knows HTTP's methods, and refuses others as no HTTP: 400, as text.",
    ),
    Difference(
        ("two slashes at the front",),
        ("fastapi",),
        "Werkzeug's and gunicorn's servers take the first of two slashes away; Uvicorn does not.",
    ),
    Difference(
        ("openapi",), ("fastapi",), "/openapi.json describes the FastAPI app; Flask has none."
    ),
)
"""All of them: docs/model-server.md lists the same."""

UNICODE = """
    import pandas as pd

    def score(data, model, class_labels):
        frame = pd.DataFrame({label: [0.5, 0.25, 0.25] for label in class_labels})
        frame[class_labels[0]] = [0.0, 0.5, 0.5]
        return frame.assign(größe=["s", "m", None], zahl=[1, 2, 3], anteil=[0.5, float("nan"), 1.0])
"""
LABELS = ("grün", "日本", 'a"b\\c')


def unicode(directory: Path) -> Built:
    """Build a model with labels and columns beyond ASCII, which its model-metadata.yaml names."""
    metadata = {"targetType": "multiclass", "inferenceModel": {"classLabels": LABELS}}
    (directory / "model-metadata.yaml").write_text(json.dumps(metadata))  # JSON is YAML
    target = Target(TargetType.MULTICLASS, LABELS)
    return models.with_custom(directory, UNICODE, target)


def doubling(directory: Path) -> Built:
    """Build a transform of anything that can be multiplied: tables and sparse matrices."""
    source = "def transform(data, model):\n    return data * 2\n"
    return models.with_custom(directory, source, Target(TargetType.TRANSFORM))


MOODS = {
    "fine": 200,
    "raise": 500,
    "exit": 500,
    "own status": 404,
    "starlette": 429,
    "werkzeug": 409,
    "not a number": 500,
    "text": 500,
    "too few": 500,
    "two columns": 500,
    "none": 500,
    "long": 500,
}

Requests = Callable[[Built], Mapping[str, Asked]]
FLAGS = ("--target-type=multilabel", "--class-labels", "large", "wide")


def tables(built: Built) -> dict[str, Asked]:
    return data_requests(built) | table_requests(built)


def texts(built: Built) -> dict[str, Asked]:
    requests = {
        path: Asked("POST", path, 200, built.payload.data, CSV)
        for each in ("/predict", "/predictions", "/invocations")
        for path in (each, f"{each}/")
    }
    hello = b'{"messages": [{"role": "user", "content": "hi"}]}'
    return requests | {"no chat": Asked("POST", "/v1/chat/completions", 422, hello, JSON)}


def matrices(built: Built) -> dict[str, Asked]:
    form = Asked("POST", "/predict", 200, form_of(built.payload), FORM)
    return data_requests(built) | {"form with names": form}


def whole_numbers(built: Built) -> dict[str, Asked]:
    rows = {"whole": "3,10.0", "fraction": "2,1.7", "missing": ",1", "too large": "9e18,9e19"}
    statuses = {"whole": 200}
    return data_requests(built) | {
        name: Asked(
            "POST", "/predict", statuses.get(name, 422), f"rooms,age\n{row}\n".encode(), CSV
        )
        for name, row in rows.items()
    }


MODELS: dict[str, tuple[Callable[[Path], Built], Requests, dict[str, Any]]] = {
    "regression": (models.regression, tables, {}),
    "binary": (models.binary, tables, {"prefix": "/models/v1.0"}),
    "multiclass": (models.multiclass, tables, {}),
    "onnx": (models.onnx_binary, tables, {}),
    "whole numbers": (models.onnx_whole_numbers, whole_numbers, {}),
    "sparse": (models.sparse, matrices, {}),
    "unstructured": (
        models.unstructured,
        lambda built: data_requests(built) | unstructured_requests(),
        {"prefix": "/m"},
    ),
    "chat": (models.chat, lambda built: data_requests(built) | chat_requests(), {}),
    "transform": (
        doubling,
        lambda built: data_requests(built) | transform_requests(built),
        {"prefix": "/t"},
    ),
    # Labels come from the environment, but for these two: from the model's file, and from flags.
    "unicode": (unicode, data_requests, {"environ": {"TARGET_TYPE": "", "CLASS_LABELS": ""}}),
    "multilabel": (
        models.multilabel,
        tables,
        {
            "arguments": FLAGS,
            "environ": {"TARGET_TYPE": "multiclass", "CLASS_LABELS": "x,y"},
            "prefix": "/l",
        },
    ),
    "anomaly": (models.anomaly, data_requests, {}),
    "text": (models.text_generation, texts, {}),
    "hooks": (
        models.failing_hooks,
        lambda built: data_requests(built) | hook_requests(built),
        {},
    ),
    "moody": (
        models.moody,
        lambda built: protocol_requests(built.payload.data) | mood_requests(MOODS),
        {"parameters": {"DRUM_MAX_REQUEST_SIZE": MAX_BODY}},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_answers_are_the_same(name: str, tmp_path: Path) -> None:
    """Every request has its status from all server types, and their answers do not differ."""
    build, requests_of, options = MODELS[name]
    directory = tmp_path / "model"
    directory.mkdir()
    built = build(directory)
    requests = READING | dict(requests_of(built))
    with all_types(tmp_path, built, **options) as servers:
        found = {each: answers(server, requests) for each, server in servers.items()}
        assert_no_traceback(found)
        assert_statuses(requests, found)
        for other in TYPES[1:]:
            assert_equal(found["flask"], found[other], other)
        assert_right(built, found["flask"])
        if name == "chat":
            assert_streams_end(found["flask"])
        assert_stats_are_alike(servers)
        assert_prefixed(servers)


def assert_statuses(
    requests: Mapping[str, Asked], found: Mapping[str, Mapping[str, Document]]
) -> None:
    wrong = [
        f"{each}: {name}: {told[name]}"
        for each, told in found.items()
        for name, asked in requests.items()
        if told[name]["status"] != asked.status and name not in allowed(each)
    ]
    assert not wrong, "\n".join(wrong)


def assert_right(built: Built, told: Mapping[str, Document]) -> None:
    """The target is the model's, and rows are answered alike however they were sent."""
    info = told["/info"]["body"]
    assert info["targetType"] == built.target.type
    assert info["labels"] == list(built.target.labels)
    for name in SAME_ROWS:
        if name in told and "/predict" in told:
            assert told[name]["body"] == told["/predict"]["body"], name


def assert_streams_end(told: Mapping[str, Document]) -> None:
    """What goes wrong in the midst of a stream is its last event; [DONE] ends only the others."""
    for text, message in BREAKING_STREAMS.items():
        *_, last, end = told[f"stream: {text}"]["body"].split(b"\n\n")
        error = json.loads(last.removeprefix(b"data: "))["error"]
        assert (error["code"], end) == (402 if "status" in text else 500, b"")
        assert error["message"].startswith(f"ERROR: {message}")
    assert told["stream"]["body"].endswith(b"\n\ndata: [DONE]\n\n")


def assert_prefixed(servers: Mapping[str, ModelServer]) -> None:
    """With a prefix, the root is the prefix itself, and nothing answers without it."""
    for each, server in servers.items():
        if server.prefix:
            assert server.get("").json() == {"message": "OK"}, each
            assert ModelServer(server.daemon, server.port).get("/ping").status == 404, each


def assert_equal(flask: Mapping[str, Document], told: Mapping[str, Document], other: str) -> None:
    excused = allowed(other)
    difference = DeepDiff(
        {name: answer for name, answer in flask.items() if name not in excused},
        {name: answer for name, answer in told.items() if name not in excused},
        zip_ordered_iterables=True,  # without it, long lists take minutes
    )
    assert not difference, f"flask and {other} differ:\n{difference.pretty()}"
    # The list is to stay short: what no longer differs must go.
    same = [name for name in excused & flask.keys() if flask[name] == told[name]]
    assert not same


def allowed(server_type: str) -> set[str]:
    return {name for each in ALLOWED if server_type in each.types for name in each.requests}


def assert_no_traceback(found: Mapping[str, Mapping[str, Document]]) -> None:
    for each, told in found.items():
        for name, answer in told.items():
            assert "Traceback" not in str(answer["body"]), (name, answer)
            if answer["status"] >= 400 and answer["body"] and name not in allowed(each):
                assert isinstance(answer["body"], dict), (each, name, answer)
                assert answer["body"]["message"].startswith("ERROR: "), (each, name, answer)


def assert_stats_are_alike(servers: Mapping[str, ModelServer]) -> None:
    """What a worker has done is counted alike; how long it took is each one's own."""
    shapes = []
    for server in servers.values():
        stats = server.get("/stats").json()
        assert server.get("/stats/").json().keys() == stats.keys()
        requests = stats.pop("requests")
        counts = {name: (each["count"], each["errors"]) for name, each in requests.items()}
        # An unknown method and /openapi.json are answered in one server alone.
        counts.pop("none", None)
        counts.pop("ping", None)
        shapes.append((sorted(stats), counts))
    assert shapes[0] == shapes[1] == shapes[2]
