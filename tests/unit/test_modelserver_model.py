# ruff: noqa: PD011 - Predictions have values, too

import datetime as dt
import math
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import drumd
from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver import reading
from drumd.modelserver.errors import HookError, LoadError, RequestError
from drumd.modelserver.inference.model import Model
from drumd.modelserver.inference.onnx_classes import constants
from drumd.modelserver.payload import Payload
from tests import models
from tests.models.built import (
    ARROW_FILE,
    CSV,
    JSON,
    Built,
    arrow_of,
    csv_of,
    json_of,
    matrix_market_of,
)

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


def load(built: Built) -> Model:
    return Model.load(built.settings)


def trained(built: Built) -> Any:
    return joblib.load(next(built.directory.glob("model.*")))


def flat(values: list[Any], labels: tuple[str, ...]) -> Any:
    """Return predictions as an array, in the order of the labels."""
    if not labels:
        return np.array(values)
    return np.array([[row[label] for label in labels] for row in values])


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (models.regression, lambda model, data: model.predict(data)),
        (models.binary, lambda model, data: model.predict_proba(data)[:, ::-1]),
        (models.multiclass, lambda model, data: model.predict_proba(data)[:, ::-1]),
        (
            models.multilabel,
            lambda model, data: np.column_stack([each[:, 1] for each in model.predict_proba(data)]),
        ),
        (models.anomaly, lambda model, data: model.decision_function(data)),
    ],
    ids=["regression", "binary", "multiclass", "multilabel", "anomaly"],
)
def test_a_scikit_learn_model_answers_as_by_itself(
    tmp_path: Path, build: Callable[[Path], Built], expected: Callable[[Any, Any], Any]
) -> None:
    """Each row has the model's own numbers under the right labels, from every format."""
    built = build(tmp_path)
    model = load(built)
    assert model.kind == "scikit-learn"
    wanted = expected(trained(built), built.frame)
    for payload in (built.payload, json_of(built.frame), arrow_of(built.frame, ARROW_FILE)):
        values = model.predict(payload).values
        np.testing.assert_allclose(flat(values, built.target.labels), wanted, rtol=1e-6)


@pytest.mark.parametrize("code", ["", "def score(data, model): return model.predict_proba(data)"])
@pytest.mark.parametrize("labels", [("1", "0"), ("True", "False"), ("1.0", "0"), ("0", "1")])
def test_classes_may_be_written_otherwise_than_their_labels(
    tmp_path: Path, labels: tuple[str, str], code: str
) -> None:
    """True is the label "1" as well as "True", by the model itself and by what its hook returns."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - slow to import

    data = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0]})
    model = LogisticRegression().fit(data, data["a"] > 1.5)
    joblib.dump(model, tmp_path / "model.pkl")
    if code:
        (tmp_path / "custom.py").write_text(code)
    built = Built(tmp_path, Target(TargetType.BINARY, labels), csv_of(data))
    wanted = model.predict_proba(data)[:, :: 1 if labels == ("0", "1") else -1]
    np.testing.assert_allclose(flat(load(built).predict(built.payload).values, labels), wanted)


def test_a_sparse_model_answers_with_and_without_names(tmp_path: Path) -> None:
    """Matrix Market data reach the model sparse; names of the columns change nothing."""
    built = models.sparse(tmp_path)
    model = load(built)
    matrix = reading.read(Payload(built.payload.data, built.payload.content_type))
    wanted = trained(built).predict_proba(matrix)[:, ::-1]
    for columns in (built.payload.columns, None):
        payload = Payload(built.payload.data, built.payload.content_type, columns)
        np.testing.assert_allclose(flat(model.predict(payload).values, ("good", "bad")), wanted)


@pytest.mark.parametrize("form", ["matrix", "columns"])
def test_an_onnx_regression_answers_as_the_model_it_is_made_from(tmp_path: Path, form: str) -> None:
    """Its columns go into one input, or each into its own by name."""
    built = models.onnx_regression(tmp_path, columns=form == "columns")
    model = load(built)
    assert model.kind == "onnxruntime"
    (tmp_path / "sklearn").mkdir()
    wanted = load(models.regression(tmp_path / "sklearn")).predict(built.payload).values
    np.testing.assert_allclose(model.predict(built.payload).values, wanted, rtol=1e-4)
    if form == "columns":
        shuffled = built.frame[built.frame.columns[::-1]].assign(more="text")
        np.testing.assert_allclose(model.predict(csv_of(shuffled)).values, wanted, rtol=1e-4)


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize(
    ("build", "original"),
    [(models.onnx_binary, models.binary), (models.onnx_multiclass, models.multiclass)],
    ids=["binary", "multiclass"],
)
def test_an_onnx_classifier_has_its_classes_by_name(
    tmp_path: Path, build: Callable[..., Built], original: Callable[[Path], Built], zipmap: bool
) -> None:
    """Probabilities without names are in the order of the classes that the file tells."""
    built = build(tmp_path, zipmap=zipmap)
    (tmp_path / "sklearn").mkdir()
    wanted = load(original(tmp_path / "sklearn")).predict(built.payload).values
    labels = built.target.labels
    values = load(built).predict(built.payload).values
    np.testing.assert_allclose(flat(values, labels), flat(wanted, labels), atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["naive_bayes:GaussianNB", "neighbors:KNeighborsClassifier", "ensemble:BaggingClassifier"],
)
def test_an_onnx_graph_that_chooses_by_itself_has_its_classes_in_a_constant(
    tmp_path: Path, name: str
) -> None:
    """No classifier in it has them; those within a bag have numbers instead."""
    model = pkgutil.resolve_name(f"sklearn.{name}")()
    built = models.onnx_multiclass(tmp_path, zipmap=False, model=model)
    wanted = model.predict_proba(built.frame)[:, ::-1]
    values = load(built).predict(built.payload).values
    # Of neighbors at the same distance either may be chosen.
    np.testing.assert_allclose(flat(values, built.target.labels), wanted, atol=0.25)
    other = replace(built, target=Target(TargetType.MULTICLASS, ("a", "b", "c")))
    if "neighbors" not in name:  # its constant has a name that says nothing
        with pytest.raises(LoadError, match="its classes are "):
            load(other)


def test_lists_in_an_onnx_file_are_read_however_they_are_written() -> None:
    """Texts and whole numbers, as numbers or as bytes; tables and weights are none."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - slow to import

    numbers = [2, 0, -1]
    tensors = [
        helper.make_tensor("texts", TensorProto.STRING, [2], ["grün".encode(), b""]),
        helper.make_tensor("int64", TensorProto.INT64, [3], numbers),
        helper.make_tensor("int32", TensorProto.INT32, [3], numbers),
        numpy_helper.from_array(np.array(numbers), "raw 64"),
        numpy_helper.from_array(np.array(numbers, dtype=np.int32), "raw 32"),
        numpy_helper.from_array(np.array([1.0, 2.0]), "weights"),
        numpy_helper.from_array(np.array([numbers]), "table"),
        numpy_helper.from_array(np.arange(10_001), "long"),
    ]
    graph = helper.make_graph([], "graph", [], [], tensors)
    model = memoryview(helper.make_model(graph).SerializeToString())
    texts = list(map(str, numbers))
    kinds = ("int64", "int32", "raw 64", "raw 32")
    assert dict(constants(model)) == {"texts": ["grün", ""]} | dict.fromkeys(kinds, texts)
    for end in range(400):
        list(constants(model[:end]))


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize(
    ("build", "target", "classes"),
    [
        (models.onnx_binary, Target(TargetType.BINARY, ("1", "0")), "no, yes"),
        (models.onnx_multiclass, Target(TargetType.MULTICLASS, ("a", "b", "c")), "setosa, vers"),
    ],
    ids=["binary", "multiclass"],
)
def test_an_onnx_classifier_of_other_classes_is_refused(
    tmp_path: Path, build: Callable[..., Built], target: Target, classes: str, zipmap: bool
) -> None:
    """Taken for the labels in their order, the positive class would have the other's numbers."""
    built = replace(build(tmp_path, zipmap=zipmap), target=target)
    with pytest.raises(LoadError, match=f"its classes are {classes}.* set the labels to the clas"):
        load(built)


def test_an_onnx_detector_of_anomalies_answers_with_its_scores(tmp_path: Path) -> None:
    """They are those of the model that it is made from, not its choice of 1 or -1."""
    built = models.onnx_anomaly(tmp_path)
    (tmp_path / "sklearn").mkdir()
    wanted = load(models.anomaly(tmp_path / "sklearn")).predict(built.payload).values
    np.testing.assert_allclose(load(built).predict(built.payload).values, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "change", "told"),
    [
        (models.regression, lambda data: data.drop(columns="bmi"), "1 of the model's 10 columns "),
        (models.regression, lambda data: data.assign(bmi="high"), "could not convert string"),
        (models.regression, lambda data: data.assign(bmi=np.nan), "contains NaN"),
        (models.onnx_regression, lambda data: data.drop(columns="bmi"), "the model takes 10"),
        (models.regression, lambda data: data.assign(bmi="1" * 400), "too large"),
        (models.onnx_regression, lambda data: data.assign(bmi="high"), "'bmi' is not of numbers"),
        (models.onnx_regression, lambda data: data.assign(bmi="1" * 400), "not of num|too large"),
        (models.onnx_regression, lambda data: data.assign(bmi=np.nan), "row 0 has a value that is"),
        (models.onnx_regression, lambda data: data.assign(bmi=1e300), "row 0 has a value that is"),
        (models.onnx_binary, lambda data: data.assign(**{data.columns[0]: np.nan}), "row 0 has a"),
    ],
    ids=[
        "sklearn column",
        "sklearn text",
        "sklearn missing",
        "onnx column",
        "sklearn huge",
        "onnx text",
        "onnx huge",
        "onnx missing",
        "onnx infinite",
        "onnx class",
    ],
)
def test_data_that_the_model_cannot_use_are_the_clients_error(
    tmp_path: Path, build: Callable[[Path], Built], change: Callable[[Any], Any], told: str
) -> None:
    """Without hooks, only the data can be at fault: status 422, and the model's words."""
    built = build(tmp_path)
    with pytest.raises(RequestError, match=told) as caught:
        load(built).predict(csv_of(change(built.frame)))
    assert caught.value.status == 422


@pytest.mark.parametrize(
    "value",
    [{"x": 1}, [1, 2], dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.date(2026, 1, 1), dt.time(1)],
    ids=lambda value: type(value).__name__,
)
def test_values_that_are_no_numbers_are_the_clients_error(tmp_path: Path, value: Any) -> None:
    """JSON and Arrow can hold what no model was trained with, and Python has other words for it."""
    built = models.regression(tmp_path)
    data = built.frame.assign(bmi=pd.Series([value] * built.rows, index=built.frame.index))
    with pytest.raises(RequestError, match="cannot predict from these data"):
        load(built).predict(arrow_of(data))


@pytest.mark.parametrize("names", [None, ["a", "b"]])
def test_a_sparse_matrix_for_a_model_that_takes_none_is_the_clients_error(
    tmp_path: Path, names: list[str] | None
) -> None:
    """The model says so by a TypeError, which is not its mistake."""
    from sklearn.naive_bayes import GaussianNB  # noqa: PLC0415 - slow to import

    data = pd.DataFrame({"a": [0.0, 1.0], "b": [1.0, 0.0]})
    joblib.dump(GaussianNB().fit(data, ["yes", "no"]), tmp_path / "model.pkl")
    model = load(Built(tmp_path, Target(TargetType.BINARY, ("yes", "no")), csv_of(data)))
    assert len(model.predict(csv_of(data)).values) == 2
    with pytest.raises(RequestError, match="dense data is required"):
        model.predict(matrix_market_of(scipy.sparse.csr_matrix(data), names))


def test_the_models_own_mistake_is_not_the_clients(tmp_path: Path) -> None:
    """What its code raises for data as they should be is 500, whichever exception it is."""
    built = models.regression(tmp_path)
    model = trained(built)
    model.coef_ = None
    joblib.dump(model, tmp_path / "model.joblib")
    with pytest.raises(HookError, match="the model's predict raised"):
        load(built).predict(built.payload)


@pytest.mark.parametrize(
    ("kind", "taken", "refused", "expected"),
    [
        pytest.param(
            "tensor(int32)",
            ([2**31 - 1, -(2**31)], [3.0, -0.0], ["7"], [True]),
            (2**31, -(2**31) - 1, 2**40, -(2.0**40), math.inf, 2**70),
            "whole numbers from -2147483648 to 2147483647",
            id="int32",
        ),
        pytest.param(
            "tensor(int64)",
            ([2**63 - 1, -(2**63)], [str(2**53 + 1), 2**53 + 1, True], [-(2.0**63)]),
            (2**63, 2.0**63, -(2**63) - 1, -math.inf),
            "whole numbers from -9223372036854775808 to 9223372036854775807",
            id="int64",
        ),
        pytest.param(
            "tensor(bool)",
            ([True, False], [0, 1], [1.0]),
            (2, -1, 2**63),
            "0 and 1, or false and true",
            id="bool",
        ),
    ],
)
def test_an_onnx_input_of_whole_numbers_takes_those_that_it_can_hold(
    kind: str, taken: tuple[list[Any], ...], refused: tuple[Any, ...], expected: str
) -> None:
    """Others would be cut off without a word: they are refused, with what is expected."""
    from drumd.modelserver.inference.onnx_models import _array  # noqa: PLC0415 - slow to import

    node = SimpleNamespace(type=kind)
    for numbers in taken:
        found = _array(pd.DataFrame({"a": numbers}), node)
        assert found.tolist() == [[int(number)] for number in numbers]
    for number in (*refused, 1.7, "0.5", math.nan):
        frame = pd.DataFrame({"b": [1, 1], "a": [1, number]})
        with pytest.raises(RequestError) as caught:
            _array(frame, node)
        told = str(caught.value)
        assert "the column 'a' has " in told
        assert told.endswith(f"; the model takes {expected} ({kind})")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"rooms,age\n3,10\n2,1.7\n", "'age' has 1.7; the model takes whole numbers from"),
        (b"rooms,age\n3,10\n,1\n", "'rooms' has missing values; the model takes whole"),
        (b"rooms,age\n3,10\n9223372036854775808,1\n", "'rooms' has 9223372036854775808; the"),
        (b"rooms,age\n3,10\nmany,1\n", "'rooms' is not of numbers"),
    ],
    ids=["fraction", "missing", "too large", "text"],
)
def test_an_onnx_model_of_whole_numbers_refuses_others(
    tmp_path: Path, data: bytes, told: str
) -> None:
    """A row of 1.7 is no row of 1: it is the client's error, as any other that does not fit."""
    model = load(models.onnx_whole_numbers(tmp_path))
    assert model.predict(Payload(b"rooms,age\n3,10.0\n")).values == pytest.approx([43.0])
    with pytest.raises(RequestError, match=told) as caught:
        model.predict(Payload(data))
    assert caught.value.status == 422


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("build", [models.regression, models.onnx_regression])
def test_another_separator_is_told(
    tmp_path: Path, build: Callable[[Path], Built], separator: str
) -> None:
    """A table that became one column gets the advice with it; one other column does not."""
    built = build(tmp_path)
    model = load(built)
    data = built.frame.to_csv(index=False, sep=separator).encode()
    name = repr(separator.join(built.frame.columns))
    with pytest.raises(RequestError) as caught:
        model.predict(Payload(data))
    assert f"; there is one column, {name[:20]}" in str(caught.value)
    assert str(caught.value).endswith(": separate the fields with commas")
    with pytest.raises(RequestError) as caught:
        model.predict(csv_of(built.frame[["bmi"]]))
    assert "separate" not in str(caught.value)


def test_the_order_of_columns_is_the_models(tmp_path: Path) -> None:
    """Columns in another order, and further ones, do not change the answer."""
    built = models.regression(tmp_path)
    model = load(built)
    shuffled = built.frame[built.frame.columns[::-1]].assign(comment="x")
    assert model.predict(csv_of(shuffled)).values == model.predict(built.payload).values


def test_a_model_trained_without_names_takes_any(tmp_path: Path) -> None:
    """Its number of columns is all that is checked, and nothing is warned of."""
    from sklearn.linear_model import LinearRegression  # noqa: PLC0415 - slow to import

    joblib.dump(LinearRegression().fit(np.eye(2), [1.0, 2.0]), tmp_path / "model.pkl")
    model = load(Built(tmp_path, Target(TargetType.REGRESSION), Payload(b"")))
    assert model.predict(Payload(b"p,q\n1,0\n0,1\n")).values == pytest.approx([1.0, 2.0])
    with pytest.raises(RequestError, match="they have 1 columns, the model was trained with 2"):
        model.predict(Payload(b"p\n1\n"))
    with pytest.raises(RequestError, match="with 2; there is one column, 'p;q': separate the"):
        model.predict(Payload(b"p;q\n1;2\n"))


@pytest.mark.parametrize("kind", ["one versus rest", "never wide"])
def test_other_multilabel_models_have_their_labels_in_order(tmp_path: Path, kind: str) -> None:
    """Whether the model numbers its labels, or knows of one only that it never applied."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 - slow to import
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - slow to import
    from sklearn.multiclass import OneVsRestClassifier  # noqa: PLC0415 - slow to import

    data = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0]})
    if kind == "never wide":
        model = RandomForestClassifier(n_estimators=3, random_state=0)
        model.fit(data, [[0, 0], [0, 0], [1, 0], [1, 0]])
    else:
        model = OneVsRestClassifier(LogisticRegression())
        model.fit(data, np.array([[0, 1], [0, 1], [1, 0], [1, 0]]))
    joblib.dump(model, tmp_path / "model.pkl")
    built = Built(tmp_path, Target(TargetType.MULTILABEL, ("large", "wide")), csv_of(data))
    values = load(built).predict(built.payload).values
    assert [row["large"] > 0.5 for row in values] == [False, False, True, True]
    wide = [False] * 4 if kind == "never wide" else [True, True, False, False]
    assert [row["wide"] > 0.5 for row in values] == wide


def test_a_pipeline_that_takes_texts_gets_the_one_column(tmp_path: Path) -> None:
    """A vectorizer would take a table for a list of its columns' names."""
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415 - slow to import
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - slow to import
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - slow to import

    texts = ["a fine day", "a warm day", "a cold day", "a wet day"]
    pipeline = make_pipeline(CountVectorizer(), LogisticRegression())
    joblib.dump(pipeline.fit(texts, ["good", "good", "bad", "bad"]), tmp_path / "model.pkl")
    built = Built(tmp_path, Target(TargetType.BINARY, ("good", "bad")), Payload(b""))
    values = load(built).predict(Payload(b"text\nso fine\nso cold\n")).values
    assert [row["good"] > row["bad"] for row in values] == [True, False]
    with pytest.raises(RequestError, match="'int' object has no attribute 'lower'"):
        load(built).predict(Payload(b'[{"text": 5}]', JSON))


def test_an_answer_for_what_is_no_table_may_have_any_length(tmp_path: Path) -> None:
    """The height of an image, say, is no number of rows."""
    source = """
        import numpy as np
        def read_input_data(data): return np.zeros((480, 640, 3))
        def score(data, model): return [1.0]
    """
    model = load(models.with_custom(tmp_path, source))
    assert model.predict(Payload(b"PNG", "image/png")).values == [1.0]


def test_a_signal_handlers_exit_goes_through_a_hook(tmp_path: Path) -> None:
    """gunicorn ends a worker that is stuck by an exit in whatever it is doing."""
    source = """
        names = {"__name__": "gunicorn.workers.base"}
        exec("def handle_abort(): raise SystemExit(1)", names)
        def score(data, model): names["handle_abort"]()
    """
    built = models.with_custom(tmp_path, source)
    with pytest.raises(SystemExit):
        load(built).predict(built.payload)


def test_hooks_around_a_model_are_run_in_order(tmp_path: Path) -> None:
    """transform, score and post_process each get what the one before returned."""
    built = models.binary_hooks(tmp_path)
    model = load(built)
    ran: list[str] = []
    model.on_hook = lambda name, seconds: ran.append(name) if seconds >= 0 else None
    missing = built.frame.copy()
    missing.iloc[0, 0] = np.nan
    predictions = model.predict(csv_of(missing))
    assert ran == ["transform", "score", "post_process"]
    assert len(predictions.values) == built.rows
    assert set(predictions.extra["decision"]) == {"keep", "ask"}


def test_post_process_gets_a_table_with_labels(tmp_path: Path) -> None:
    """Whatever the model returned, the hook finds its columns by name."""
    built = models.binary(tmp_path)
    before = load(built).predict(built.payload).values
    (tmp_path / "custom.py").write_text(
        "def post_process(predictions, model):\n"
        "    return predictions.rename(columns={'yes': 'no', 'no': 'yes'})"
    )
    after = load(built).predict(built.payload).values
    assert [(row["yes"], row["no"]) for row in after] == [(row["no"], row["yes"]) for row in before]


def test_a_wrong_answer_is_blamed_on_the_last_hook(tmp_path: Path) -> None:
    """What post_process returned is not score's fault."""
    source = """
        def score(data, model): return data.a
        def post_process(predictions, model): return predictions.head(1)
    """
    built = models.with_custom(tmp_path, source)
    with pytest.raises(HookError, match=r"post_process in custom.py returned 1 rows for 3"):
        load(built).predict(built.payload)


def test_what_transform_spoils_is_not_the_clients_error(tmp_path: Path) -> None:
    """Columns that the hook dropped are its mistake."""
    built = models.regression(tmp_path)
    (tmp_path / "custom.py").write_text(
        "def transform(data, model): return data.drop(columns='bmi')"
    )
    with pytest.raises(HookError, match=r"transform in custom.py returned data: .* bmi") as caught:
        load(built).predict(built.payload)
    assert caught.value.hook == "transform"


def test_read_input_data_gets_the_bytes_as_they_are(tmp_path: Path) -> None:
    """With that hook any content type will do, and any kind of data."""
    source = """
        def read_input_data(data):
            return data.split(b";")

        def score(data, model):
            return [float(each) for each in data]
    """
    model = load(models.with_custom(tmp_path, source))
    assert model.read(Payload(b"1;2", "application/x-own")) == [b"1", b"2"]
    assert model.predict(Payload(b"1;2", "application/x-own")).values == [1.0, 2.0]


def test_a_model_of_load_model_predicts_by_its_own_methods(tmp_path: Path) -> None:
    """Without a score hook, any object that has `predict` or `predict_proba` will do."""
    source = """
        class Own:
            classes_ = ["no", "yes"]
            def predict_proba(self, data):
                return [[0.25, 0.75]] * len(data)
        def load_model(code_dir):
            return Own()
    """
    built = models.with_custom(tmp_path, source, Target(TargetType.BINARY, ("yes", "no")))
    assert load(built).predict(built.payload).values == [{"yes": 0.75, "no": 0.25}] * 3


@pytest.mark.parametrize(
    ("mood", "status", "told"),
    [
        ("raise", 500, "cannot predict: score in custom.py raised ValueError: no such colour"),
        ("exit", 500, "cannot predict: score in custom.py raised SystemExit: enough"),
        ("own status", 404, "the customer is not known"),
        ("starlette", 429, "come back later"),
        ("werkzeug", 409, "another has it"),
        ("not a number", 500, "returned nan"),
        ("text", 500, "returned 'three' for 'Predictions' in row 0; expected numbers"),
        ("too few", 500, "returned 1 rows for 2"),
        ("two columns", 500, "returned 2 columns without names"),
        ("none", 500, "returned None"),
    ],
)
def test_a_hooks_failure_is_told_with_its_status(
    tmp_path: Path, mood: str, status: int, told: str
) -> None:
    """It is 500 with hook and exception, or the status and the words that the model chose."""
    model = load(models.moody(tmp_path))
    with pytest.raises(HookError) as caught:
        model.predict(csv_of(pd.DataFrame({"mood": [mood, mood]})))
    assert (caught.value.hook, caught.value.status) == ("score", status)
    assert told in str(caught.value)
    assert model.predict(csv_of(pd.DataFrame({"mood": ["fine"] * 2}))).values == [1.0, 1.0]


def test_a_long_message_of_a_hook_is_cut(tmp_path: Path) -> None:
    """Some exceptions hold whole tables."""
    model = load(models.moody(tmp_path))
    with pytest.raises(HookError) as caught:
        model.predict(csv_of(pd.DataFrame({"mood": ["long"]})))
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("status", [200, 399, 600, True, "404", None])
def test_a_models_own_status_is_one_of_an_error(status: Any) -> None:
    """Anything else is a mistake of the hook."""
    with pytest.raises(ValueError, match="it must be from 400 to 599"):
        drumd.ModelError("no", status=status)


@pytest.mark.parametrize(
    ("build", "ask", "told"),
    [
        (models.unstructured, "predict", "send POST /predictUnstructured"),
        (models.unstructured, "transform", "send POST /predictUnstructured"),
        (models.transform, "predict", "send POST /transform"),
        (models.transform, "unstructured", "send POST /transform"),
        (models.moody, "transform", "send POST /predict"),
        (models.moody, "unstructured", "send POST /predict"),
        (models.moody, "chat", "this model has no chat hook"),
        (models.chat, "predict", "send POST /chat/completions"),
    ],
)
def test_the_wrong_endpoint_says_which_is_right(
    tmp_path: Path, build: Callable[[Path], Built], ask: str, told: str
) -> None:
    """A model answers where its target type, or its hook, belongs."""
    model = load(build(tmp_path))
    payload = Payload(b"a\n1\n", CSV)
    ways: dict[str, Callable[[], object]] = {
        "predict": lambda: model.predict(payload),
        "transform": lambda: model.transform(payload),
        "unstructured": lambda: model.predict_unstructured(b"", "", {}, {}),
        "chat": lambda: model.chat({"messages": [{"role": "user", "content": "hi"}]}),
    }
    with pytest.raises(RequestError, match=told) as caught:
        ways[ask]()
    assert caught.value.status == 422


def test_transformed_data_come_back_in_their_format(tmp_path: Path) -> None:
    """CSV and JSON come back as CSV, Arrow as Arrow."""
    built = models.transform(tmp_path)
    model = load(built)
    wanted = pd.DataFrame({"sum": [11.0, 22.0, 33.0], "product": [10.0, 40.0, 90.0]})
    for payload in (built.payload, json_of(built.frame)):
        table = model.transform(payload)
        assert table.content_type == "text/csv; charset=utf-8"
        pd.testing.assert_frame_equal(reading.read(Payload(table.data, table.content_type)), wanted)
    table = model.transform(arrow_of(built.frame))
    assert table.content_type == "application/vnd.apache.arrow.stream"
    pd.testing.assert_frame_equal(reading.read(Payload(table.data, table.content_type)), wanted)


def test_sparse_data_are_transformed_sparse(tmp_path: Path) -> None:
    """A sparse matrix comes back in the Matrix Market format, also one whose columns have names."""
    source = "def transform(data, model): return data * 2"
    built = models.with_custom(tmp_path, source, Target(TargetType.TRANSFORM))
    table = load(built).transform(matrix_market_of(np.eye(3)))
    assert table.content_type == "text/mtx"
    read = reading.read(Payload(table.data, table.content_type))
    assert read.toarray().tolist() == (np.eye(3) * 2).tolist()
    names = [f"c{number}" for number in range(2000)]
    large = load(built).transform(
        matrix_market_of(scipy.sparse.coo_array(([1.5], ([9_999], [7])), (10_000, 2000)), names)
    )
    assert len(large.data) < 1000
    read = reading.read(Payload(large.data, large.content_type))
    assert (read.shape, read[9_999, 7], read.nnz) == ((10_000, 2000), 3.0, 1)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("None", "returned a NoneType; expected a DataFrame"),
        ("data.head(1)", "returned 1 rows for 3; expected 3"),
        ("'abc'", "returned a str"),
    ],
)
def test_what_transform_returns_is_checked(tmp_path: Path, returned: str, told: str) -> None:
    """It must be a table with as many rows."""
    source = f"def transform(data, model): return {returned}"
    built = models.with_custom(tmp_path, source, Target(TargetType.TRANSFORM))
    with pytest.raises(HookError, match=told):
        load(built).transform(built.payload)


@pytest.mark.parametrize("value", ["2**70", "object()"])
def test_what_arrow_cannot_hold_is_the_hooks_error(tmp_path: Path, value: str) -> None:
    """A column that CSV has as text need not be one of Arrow's."""
    source = f"def transform(data, model): return data.assign(more=[{value}] * 3)"
    built = models.with_custom(tmp_path, source, Target(TargetType.TRANSFORM))
    model = load(built)
    assert model.transform(built.payload).data.startswith(b"a,b,more\n")
    with pytest.raises(HookError, match=r"transform in custom.py returned columns that Arrow can"):
        model.transform(arrow_of(built.frame))


def test_a_server_frameworks_exceptions_are_known_without_it() -> None:
    """The model server itself imports neither framework, nor what only some models need."""
    script = (
        "import sys, drumd.modelserver.inference.model\n"
        "print(sorted({'flask', 'werkzeug', 'fastapi', 'starlette', 'sklearn', 'joblib', "
        "'onnxruntime', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
