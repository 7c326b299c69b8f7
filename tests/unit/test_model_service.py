"""One answer to one call: routes, bodies of answers, errors in one form, ids."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver import jsonbytes
from drumd.modelserver.errors import RequestError
from drumd.modelserver.inference.model import Model
from drumd.modelserver.serving.calls import Answer, Call, request_id
from drumd.modelserver.serving.routes import ROUTES, names_below, routes_by_path
from drumd.modelserver.serving.service import Service
from tests import models
from tests.models import Built
from tests.models.generative import chat_hook

CSV = {"content_type": "text/csv"}
ABC = """
    import pandas as pd

    def score(data, model, class_labels, headers):
        frame = pd.DataFrame({label: [0.5, 0.25, 0.25] for label in class_labels})
        frame[class_labels[0]] = [0.0, 0.5, 0.5]
        gaps = [0.5, float("nan"), 1.0]
        frame = frame.assign(größe=["s", "m", None], zahl=[1, 2, 3], gaps=gaps)
        return frame.assign(agent=headers["user-agent"])
"""


def service_of(built: Built) -> Service:
    return Service(Model.load(built.settings), names_below(""))


def ask(service: Service, path: str, body: bytes = b"", **headers: str) -> Answer:
    route = routes_by_path("")[path]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    call = Call(
        method=route.method,
        path=path,
        headers=named,
        body=body,
        request_id="abc",
    )
    return service.answer(route.handle, call)


def told(answer: Answer) -> Any:
    assert answer.content_type == "application/json"
    assert isinstance(answer.body, bytes)
    return json.loads(answer.body)


# --- routes ---------------------------------------------------------------------------------------


def test_each_path_is_there_with_and_without_its_slash() -> None:
    """Every path leads to one route in both forms; the root has only one."""
    paths = routes_by_path("")
    assert "" not in paths
    for path, route in paths.items():
        assert paths[path.rstrip("/") or "/"] is route
        if path != "/":
            assert paths[path.rstrip("/") + "/"] is route
    assert len(paths) == 2 * sum(len(route.paths) for route in ROUTES) - 1


def test_a_prefix_is_before_every_path() -> None:
    """Then nothing answers without it, and the root is the prefix itself."""
    paths = routes_by_path("/models/it")
    assert {path for path in paths if not path.startswith("/models/it")} == set()
    assert paths["/models/it"] is paths["/models/it/"] is routes_by_path("")["/"]
    assert paths["/models/it/v1/chat/completions/"].name == "chat"


# --- what is answered -----------------------------------------------------------------------------


def test_predictions_are_by_row_with_further_columns_beside_them(tmp_path: Path) -> None:
    """A number for each label in each row; other columns in extraModelOutput, gaps as null."""
    target = Target(TargetType.MULTICLASS, ("grün", "日本", 'a"b'))
    service = service_of(models.with_custom(tmp_path, ABC, target))
    answer = ask(service, "/predict", b"a,b\n1,2\n3,4\n5,6\n", user_agent="me", **CSV)
    assert told(answer) == {
        "predictions": [
            {"grün": 0.0, "日本": 0.5, 'a"b': 0.5},
            {"grün": 0.5, "日本": 0.25, 'a"b': 0.25},
            {"grün": 0.5, "日本": 0.25, 'a"b': 0.25},
        ],
        "extraModelOutput": [
            {"größe": "s", "zahl": 1, "gaps": 0.5, "agent": "me"},
            {"größe": "m", "zahl": 2, "gaps": None, "agent": "me"},
            {"größe": None, "zahl": 3, "gaps": 1.0, "agent": "me"},
        ],
    }
    assert isinstance(answer.body, bytes)
    assert "日本".encode() in answer.body


def test_info_tells_the_model_and_no_path(tmp_path: Path) -> None:
    """Target, labels, hooks and the directory's name; not where it lies."""
    directory = tmp_path / "release-7"
    directory.mkdir()
    built = models.with_custom(
        directory, "def score(data, model): ...", Target(TargetType.BINARY, ("yes", "no"), "loan")
    )
    answer = ask(service_of(built), "/info")
    info = told(answer)
    assert info.pop("drumdVersion")
    assert info == {
        "targetType": "binary",
        "targetName": "loan",
        "labels": ["yes", "no"],
        "kind": "custom.py",
        "hooks": ["score"],
        "modelDirectory": "release-7",
        "urlPrefix": "",
    }
    assert str(tmp_path) not in str(answer.body)


@pytest.mark.parametrize(
    ("target", "source", "endpoints", "streaming"),
    [
        (
            TargetType.REGRESSION,
            "score(data, model)",
            ["/predict", "/predictions", "/invocations"],
            False,
        ),
        (TargetType.TRANSFORM, "transform(data, model)", ["/transform"], False),
        (
            TargetType.UNSTRUCTURED,
            "score_unstructured(model, data)",
            ["/predictUnstructured", "/predictionsUnstructured"],
            False,
        ),
        (
            TargetType.TEXT_GENERATION,
            "chat(completion_create_params, model)",
            ["/chat/completions", "/v1/chat/completions", "/models", "/v1/models"],
            True,
        ),
    ],
)
def test_capabilities_name_the_endpoints_of_the_target(
    tmp_path: Path, target: TargetType, source: str, endpoints: list[str], streaming: bool
) -> None:
    """Only those that this model answers, with what can be sent to them."""
    built = models.with_custom(tmp_path, f"def {source}: ...", Target(target))
    found = told(ask(service_of(built), "/capabilities"))
    assert (found["targetType"], found["endpoints"]) == (str(target), endpoints)
    assert found["streaming"] is streaming
    formats = found["supportedPayloadFormats"]
    if target is TargetType.UNSTRUCTURED:
        assert formats == {"any": ["*/*"]}
    elif target is TargetType.TEXT_GENERATION:
        assert formats == {}
    else:
        assert formats["mtx"] == ["text/mtx"]


def test_stats_count_requests_by_route(tmp_path: Path) -> None:
    """Each with its errors and its seconds; the process with its memory and its age."""
    service = service_of(models.with_custom(tmp_path, "def score(data, model): ..."))
    for status in (200, 404, 500):
        service.ended(service.began("POST", "/predictions/", None), status)
    service.ended(service.began("GET", "/nowhere", None), 404)
    stats = told(ask(service, "/stats"))
    assert stats["requests"]["predict"]["count"] == 3
    assert stats["requests"]["predict"]["errors"] == 2
    assert stats["requests"]["predict"]["longestSeconds"] <= stats["requests"]["predict"]["seconds"]
    assert stats["requests"]["none"]["count"] == 1
    assert stats["memoryBytes"] > 2**20
    assert stats["uptimeSeconds"] > 0
    assert stats["modelLoadSeconds"] > 0


# --- what is refused ------------------------------------------------------------------------------


def test_what_nobody_foresaw_is_500_without_its_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets the id to look for; the log gets the traceback."""
    service = service_of(models.with_custom(tmp_path, "def score(data, model): ..."))
    del service.model._predicting
    answer = ask(service, "/predict", b"a\n1\n", content_type="text/csv")
    assert answer.status == 500
    assert told(answer) == {
        "message": "ERROR: cannot answer: the server failed; its log says why, with request id abc"
    }
    assert "_predicting" in caplog.text
    assert "request abc: cannot answer" in caplog.text


def test_a_completion_that_is_no_json_is_the_hooks_error(tmp_path: Path) -> None:
    """It names the hook, with status 500."""
    source = """
        def chat(completion_create_params, model):
            return completion(completion_create_params, "x") | {"extra": {1, 2}}
    """
    service = service_of(chat_hook(tmp_path, source))
    answer = ask(service, "/chat/completions", b'{"messages": [{"role": "user"}]}')
    assert answer.status == 500
    message = told(answer)["message"]
    assert message.startswith("ERROR: cannot answer: what chat returned cannot be written as JSON")


def test_unknown_paths_and_methods_are_told_in_one_form(tmp_path: Path) -> None:
    """Long ones are cut; the methods that there are stand in Allow, sorted."""
    service = service_of(models.with_custom(tmp_path, "def score(data, model): ..."))
    missing = service.not_found(f"/{'x' * 5000}")
    assert missing.status == 404
    assert len(told(missing)["message"]) < 300
    wrong = service.not_allowed("PUT", "/ping", {"HEAD", "GET"})
    assert (wrong.status, wrong.headers) == (405, {"Allow": "GET, HEAD"})
    assert told(wrong) == {"message": "ERROR: cannot PUT /ping: use GET, HEAD"}


# --- pieces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        ("abc-123", True),
        ("~!{}", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        (None, False),
        ("a b", False),
        ("a\tb", False),
        ("ä", False),
        ("a\x7f", False),
    ],
)
def test_an_id_is_echoed_if_it_can_stand_in_a_log(given: str | None, echoed: bool) -> None:
    """Up to 128 printable ASCII characters without spaces; else a new one is made each time."""
    if echoed:
        assert request_id(given) == given
    else:
        assert len(request_id(given)) == 32
        assert request_id(given) != request_id(given)


def test_a_query_is_read_as_utf_8_and_its_last_value_counts() -> None:
    """Blank values are kept; what is no UTF-8 is marked; too many fields are refused."""
    query = b"a=1&a=2&b=%C3%A4+x&c&d=%ff"
    assert Call(method="POST", path="/", query_string=query).query() == {
        "a": "2",
        "b": "ä x",
        "c": "",
        "d": "\ufffd",
    }
    with pytest.raises(RequestError, match="more than 1000 fields"):
        Call(method="POST", path="/", query_string=b"a&" * 1001).query()


def test_json_has_numpys_numbers_and_dates_as_pythons() -> None:
    """Compact, in UTF-8; a lone surrogate does not break it."""
    value = {
        "float": np.float32(0.5),
        "int": np.int64(7),
        "bool": np.bool_(True),
        "array": np.array([[1, 2]]),
        "when": pd.Timestamp("2020-01-02"),
        "day": dt.date(2020, 1, 2),
        "text": "grün \ud800",
    }
    assert jsonbytes.dumps(value).decode() == (
        '{"float":0.5,"int":7,"bool":true,"array":[[1,2]],"when":"2020-01-02T00:00:00",'
        '"day":"2020-01-02","text":"grün ?"}'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsonbytes.dumps(float("nan"))
    with pytest.raises(TypeError, match="set is no JSON"):
        jsonbytes.dumps({1})
