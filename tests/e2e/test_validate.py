"""`drumd validate`, as people run it, on models of all kinds."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests import models
from tests.e2e.batch import on_terminal, run, write_model
from tests.e2e.daemon import CHECKOUT
from tests.e2e.interpreters import interpreter_without
from tests.models import Built

Steps = dict[str, dict[str, Any]]

REGRESSION = "targetType: regression\n"


def validated(directory: Path, *arguments: object, **environ: str) -> tuple[int, Steps]:
    """Return the exit code and the steps by name, which are the document's."""
    done = run("validate", "--code-dir", directory, "--json", *arguments, environ=environ)
    document = json.loads(done.stdout)
    assert document["exit_code"] == done.returncode
    return done.returncode, {step["name"]: step for step in document["steps"]}


def states(steps: Steps) -> dict[str, str]:
    return {name: step["state"] for name, step in steps.items()}


TRIED = {"predict": "ok", "same again": "ok", "rows alone": "ok"}


@pytest.mark.parametrize(
    "build",
    [
        models.regression,
        models.binary,
        models.multiclass,
        models.multilabel,
        models.anomaly,
        models.onnx_regression,
    ],
    ids=lambda build: build.__name__,
)
def test_a_model_that_names_its_columns_needs_no_data(
    tmp_path: Path, build: Callable[[Path], Built]
) -> None:
    """scikit-learn's and ONNX's models say what they want, and are tried with numbers made up."""
    built = build(tmp_path)
    code, steps = validated(tmp_path, **built.environ)
    assert (code, {name: steps[name]["state"] for name in TRIED}) == (0, TRIED)
    assert "10 rows, made up" in steps["predict"]["text"]
    assert steps["missing values"]["state"] in ("ok", "warning")


def test_a_model_is_tried_with_data_of_ones_own(tmp_path: Path) -> None:
    """Of --input the first 100 rows are tried; every step says what came of it."""
    directory = tmp_path / "m"
    directory.mkdir()
    built = models.regression(directory)
    data = tmp_path / "data.csv"
    pd.concat([built.frame] * (300 // len(built.frame))).to_csv(data, index=False)
    (directory / "requirements.txt").write_text("pandas>=2\n# a comment\n--no-binary :all:\n")
    done = run("validate", "--code-dir", directory, "--input", data, environ=built.environ)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"ok      settings: {directory}, regression"
    assert lines[1] == "skipped parameters: the model has no runtime parameters"
    assert lines[2] == "ok      packages: as requirements.txt has them"
    assert lines[3].startswith("ok      load: scikit-learn; ")
    assert lines[4].startswith(f"ok      predict: the first 100 rows of {data}: numbers ")
    assert lines[5] == "ok      same again: the same data gets the same answer"
    assert lines[6] == "ok      rows alone: 3 rows get alone what they get with others"
    assert lines[7].split(":")[0] in ("ok      missing values", "warning missing values")
    assert lines[-1].startswith("valid")


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (models.unstructured, {"predictUnstructured": "ok", "same again": "ok"}),
        (models.transform, {"transform": "ok", "same again": "ok"}),
        (models.sparse, {"predict": "ok", "same again": "ok", "rows alone": "ok"}),
        (models.text_generation, {"predict": "ok", "same again": "ok"}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_each_kind_of_model_is_asked_as_it_can_be(
    tmp_path: Path, build: Callable[[Path], Built], expected: dict[str, str]
) -> None:
    """Transforms, unstructured, sparse and text models are tried by their own endpoint."""
    directory = tmp_path / "m"
    directory.mkdir()
    built = build(directory)
    suffix = {"text/csv": ".csv", "text/mtx": ".mtx"}.get(built.payload.content_type, ".txt")
    data = tmp_path / f"data{suffix}"
    data.write_bytes(built.payload.data)
    if built.payload.columns is not None:
        data.with_suffix(".colnames").write_bytes(built.payload.columns)
    code, steps = validated(directory, "--input", data, **built.environ)
    assert (code, {name: steps[name]["state"] for name in expected}) == (0, expected), steps


def test_a_chat_model_is_said_hello_to(tmp_path: Path) -> None:
    """A chat needs no data: it is asked once for a whole answer, and once for a stream."""
    built = models.chat(tmp_path)
    code, steps = validated(tmp_path, **built.environ)
    assert code == 0
    assert steps["chat"]["text"] == "answered with a completion"
    assert steps["chat, streamed"]["state"] == "ok"


def test_without_data_it_says_what_it_needs(tmp_path: Path) -> None:
    """A model that does not say which columns it wants is loaded; the rest needs --input."""
    built = models.transform(tmp_path)
    code, steps = validated(tmp_path, **built.environ)
    assert code == 0
    assert steps["transform"]["state"] == "skipped"
    assert steps["transform"]["advice"] == ["give it data to try: --input FILE"]


def test_the_server_type_does_not_matter(tmp_path: Path) -> None:
    """A server type that there is not is nobody's business here, not even a model's."""
    code = """
        import pandas as pd
        from drumd import RuntimeParameters
        def score(data, model, **kwargs):
            return data["a"] * RuntimeParameters.get("FACTOR")
    """
    model = write_model(tmp_path / "m", code, REGRESSION)
    (tmp_path / "data.csv").write_text("a\n1\n2\n")
    exited, steps = validated(
        *(model, "--input", tmp_path / "data.csv"),
        DRUM_SERVER_TYPE="nonsense",
        MLOPS_RUNTIME_PARAM_DRUM_SERVER_TYPE="nonsense",
        MLOPS_RUNTIME_PARAM_FACTOR="2",
    )
    assert exited == 0, steps
    assert "FACTOR" in steps["parameters"]["text"]


def test_misspelt_parameters_are_warned_of(tmp_path: Path) -> None:
    """Names that are nearly those of the model's parameters, or drumd's, are told; others not."""
    metadata = (
        f"{REGRESSION}runtimeParameterDefinitions:\n"
        "- {fieldName: THRESHOLD, type: numeric, defaultValue: 1}\n"
    )
    prefix = "MLOPS_RUNTIME_PARAM_"
    code, steps = validated(
        write_model(tmp_path / "m", SCORE, metadata),
        **{prefix + name: "1" for name in ("THRESHHOLD", "DRUM_SERVRE_TYPE", "OTHER")},
    )
    assert code == 0
    assert steps["parameters"]["state"] == "warning"
    assert "THRESHOLD (model-metadata.yaml" in steps["parameters"]["text"]
    told = sorted(steps["parameters"]["advice"])
    assert [each.partition(" (")[0] for each in told] == [
        f"{prefix}DRUM_SERVRE_TYPE",
        f"{prefix}THRESHHOLD",
    ]
    assert told[0].endswith("did you mean DRUM_SERVER_TYPE?")
    assert told[1].endswith("did you mean THRESHOLD?")


def test_a_missing_parameter_may_be_misspelt(tmp_path: Path) -> None:
    """Where a parameter must have a value, the variable that nearly says it is told, too."""
    metadata = (
        f"{REGRESSION}runtimeParameterDefinitions:\n"
        "- {fieldName: THRESHOLD, type: numeric, allowEmpty: false}\n"
    )
    model = write_model(tmp_path / "m", SCORE, metadata)
    code, steps = validated(model, MLOPS_RUNTIME_PARAM_THRESHHOLD="1")
    assert code == 78
    assert "must have a value" in steps["settings"]["text"]
    assert steps["parameters"]["advice"][0].endswith("did you mean THRESHOLD?")


# --- extensions -----------------------------------------------------------------------------------

SCORE = "def score(data, model, **kwargs):\n    return data['a']\n"
COUNTING = """
    import prometheus_client
    def init_app(app):
        prometheus_client.Counter("visits", "Counted by whichever server there is.")
"""
NAMES = ("custom_flask.py", "custom_fastapi.py")


def extended(directory: Path, **extensions: str) -> Path:
    """Write a model with extensions by the name of their framework."""
    model = write_model(directory, SCORE, REGRESSION)
    for framework, code in extensions.items():
        (model / f"custom_{framework}.py").write_text(textwrap.dedent(code))
    return model


def test_extensions_are_tried_with_their_apps(tmp_path: Path) -> None:
    """Each extension file gets its app, and both may count under the same name."""
    plain = extended(tmp_path / "plain")
    assert not set(NAMES) & set(validated(plain)[1])
    code, steps = validated(extended(tmp_path / "m", flask=COUNTING, fastapi=COUNTING))
    assert code == 0, steps
    assert [(steps[name]["state"], steps[name]["text"]) for name in NAMES] == [
        ("ok", "extends the flask app"),
        ("ok", "extends the fastapi app"),
    ]


@pytest.mark.parametrize(
    ("code", "told", "traceback"),
    [
        ("import no_such_module\n", "raised ModuleNotFoundError", "import no_such_module"),
        ("def init(app): ...\n", "it has no plain function init_app", ""),
        ("def init_app(app):\n    app.nothing()\n", "AttributeError", "app.nothing()"),
    ],
)
def test_an_extension_that_cannot_be_used_has_to_be_fixed(
    tmp_path: Path, code: str, told: str, traceback: str
) -> None:
    """What would end the server is told with the traceback; the rest is tried all the same."""
    exited, steps = validated(extended(tmp_path / "m", flask=code, fastapi=code))
    assert exited == 1
    for name in NAMES:
        assert steps[name]["state"] == "failed"
        assert told in steps[name]["text"]
        assert traceback in steps[name]["traceback"]
        assert "drumd/modelserver" not in steps[name]["traceback"]
    assert "predict" in steps


def test_an_extension_of_a_missing_framework_is_skipped(tmp_path: Path) -> None:
    """Without the framework the extra that brings it is told."""
    python = interpreter_without(tmp_path / "venv", ["flask", "werkzeug"])
    model = extended(tmp_path / "m", flask=COUNTING)
    done = run("validate", "--code-dir", model, python=python)
    assert done.returncode == 0, done.stderr
    assert "skipped custom_flask.py: cannot serve: flask, werkzeug are not installed" in done.stdout
    assert "run: pip install 'drumd[flask]'" in done.stdout


# --- what is to fix -------------------------------------------------------------------------------


def test_invalid_settings_are_told_one_by_one(tmp_path: Path) -> None:
    """Each problem is a step of its own, and the exit code is 78."""
    metadata = (
        "targetType: regresion\nruntimeParameterDefinitions:\n"
        "  - {fieldName: N, type: numeric, maxValue: 3, defaultValue: 4}\n"
    )
    done = run("validate", "--code-dir", write_model(tmp_path / "m", "", metadata))
    assert done.returncode == 78
    assert done.stdout.count("FAILED  settings: ") == 2
    assert "did you mean regression?" in done.stdout
    assert done.stdout.splitlines()[-1] == "2 things to fix"


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    """A model directory that is not there is something to fix, without a traceback."""
    done = run("validate", "--code-dir", tmp_path / "gone")
    assert (done.returncode, done.stderr) == (78, "")
    told, verdict = done.stdout.splitlines()
    assert told.startswith(f"FAILED  settings: CODE_DIR = '{tmp_path}/gone': there is no such")
    assert verdict == "1 thing to fix"


def test_a_model_that_cannot_be_loaded_is_exit_code_3(tmp_path: Path) -> None:
    """The hook, its exception and its traceback are told; and which package differs before."""
    built = models.failing_load(tmp_path)
    (tmp_path / "requirements.txt").write_text("pandas<1\nno-such-package==3\n")
    code, steps = validated(tmp_path, **built.environ)
    assert code == 3
    assert "raised ValueError: the file is damaged" in steps["load"]["text"]
    assert "in load_model" in steps["load"]["traceback"]
    assert steps["packages"]["state"] == "warning"
    assert "wanted <1; no-such-package is not installed" in steps["packages"]["text"]
    assert "predict" not in steps


def test_a_model_that_cannot_answer_has_to_be_fixed(tmp_path: Path) -> None:
    """What a hook returns is checked: the hook, what is expected and what came are told."""
    code = "def score(data, model, **kwargs):\n    return data['a'].head(1)\n"
    model = write_model(tmp_path / "m", code, REGRESSION)
    (tmp_path / "data.csv").write_text("a\n1\n2\n")
    done = run("validate", "--code-dir", model, "--input", tmp_path / "data.csv")
    assert done.returncode == 1
    assert "FAILED  predict: 2 rows of " in done.stdout
    assert "score in custom.py returned 1 rows for 2; expected 2" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 thing to fix"


DOUBTFUL = """
    import numpy as np, pandas as pd
    def score(data, model, **kwargs):
        if data["a"].isna().any():
            raise ValueError("no a")
        return KIND
"""


@pytest.mark.parametrize(
    ("kind", "step", "text"),
    [
        ("np.random.rand(len(data))", "same again", "the same data got another answer"),
        ("data['a'] / data['a'].mean()", "rows alone", "row 1 alone gets 1.0, and with others 0.4"),
        ("data['a'] * 0 + 7", "predict", "all predictions are equal"),
        ("data['a']", "missing values", "ends in an error of the server"),
    ],
)
def test_what_is_doubtful_is_a_warning(tmp_path: Path, kind: str, step: str, text: str) -> None:
    """Chance, answers that depend on other rows, and gaps in data are warned of, with advice."""
    model = write_model(tmp_path / "m", DOUBTFUL.replace("KIND", kind), REGRESSION)
    (tmp_path / "data.csv").write_text("a,b\n" + "".join(f"{n},x\n" for n in (2, 4, 6, 8, 5)))
    code, steps = validated(model, "--input", tmp_path / "data.csv")
    assert code == 0
    assert steps[step]["state"] == "warning"
    assert text in steps[step]["text"]
    assert steps[step]["advice"]


def test_a_model_that_spoils_its_data_is_told(tmp_path: Path) -> None:
    """A hook that works once only has to be fixed."""
    code = """
        import pandas as pd
        COUNT = []
        def score(data, model, **kwargs):
            COUNT.append(1)
            assert len(COUNT) == 1, "worn out"
            return data["a"]
    """
    model = write_model(tmp_path / "m", code, REGRESSION)
    (tmp_path / "data.csv").write_text("a\n1\n2\n")
    exited, steps = validated(model, "--input", tmp_path / "data.csv")
    assert exited == 1
    assert steps["same again"]["state"] == "failed"
    assert "worn out" in steps["same again"]["text"]


def test_a_missing_file_is_a_mistake_in_the_flags(tmp_path: Path) -> None:
    """What --input names has to be there."""
    done = run("validate", "--code-dir", tmp_path, "--input", tmp_path / "gone.csv")
    assert done.returncode == 2
    assert "cannot read" in done.stderr
    assert done.stdout == ""


def test_a_terminal_shows_signs(tmp_path: Path) -> None:
    """A terminal gets a sign for each step; what the model prints is not among the steps."""
    code = "print('loud')\ndef score(data, model, **kwargs):\n    raise ValueError('no')\n"
    model = write_model(tmp_path / "m", code, REGRESSION)
    (tmp_path / "data.csv").write_text("a\n1\n")
    exited, said = on_terminal(
        "validate", "--code-dir", model, "--input", tmp_path / "data.csv", NO_COLOR="1"
    )
    assert exited == 1
    assert "✓ load: custom.py, hooks score; " in said
    assert "✗ predict: 1 row of " in said
    assert said.splitlines()[-1] == "1 thing to fix"


def test_a_hook_with_a_slip_in_its_name_is_warned_of(tmp_path: Path) -> None:
    """What the log would warn of while the model is loaded stands in that step."""
    code = """
        def score(data, model):
            return data["a"]
        def post_proces(predictions, model):
            return predictions
    """
    exited, steps = validated(write_model(tmp_path / "m", code, REGRESSION))
    assert exited == 0
    assert steps["load"]["state"] == "warning"
    assert "did you mean post_process?" in steps["load"]["advice"][0]


def test_numbers_that_do_not_fit_are_nobodys_fault(tmp_path: Path) -> None:
    """A model that cannot use numbers made up need not be broken: it has to be given data."""
    code = """
        from sklearn.linear_model import LinearRegression
        from sklearn.preprocessing import OneHotEncoder
        from sklearn.pipeline import make_pipeline
        import pandas as pd
        def load_model(code_dir):
            frame = pd.DataFrame({"colour": ["red", "green", "blue"]})
            return make_pipeline(OneHotEncoder(), LinearRegression()).fit(frame, [1, 2, 3])
    """
    exited, steps = validated(write_model(tmp_path / "m", code, REGRESSION))
    assert exited == 0
    assert steps["predict"]["state"] == "warning"
    assert steps["predict"]["advice"] == ["give it data to try: --input FILE"]


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path) -> None:
    """Without pandas the extra that brings it is told, and no traceback."""
    (tmp_path / "pandas.py").write_text("raise ModuleNotFoundError('gone', name='pandas')\n")
    model = write_model(tmp_path / "m", "", REGRESSION)
    path = f"{tmp_path}:{CHECKOUT}"
    (tmp_path / "data.csv").write_text("a\n1\n")
    for command in ("validate", "score"):
        done = run(
            *(command, "--code-dir", model, "--input", tmp_path / "data.csv"),
            environ={"PYTHONPATH": path},
        )
        assert done.returncode == 78
        assert done.stderr == (
            "drumd: cannot load models: pandas is not installed; run: pip install 'drumd[model]'\n"
        )
