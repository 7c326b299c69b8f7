"""What a worker of the model server reads: its directory, target, labels, prefix and backend."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drumd.config.modelserver.invalid import ModelSettingsInvalid
from drumd.config.modelserver.reading import read_settings
from drumd.config.modelserver.settings import Backend, ModelSettings
from drumd.config.modelserver.target import Target, TargetType
from drumd.errors import PlainError

LABELS = ("setosa", "versicolor", "virginica")


def read(model: Path, metadata: str = "", **environ: str) -> ModelSettings:
    if metadata:
        (model / "model-metadata.yaml").write_text(metadata)
    return read_settings(environ, model)


def refused(model: Path, metadata: str = "", **environ: str) -> list[str]:
    """Read settings that are wrong; return the problems."""
    with pytest.raises(ModelSettingsInvalid) as caught:
        read(model, metadata, **environ)
    assert isinstance(caught.value, PlainError)
    assert caught.value.final
    problems = [str(problem) for problem in caught.value.problems]
    assert all(problem in str(caught.value) for problem in problems)
    return problems


# --- the directory --------------------------------------------------------------------------------


def test_the_model_directory_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory is the one passed in, else CODE_DIR, else the current one; links followed."""
    (tmp_path / "release").mkdir()
    (tmp_path / "current").symlink_to("release")
    monkeypatch.chdir(tmp_path)
    said = {"TARGET_TYPE": "regression"}
    release = (tmp_path / "release").resolve()
    assert read_settings(said, Path("current")).code_dir == release
    assert read_settings({**said, "CODE_DIR": "current"}).code_dir == release
    assert read_settings({**said, "CODE_DIR": "nowhere"}, Path("current")).code_dir == release
    assert read_settings(said).code_dir == tmp_path.resolve()


# --- the target -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [each for each in TargetType if not each.has_labels])
def test_a_target_without_labels_needs_its_type_alone(tmp_path: Path, kind: TargetType) -> None:
    """The type comes from the environment, in any case, or from model-metadata.yaml."""
    assert read(tmp_path, TARGET_TYPE=kind.upper()).target == Target(kind)
    assert read(tmp_path, f"targetType: {kind}").target == Target(kind)


def test_the_environment_is_over_the_metadata(tmp_path: Path) -> None:
    """Where both speak of the target, the environment counts."""
    metadata = (
        "targetType: binary\n"
        "inferenceModel:\n  targetName: churn\n"
        "  positiveClassLabel: a\n  negativeClassLabel: b\n"
    )
    assert read(tmp_path, metadata).target == Target(TargetType.BINARY, ("a", "b"), "churn")
    said = read(tmp_path, TARGET_NAME="left", POSITIVE_CLASS_LABEL="c", NEGATIVE_CLASS_LABEL="d")
    assert said.target == Target(TargetType.BINARY, ("c", "d"), "left")
    assert read(tmp_path, TARGET_TYPE="anomaly").target.type is TargetType.ANOMALY


def test_a_missing_target_type_is_told(tmp_path: Path) -> None:
    """Without a target type it says which there are, and where to set it."""
    [problem] = refused(tmp_path)
    assert problem.startswith("TARGET_TYPE: is missing")
    for word in ("--target-type", "targetType in model-metadata.yaml", *TargetType):
        assert word in problem


def test_a_wrong_target_type_is_told(tmp_path: Path) -> None:
    """A target type that there is not is told with where it was said and what was meant."""
    [problem] = refused(tmp_path, TARGET_TYPE="multi-class")
    assert problem.startswith(
        "TARGET_TYPE = 'multi-class' (environment TARGET_TYPE): must be one of"
    )
    assert "did you mean multiclass?" in problem
    [problem] = refused(tmp_path, "name: m\ntargetType: tree\n")
    assert "(model-metadata.yaml:2)" in problem


def test_a_binary_target_has_two_labels(tmp_path: Path) -> None:
    """The positive label comes first; each that is missing is told, and the same one twice."""
    both = read(
        tmp_path, TARGET_TYPE="binary", POSITIVE_CLASS_LABEL="yes", NEGATIVE_CLASS_LABEL="no"
    )
    assert both.target.labels == ("yes", "no")
    found = refused(tmp_path, TARGET_TYPE="binary")
    assert [each.split(":")[0] for each in found] == [
        "POSITIVE_CLASS_LABEL",
        "NEGATIVE_CLASS_LABEL",
    ]
    assert "--positive-class-label" in found[0]
    assert "inferenceModel: negativeClassLabel" in found[1]
    [problem] = refused(
        tmp_path, TARGET_TYPE="binary", POSITIVE_CLASS_LABEL="a", NEGATIVE_CLASS_LABEL="a"
    )
    assert "must be another label" in problem


def test_labels_in_yaml_are_what_is_written(tmp_path: Path) -> None:
    """`yes`, `1.0` and dates in model-metadata.yaml are labels, no booleans or numbers."""
    binary = (
        "targetType: binary\ninferenceModel: {positiveClassLabel: yes, negativeClassLabel: 1.0}"
    )
    assert read(tmp_path, binary).target.labels == ("yes", "1.0")
    several = "targetType: multiclass\ninferenceModel:\n  classLabels: [no, 007, 2024-01-01]"
    assert read(tmp_path, several).target.labels == ("no", "007", "2024-01-01")


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(LABELS),
        "setosa,versicolor,virginica",
        " setosa , versicolor,virginica,",
        "setosa\nversicolor\nvirginica\n",
    ],
)
def test_class_labels_are_listed(tmp_path: Path, kind: str, text: str) -> None:
    """CLASS_LABELS is a JSON list, or has commas or line ends between its labels."""
    assert read(tmp_path, TARGET_TYPE=kind, CLASS_LABELS=text).target.labels == LABELS


def test_labels_may_hold_anything(tmp_path: Path) -> None:
    """Numbers in JSON are labels as they are written; with line ends, labels may hold commas."""
    found = read(tmp_path, TARGET_TYPE="multiclass", CLASS_LABELS="[0, 1.50, 1e2]")
    assert found.target.labels == ("0", "1.50", "1e2")
    found = read(tmp_path, TARGET_TYPE="multiclass", CLASS_LABELS="a,b\nc,d")
    assert found.target.labels == ("a,b", "c,d")


def test_labels_may_be_in_a_file(tmp_path: Path) -> None:
    """CLASS_LABELS_FILE has one label a line, with or without a byte order mark and CR."""
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffsetosa\r\nversicolor\r\n\r\nvirginica\r\n".encode())
    said = {"TARGET_TYPE": "multiclass", "CLASS_LABELS_FILE": str(file)}
    assert read(tmp_path, **said).target.labels == LABELS


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, "CLASS_LABELS: is missing: a multiclass model"),
        ({"CLASS_LABELS": "[1, 2"}, "is no JSON list"),
        ({"CLASS_LABELS": "[" * 100_000}, "is no JSON list"),
        ({"CLASS_LABELS": "[true, null]"}, "must be a list of labels"),
        ({"CLASS_LABELS": '["a", ""]'}, "none of them empty"),
        ({"CLASS_LABELS": "a"}, "must have at least two labels"),
        ({"CLASS_LABELS": "a,b,a"}, "has a label twice: 'a'"),
        ({"CLASS_LABELS": "a,b", "CLASS_LABELS_FILE": "x"}, "cannot be set beside"),
        ({"CLASS_LABELS_FILE": "/nowhere"}, "cannot read the labels: no such file"),
        ({"CLASS_LABELS_FILE": "/"}, "cannot read the labels: is a directory"),
    ],
)
def test_wrong_labels_are_told(tmp_path: Path, environ: dict[str, str], told: str) -> None:
    """Labels that are missing, unreadable, too few or there twice are a problem."""
    [problem] = refused(tmp_path, TARGET_TYPE="multiclass", **environ)
    assert told in problem


def test_labels_of_a_target_without_any_do_no_harm(tmp_path: Path) -> None:
    """An environment that has labels for another model is no problem."""
    assert read(tmp_path, TARGET_TYPE="regression", CLASS_LABELS="a").target.labels == ()


# --- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("", ""),
        ("/", ""),
        ("/a", "/a"),
        ("a/b/", "/a/b"),
        ("//a", "/a"),
        ("/v1.0/x_~-", "/v1.0/x_~-"),
    ],
)
def test_a_url_prefix_has_one_form(tmp_path: Path, text: str, prefix: str) -> None:
    """The prefix begins with a slash and ends without one, whatever was written."""
    assert read(tmp_path, TARGET_TYPE="regression", URL_PREFIX=text).url_prefix == prefix


@pytest.mark.parametrize("text", ["a//b", "/../x", "/.", "/a b", "/{x}", "/a?b", "/ä", "http://h/"])
def test_no_other_prefix_is_taken(tmp_path: Path, text: str) -> None:
    """What could not stand in a path as it is, or leads elsewhere, is refused."""
    [problem] = refused(tmp_path, TARGET_TYPE="regression", URL_PREFIX=text)
    assert problem.startswith(f"URL_PREFIX = {text!r} (environment URL_PREFIX): must be a path")


def test_settings_come_from_parameters(tmp_path: Path) -> None:
    """Threads, queue, timeout, size and backend are runtime parameters."""
    values: dict[str, Any] = {
        "CUSTOM_MODEL_THREADS": 2,
        "CUSTOM_MODEL_QUEUE": 0,
        "DRUM_CLIENT_REQUEST_TIMEOUT": 7.5,
        "DRUM_MAX_REQUEST_SIZE": 1000,
        "OPENAI_HOST": "127.0.0.1",
        "OPENAI_PORT": 8000,
    }
    environ = {f"MLOPS_RUNTIME_PARAM_{name}": str(value) for name, value in values.items()}
    found = read(tmp_path, TARGET_TYPE="regression", **environ)
    assert (found.threads, found.queue, found.request_timeout, found.max_body) == (2, 0, 7.5, 1000)
    assert found.backend == Backend("127.0.0.1", 8000)
    bare = read(tmp_path, TARGET_TYPE="regression")
    assert bare == ModelSettings(code_dir=tmp_path.resolve(), target=Target(TargetType.REGRESSION))


def test_the_backend_may_be_a_plain_variable(tmp_path: Path) -> None:
    """OPENAI_HOST and OPENAI_PORT count by themselves; a runtime parameter is above them."""
    said = {"TARGET_TYPE": "textgeneration", "OPENAI_HOST": "one", "OPENAI_PORT": "1"}
    assert read(tmp_path, **said).backend == Backend("one", 1)
    said["MLOPS_RUNTIME_PARAM_OPENAI_HOST"] = "two"
    assert read(tmp_path, **said).backend == Backend("two", 1)
    empty = {"TARGET_TYPE": "textgeneration", "OPENAI_HOST": "", "OPENAI_PORT": ""}
    assert read(tmp_path, **empty).backend is None


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"OPENAI_HOST": "h"}, "OPENAI_PORT (environment OPENAI_HOST): is missing"),
        ({"OPENAI_PORT": "1"}, "OPENAI_HOST (environment OPENAI_PORT): is missing"),
        ({"OPENAI_HOST": "http://h", "OPENAI_PORT": "1"}, "without scheme, port and path"),
        ({"OPENAI_HOST": "h:1", "OPENAI_PORT": "1"}, "without scheme, port and path"),
        ({"OPENAI_HOST": "h/../x", "OPENAI_PORT": "1"}, "without scheme, port and path"),
        ({"OPENAI_HOST": "u@h", "OPENAI_PORT": "1"}, "without scheme, port and path"),
        ({"OPENAI_HOST": "h", "OPENAI_PORT": "0"}, "OPENAI_PORT = '0'"),
        ({"OPENAI_HOST": "h", "OPENAI_PORT": "http"}, "OPENAI_PORT = 'http'"),
    ],
)
def test_a_wrong_backend_is_told(tmp_path: Path, environ: dict[str, str], told: str) -> None:
    """A backend is a host and a port, and nothing else."""
    [problem] = refused(tmp_path, TARGET_TYPE="textgeneration", **environ)
    assert told in problem


@pytest.mark.parametrize("host", ["localhost", "10.0.0.1", "::1", "a-b.example.com", "my_service"])
def test_a_host_is_a_name_or_an_address(tmp_path: Path, host: str) -> None:
    """Names and addresses are hosts, those of IPv6 without brackets."""
    said = {"TARGET_TYPE": "textgeneration", "OPENAI_HOST": host, "OPENAI_PORT": "1"}
    assert read(tmp_path, **said).backend == Backend(host, 1)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Target, parameters, prefix and backend are looked at before anything is told."""
    found = refused(
        tmp_path,
        TARGET_TYPE="binary",
        URL_PREFIX="a b",
        OPENAI_HOST="h",
        MLOPS_RUNTIME_PARAM_CUSTOM_MODEL_THREADS="0",
    )
    assert {each.split()[0].rstrip(":") for each in found} == {
        "POSITIVE_CLASS_LABEL",
        "NEGATIVE_CLASS_LABEL",
        "URL_PREFIX",
        "OPENAI_PORT",
        "CUSTOM_MODEL_THREADS",
    }


SAID = (
    "TARGET_TYPE", "CLASS_LABELS", "CLASS_LABELS_FILE", "POSITIVE_CLASS_LABEL", "URL_PREFIX",
    "NEGATIVE_CLASS_LABEL", "TARGET_NAME", "RUNTIME_PARAMS_FILE", "OPENAI_HOST", "OPENAI_PORT",
)  # fmt: skip


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(SAID),
        st.sampled_from(["binary", "multiclass", "regression", "[", "a,b", "/"])
        | st.text(max_size=9),
    )
)
def test_random_variables_are_settings_or_problems(environ: dict[str, str]) -> None:
    """Whatever the environment says, it is settings or `ModelSettingsInvalid`, nothing else."""
    with contextlib.suppress(ModelSettingsInvalid):
        assert read_settings(environ, Path("/nonexistent")).target.type in TargetType
