import logging
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import joblib
import pytest

from drumd.config.modelserver.settings import ModelSettings
from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.errors import LoadError
from drumd.modelserver.inference.model import Model
from tests import models
from tests.models.built import Built

CHECKOUT = Path(__file__).parents[2]
BINARY = Target(TargetType.BINARY, ("yes", "no"))


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


def load(built: Built) -> Model:
    return Model.load(built.settings)


def refused(built: Built) -> LoadError:
    with pytest.raises(LoadError) as caught:
        load(built)
    assert str(caught.value).startswith("cannot load the model: ")
    assert caught.value.final
    return caught.value


def test_hooks_run_in_order_with_the_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`init` comes before `load_model`, both get the directory as text, and may print."""
    built = models.binary_hooks(tmp_path)
    model = load(built)
    assert model.kind == "custom.py"
    assert model.hooks == {"init", "load_model", "transform", "score", "post_process"}
    assert model.load_seconds > 0
    assert capsys.readouterr().out == "the model is read\n"


@pytest.mark.parametrize("hook", ["init", "load_model", ""])
def test_a_load_that_raises_shows_the_users_own_frames(tmp_path: Path, hook: str) -> None:
    """The message names the hook and the exception; the traceback has no frame of drumd's."""
    error = refused(models.failing_load(tmp_path, hook))
    place = f"{hook} in custom.py" if hook else "custom.py"
    assert str(error) == f"cannot load the model: {place} raised ValueError: the file is damaged"
    assert "in helped" in error.traceback
    assert error.traceback.count("custom.py") == 2
    assert "drumd/" not in error.traceback


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
        ("import no_such_library", "install what brings 'no_such_library'"),
        ("raise type('PanicException', (BaseException,), {})('rust')", "PanicException: rust"),
        ("exec('def f(:')", "SyntaxError"),
        ("raise RecursionError", "raised RecursionError"),
    ],
)
@pytest.mark.parametrize("hook", ["load_model", ""])
def test_whatever_a_load_raises_is_told(tmp_path: Path, failure: str, told: str, hook: str) -> None:
    """Also what is no `Exception` is the model's failure, not the end of the process."""
    assert told in str(refused(models.failing_load(tmp_path, hook, failure)))


def test_a_keyboard_interrupt_is_the_models_where_sigint_does_not_come_as_one(
    tmp_path: Path,
) -> None:
    """In a worker nobody presses Ctrl-C; in a terminal it ends the program as ever."""
    built = models.failing_load(tmp_path, "load_model", "raise KeyboardInterrupt")
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert "raised KeyboardInterrupt" in str(refused(built))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            load(built)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("async def score(data, model): ...", "score in custom.py is async"),
        ("async def score(data, model):\n    yield", "score in custom.py is async"),
        ("score = 3", "score in custom.py is not a function but int"),
        ("def score(data): ...", "takes (data), but is called with (data, model"),
        ("def score(data, model, flavour): ...", "takes (data, model, flavour)"),
        ("def score(data, model, *, flavour): ...", "takes (data, model, *, flavour)"),
        ("def score(data, model):\n  pass\ndef init(): ...", "init in custom.py takes ()"),
    ],
)
def test_a_hook_that_cannot_be_called_as_it_will_be_is_refused(
    tmp_path: Path, source: str, told: str
) -> None:
    """The model does not load, rather than fail with the first request."""
    assert told in str(refused(models.with_custom(tmp_path, source)))


@pytest.mark.parametrize(
    "source",
    [
        "def score(data, model): return data.a",
        "def score(X, m): return X.a",
        "def score(data, model, **kwargs): return data.a",
        "def score(*args): return args[0].a",
        "def score(**kwargs): return kwargs['data'].a",
        "def score(*, data, model): return data.a",
        "def score(data, model, headers): return data.a",
        "def score(data, model, *, headers, flavour='sweet'): return data.a",
        "class Score:\n    def __call__(self, data, model): return data.a\nscore = Score()",
        "import functools\nscore = functools.partial(lambda way, data, model: data.a, 1)",
    ],
)
def test_a_hook_may_take_its_parameters_in_any_way(tmp_path: Path, source: str) -> None:
    """By position, by name, or all of them; of what is offered besides, it gets what it takes."""
    built = models.with_custom(tmp_path, source)
    assert load(built).predict(built.payload).values == [1.0, 2.0, 3.0]


def test_a_hook_gets_what_it_is_offered_by_name(tmp_path: Path) -> None:
    """The labels of the target, and what the server offers, reach the score hook."""
    built = models.with_custom(
        tmp_path,
        """
        SEEN = []
        def score(data, model, **kwargs):
            SEEN.append(kwargs)
            return data.a / 3
        """,
        BINARY,
    )
    model = load(built)
    model.predict(built.payload, headers={"x-colour": "red"})
    seen = [
        each for name, each in sys.modules.items() if "custom" in name and hasattr(each, "SEEN")
    ]
    assert seen[-1].SEEN == [
        {
            "positive_class_label": "yes",
            "negative_class_label": "no",
            "headers": {"x-colour": "red"},
        }
    ]


def test_a_name_next_to_a_hooks_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A misspelt hook would never be called, without anybody's knowing."""
    source = """
        from os.path import join as transforms

        def load_models(code_dir): ...
        def Post_Process(predictions, model): ...
        def score(data, model): return data.a
        def scores(data): ...
        def predict(data): ...
        def helper(data): ...
    """
    with caplog.at_level(logging.WARNING, "drumd.modelserver"):
        load(models.with_custom(tmp_path, source))
    assert [record.getMessage() for record in caplog.records] == [
        "custom.py has a function load_models that is never called: did you mean load_model?",
        "custom.py has a function Post_Process that is never called: did you mean post_process?",
    ]


def test_modules_beside_custom_py_are_found(tmp_path: Path) -> None:
    """custom.py imports what lies next to it."""
    (tmp_path / "beside_custom.py").write_text("FACTOR = 2")
    source = "from beside_custom import FACTOR\ndef score(data, model): return data.a * FACTOR"
    built = models.with_custom(tmp_path, source)
    assert load(built).predict(built.payload).values == [2.0, 4.0, 6.0]


PICKLED = """
    class Doubler:
        def predict(self, data):
            return data["a"] * 2
"""


def in_own_process(script: str, *arguments: object) -> str:
    """Run a script in a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(script), *map(str, arguments)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LOAD_IT = """
    import sys
    from pathlib import Path
    from drumd.config.modelserver.settings import ModelSettings
    from drumd.config.modelserver.target import Target, TargetType
    from drumd.modelserver.inference.model import Model
    from drumd.modelserver.payload import Payload

    settings = ModelSettings(
        code_dir=Path(sys.argv[1]), target=Target(TargetType(sys.argv[2]))
    )
    model = Model.load(settings)
"""


def test_a_pickle_finds_its_class_in_custom_py(tmp_path: Path) -> None:
    """A model whose class is defined in custom.py is read as where it was trained."""
    (tmp_path / "custom.py").write_text(dedent(PICKLED))
    in_own_process(
        "import sys; sys.path.insert(0, sys.argv[1]); import custom, pickle\n"
        "pickle.dump(custom.Doubler(), open(sys.argv[1] + '/model.pkl', 'wb'))",
        tmp_path,
    )
    script = dedent(LOAD_IT) + "print(model.predict(Payload(b'a\\n1\\n2\\n')).values)"
    assert in_own_process(script, tmp_path, "regression") == "[2, 4]".replace("2, 4", "2.0, 4.0")


def test_custom_py_hides_no_module_of_its_name(tmp_path: Path) -> None:
    """Where another `custom` is installed, imports of it go on finding that one."""
    other, directory = tmp_path / "other", tmp_path / "model"
    other.mkdir()
    directory.mkdir()
    (other / "custom.py").write_text("WHO = 'the other'")
    (directory / "custom.py").write_text(
        "WHO = 'the model'\n"
        "def score(data, model):\n    import custom\n    print(custom.WHO, WHO)\n    return data.a"
    )
    script = (
        f"import sys; sys.path.insert(0, {str(other)!r}); import custom\n"
        + dedent(LOAD_IT)
        + "model.predict(Payload(b'a\\n1\\n'))"
    )
    assert in_own_process(script, directory, "regression") == "the other the model"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([], "has no files; it must have a custom.py with load_model"),
        (["README.md", ".hidden.pkl"], "has README.md; it must have a custom.py"),
        (["a.pkl", "b.onnx", "c.joblib"], "has a.pkl, b.onnx, c.joblib; leave one of them"),
        (["a.pkl"], "reading a.pkl as scikit-learn raised "),
        (["a.onnx"], "reading a.onnx as onnxruntime raised "),
    ],
)
def test_a_directory_without_one_model_says_what_it_has(
    tmp_path: Path, files: list[str], told: str
) -> None:
    """No artifact, several of them, or a damaged one: the message says what to do."""
    for name in files:
        (tmp_path / name).write_bytes(b"\x80\x04damaged")
    settings = ModelSettings(code_dir=tmp_path, target=Target(TargetType.REGRESSION))
    with pytest.raises(LoadError) as caught:
        Model.load(settings)
    assert told in str(caught.value)


def test_a_score_hook_needs_no_model(tmp_path: Path) -> None:
    """A custom.py that answers by itself gets None for its model."""
    built = models.with_custom(tmp_path, "def score(data, model): return [model is None] * 3")
    assert load(built).predict(built.payload).values == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("target", "source", "told"),
    [
        (Target(TargetType.UNSTRUCTURED), "def load_model(code_dir): ...", "no score_unstructured"),
        (Target(TargetType.TRANSFORM), "def load_model(code_dir): ...", "no transform"),
        (
            Target(TargetType.REGRESSION),
            "def load_model(code_dir): return 3",
            "an int, has no predict; write score",
        ),
        (BINARY, "def load_model(code_dir): return 3", "has no predict_proba"),
        (Target(TargetType.BINARY), "def score(data, model): ...", "has no labels"),
    ],
)
def test_a_model_that_cannot_answer_for_its_target_is_refused(
    tmp_path: Path, target: Target, source: str, told: str
) -> None:
    """What is missing for the target type is told when the model loads."""
    assert told in str(refused(models.with_custom(tmp_path, source, target)))


def test_classes_that_are_not_the_labels_are_refused(tmp_path: Path) -> None:
    """Both are told, since either may be wrong."""
    built = models.multiclass(tmp_path)
    settings = ModelSettings(
        code_dir=built.directory, target=Target(TargetType.MULTICLASS, ("setosa", "rose"))
    )
    with pytest.raises(
        LoadError, match="its classes are setosa, versicolor, virginica, the target"
    ):
        Model.load(settings)


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [
        ("joblib", "model.pkl", "sklearn"),
        ("sklearn", "model.pkl", "sklearn"),
        ("onnxruntime", "model.onnx", "onnx"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, package: str, name: str, extra: str
) -> None:
    """What to type is in the message."""
    if name.endswith(".pkl"):
        models.regression(tmp_path).directory.joinpath("model.joblib").rename(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(b"")
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from drumd.modelserver.errors import LoadError\n"
        "try:\n"
    ) + "".join(f"    {line}\n" for line in dedent(LOAD_IT).splitlines())
    told = in_own_process(
        script + "except LoadError as error:\n    print(error)", tmp_path, "regression"
    )
    assert told.endswith(f"run pip install 'drumd[{extra}]'")


@pytest.mark.parametrize(
    ("package", "content_type"),
    [
        ("scipy", "text/mtx"),
        ("pyarrow", "application/vnd.apache.arrow.stream"),
        ("pyarrow", "application/vnd.apache.arrow.file"),
    ],
)
def test_a_format_whose_package_is_missing_is_refused_with_its_extra(
    tmp_path: Path, package: str, content_type: str
) -> None:
    """Other formats are read without it; who sends this one is told what to send or install."""
    models.with_custom(tmp_path, "def score(data, model): return data.a")
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        + dedent(LOAD_IT)
        + "from drumd.modelserver.errors import RequestError\n"
        "assert model.predict(Payload(b'a\\n1\\n')).values == [1.0]\n"
        f"try:\n    model.predict(Payload(b'x', {content_type!r}))\n"
        "except RequestError as error:\n    print(int(error.status), error)"
    )
    told = in_own_process(script, tmp_path, "regression")
    assert told == (
        f"415 cannot read data of the content type {content_type!r}: {package} is not installed "
        "where the model is; send text/csv, or run pip install 'drumd[model]' there"
    )


def test_a_pickle_of_an_unknown_package_says_what_to_install(tmp_path: Path) -> None:
    """A model of some other library names the module that it needs."""
    (tmp_path / "model.pkl").write_bytes(b"cno_such_library\nModel\n.")
    settings = ModelSettings(code_dir=tmp_path, target=Target(TargetType.REGRESSION))
    with pytest.raises(LoadError, match="install what brings 'no_such_library'"):
        Model.load(settings)


def extension(directory: Path, source: str) -> None:
    """Install an extension as pip would: a module and its entry point."""
    (directory / "text_artifact.py").write_text(dedent(source))
    metadata = directory / "text_artifact-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: text-artifact\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[drumd.artifacts]\ntext = text_artifact:Text\n")


@pytest.mark.parametrize("has_predict", [True, False])
def test_an_extension_brings_a_kind_of_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_predict: bool
) -> None:
    """A package's entry point loads its suffix, and predicts if it wants to."""
    site, directory = tmp_path / "site", tmp_path / "model"
    site.mkdir()
    directory.mkdir()
    predict = "predict = lambda model, data, target: data['a'] * model.factor"
    extension(
        site,
        f"""
        class Model:
            def __init__(self, factor):
                self.factor = factor
            def predict(self, data):
                return data["a"] * self.factor * 10

        class Text:
            suffixes = (".factor",)
            load = lambda path: Model(int(path.read_text()))
            {predict if has_predict else ""}
        """,
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "text_artifact", raising=False)
    (directory / "model.factor").write_text("7")
    built = models.with_custom(directory, "def transform(data, model): return data + 1")
    model = load(built)
    assert model.kind == "text"
    expected = [14.0, 21.0, 28.0]
    assert model.predict(built.payload).values == [
        each * (1 if has_predict else 10) for each in expected
    ]


def test_a_broken_extension_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose fault it is, is told."""
    site = tmp_path / "site"
    site.mkdir()
    extension(site, "raise ImportError('half installed')")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "text_artifact", raising=False)
    (tmp_path / "model.pkl").touch()
    settings = ModelSettings(code_dir=tmp_path, target=Target(TargetType.REGRESSION))
    with pytest.raises(
        LoadError, match=r"the extension text .* raised ImportError: half installed"
    ):
        Model.load(settings)


def test_a_plain_pickle_is_an_artifact(tmp_path: Path) -> None:
    """What the pickle module wrote is read as what joblib wrote."""
    built = models.regression(tmp_path)
    trained: Any = joblib.load(tmp_path / "model.joblib")
    (tmp_path / "model.joblib").unlink()
    (tmp_path / "MODEL.PKL").write_bytes(pickle.dumps(trained))
    assert len(load(built).predict(built.payload).values) == built.rows


def test_a_model_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The path is in the message."""
    settings = ModelSettings(code_dir=tmp_path / "no", target=Target(TargetType.REGRESSION))
    with pytest.raises(LoadError, match=r"there is no directory .*/no"):
        Model.load(settings)


def test_an_onnx_session_goes_on_in_a_forked_process(tmp_path: Path) -> None:
    """A model that a template loaded answers in the workers that are forked from it."""
    models.onnx_regression(tmp_path)
    script = (
        dedent(LOAD_IT)
        + """
import os
names, numbers = (b",".join(b"%d" % n for n in range(10)), b",".join([b"0.1"] * 10))
data = Payload(names + b"\\n" + numbers)
before = model.predict(data).values
pid = os.fork()
if pid == 0:
    os._exit(0 if model.predict(data).values == before else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    assert in_own_process(script, tmp_path, "regression") == "0"
