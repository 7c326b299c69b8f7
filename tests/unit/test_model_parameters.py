"""Runtime parameters: where they are said, what is checked, and how each problem is told."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drumd.config import kinds
from drumd.config.modelserver import known, reference
from drumd.config.modelserver.known import Known
from drumd.config.modelserver.metadata import read_metadata
from drumd.config.modelserver.parameters import FILE, PREFIX, Parameters, read_parameters
from drumd.config.modelserver.sayings import Sayings
from drumd.config.modelserver.table import KNOWN, TABLE
from drumd.config.modelserver.values import Credential, plain

SECRET = "hunter2"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a directory for a model."""
    directory = tmp_path / "model"
    directory.mkdir()
    return directory


def read(
    model: Path, *, environ: dict[str, str] | None = None, file: str = "", metadata: str = ""
) -> Parameters:
    """Read the parameters of a model with that metadata, from that environment and file."""
    said = {PREFIX + name: text for name, text in (environ or {}).items()}
    if file:
        (model.parent / "params.yaml").write_text(file)
        said[FILE] = "params.yaml"
    if metadata:
        (model / "model-metadata.yaml").write_text(metadata)
    return read_parameters(Sayings(environ=said), read_metadata(model), model.parent)


def defined(*lines: str) -> str:
    """Return metadata that defines one parameter, named P."""
    return "\n".join(
        ["runtimeParameterDefinitions:", "- fieldName: P", *(f"  {line}" for line in lines)]
    )


def said(kind: str, payload: object) -> str:
    return json.dumps({"type": kind, "payload": payload})


def deep(levels: int) -> dict[str, Any]:
    """Return a mapping in a mapping, and so on."""
    found: dict[str, Any] = {}
    for _ in range(levels):
        found = {"a": found}
    return found


def problems(parameters: Parameters) -> list[str]:
    return [str(problem) for problem in parameters.problems]


# --- what a variable means ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("-0.5", -0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("False", False),
        ('["a", 1]', ["a", 1]),
        ('{"a": {"b": null}}', {"a": {"b": None}}),
        ('{"type": "string"}', {"type": "string"}),
        ("gunicorn", "gunicorn"),
        ("", ""),
        ("{broken", "{broken"),
        ("[1, 2", "[1, 2"),
        ('"quoted"', '"quoted"'),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("[" * 100_000, "[" * 100_000),
        ("0x10", "0x10"),
    ],
)
def test_a_plain_text_is_what_it_looks_like(model: Path, text: str, value: object) -> None:
    """Plain text is a number, a boolean or other JSON; what only looks broken stays a text."""
    found = read(model, environ={"X": text})
    assert found.by_name["X"].value == value
    assert type(found.by_name["X"].value) is type(value)
    assert not found.problems


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("string", "4"),
        ("string", ""),
        ("boolean", False),
        ("numeric", 4),
        ("numeric", 0.25),
        ("credential", {"credentialType": "basic", "user": "ada", "password": SECRET}),
        ("deployment", "65f2b0a1"),
        ("numeric", None),
    ],
)
def test_a_variable_may_say_its_type(model: Path, kind: str, payload: object) -> None:
    """JSON with a type and a payload is that payload, of that type."""
    found = read(model, environ={"X": said(kind, payload)})
    assert (found.by_name["X"].value, found.problems) == (payload, ())


@pytest.mark.parametrize(
    ("kind", "payload", "told"),
    [
        ("string", 4, "must be a string"),
        ("boolean", "yes", "must be true or false"),
        ("boolean", 1, "must be true or false"),
        ("numeric", "4", "must be a number"),
        ("numeric", True, "must be a number"),
        ("credential", SECRET, "must be a mapping"),
        ("deployment", 4, "must be a string, the id of a deployment"),
        ("credential", deep(600), "must be a mapping that is not nested as deep"),
        ("number", 4, "must be one of string, boolean, numeric, credential, deployment"),
    ],
)
def test_a_payload_must_be_of_its_type(model: Path, kind: str, payload: object, told: str) -> None:
    """A payload of another type than the one said with it is refused, and so is an unknown type."""
    [problem] = problems(read(model, environ={"X": said(kind, payload)}))
    assert problem.startswith("X = ")
    assert told in problem
    assert "environment MLOPS_RUNTIME_PARAM_X" in problem
    assert SECRET not in problem


CUT = said("credential", {"password": SECRET})[:-4]
BROKEN = f'{{"type": "credential", "payload": {{"password": \\{SECRET}'


@pytest.mark.parametrize("kind", ["credential", "deployment", "numeric", "boolean"])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CUT, "is no JSON: unterminated string starting at character 48; write "),
        (BROKEN, "is no JSON: expecting value at character 48; write "),
        ('{"type": "deployment"}', "has no payload; write "),
        ('{"type": "credential", "password": "' + SECRET + '"}', "has no payload; write "),
    ],
)
def test_broken_json_is_told_where_it_breaks(model: Path, kind: str, text: str, told: str) -> None:
    """What begins as a type and a payload and is none is told, and nothing of it is repeated."""
    found = read(model, environ={"P": text}, metadata=defined(f"type: {kind}", "allowEmpty: true"))
    [problem] = problems(found)
    assert problem.startswith("P = '***' (environment MLOPS_RUNTIME_PARAM_P): ")
    assert told + f'{{"type": "{kind}", "payload": ' in problem
    assert SECRET[:6] not in problem


def test_a_credential_may_have_a_type_of_its_own(model: Path) -> None:
    """A plain mapping is a credential, even with a key `type`, as service accounts have."""
    value = {"type": "service_account", "key": SECRET}
    found = read(model, environ={"P": json.dumps(value)}, metadata=defined("type: credential"))
    assert (found.by_name["P"].value, found.problems) == (value, ())


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\0"), max_size=60))
def test_no_text_is_refused(text: str) -> None:
    """Whatever an undefined parameter's text is, it has a value, and JSON says it again."""
    value = plain(text)
    assert plain(json.dumps(value)) == value or isinstance(value, str)


@settings(deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_read_as_it_is_written(value: object) -> None:
    """JSON other than a string comes back as it was."""
    assert plain(json.dumps(value)) == value


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*KNOWN, "P", "X"]),
        st.text(max_size=12)
        | st.sampled_from(
            [
                "1",
                "0",
                "-1",
                "true",
                "sync",
                "info",
                said("numeric", 3),
                said("credential", {"a": 1}),
                "[]",
            ]
        ),
    )
)
def test_random_variables_are_values_or_problems(environ: dict[str, str]) -> None:
    """Each variable is a value or one problem that names it, whatever its text is."""
    variables = {PREFIX + name: text for name, text in environ.items()}
    found = read_parameters(
        Sayings(environ=variables), read_metadata(Path("/nonexistent")), Path("/nonexistent")
    )
    keys = [problem.key for problem in found.problems]
    assert sorted([*found.by_name, *keys]) == sorted(environ)
    for problem in found.problems:
        assert problem.origin == f"environment {PREFIX}{problem.key}"
        assert problem.message


# --- definitions ----------------------------------------------------------------------------------


def test_environment_is_over_file_is_over_default(model: Path) -> None:
    """The environment wins over the file, and the file over the definition's default."""
    metadata = defined("type: numeric", "defaultValue: 1")
    default = read(model, metadata=metadata)
    filed = read(model, metadata=metadata, file="P: 2")
    both = read(model, metadata=metadata, file="P: 2", environ={"P": "3"})
    found = [each.by_name["P"] for each in (default, filed, both)]
    assert [each.value for each in found] == [1, 2, 3]
    assert [each.origin for each in found] == [
        "model-metadata.yaml:2",
        "params.yaml:1",
        "environment MLOPS_RUNTIME_PARAM_P",
    ]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "4", "4"),
        ("string", "true", "true"),
        ("string", "[1]", "[1]"),
        ("deployment", "123", "123"),
        ("boolean", "TRUE", True),
        ("numeric", " 4 ", 4),
        ("numeric", "", None),
        ("credential", '{"credentialType": "basic"}', {"credentialType": "basic"}),
    ],
)
def test_a_definition_says_what_a_text_means(
    model: Path, kind: str, text: str, value: object
) -> None:
    """Plain text is read as the type that the parameter is defined with."""
    found = read(model, environ={"P": text}, metadata=defined(f"type: {kind}"))
    assert (found.by_name["P"].value, found.problems) == (value, ())


@pytest.mark.parametrize(
    ("definition", "file", "told"),
    [
        (["type: string"], "P: 4", "P = 4 (params.yaml:1): must be a string; numbers"),
        (["type: string"], "P: 2024-01-01", "must be a string"),
        (["type: boolean"], "P: 1", "P = 1 (params.yaml:1): must be true or false"),
        (["type: numeric"], "P: '4'", "P = '4' (params.yaml:1): must be a number"),
        (["type: numeric"], "P: .nan", "must be a number"),
        (["type: numeric", "minValue: 2", "maxValue: 3"], "P: 4", "must be from 2 to 3"),
        (["type: numeric", "minValue: 2"], "P: 1.5", "must be at least 2"),
        (["type: numeric", "maxValue: 0.5"], "P: 0.75", "must be at most 0.5"),
        (["type: string", "allowEmpty: false"], "P: ''", "must not be empty"),
        (["type: numeric", "allowEmpty: false"], "P:", "P (params.yaml:1): must not be empty"),
        (["type: credential", "allowEmpty: false"], "P: {}", "must not be empty"),
        (["type: credential"], "P: &a {b: *a}", "it is no YAML: found unconstructable recursive"),
        (["type: credential"], f"P: {SECRET}", "P = '***' (params.yaml:1): must be a mapping"),
    ],
)
def test_a_value_is_checked_by_its_definition(
    model: Path, definition: list[str], file: str, told: str
) -> None:
    """Type, range and emptiness are checked; the problem tells value, place and what is allowed."""
    [problem] = problems(read(model, metadata=defined(*definition), file=file))
    assert told in problem


@pytest.mark.parametrize(
    "text", ["7", "abc", said("numeric", 7), said("string", "x"), said("numeric", None)]
)
def test_the_environment_is_checked_as_the_file_is(model: Path, text: str) -> None:
    """A definition holds for what the environment says, plain or typed."""
    metadata = defined("type: numeric", "maxValue: 5", "allowEmpty: false")
    [problem] = problems(read(model, metadata=metadata, environ={"P": text}))
    assert "environment MLOPS_RUNTIME_PARAM_P" in problem


def test_a_needed_value_that_nobody_sets_is_missed(model: Path) -> None:
    """A parameter that may not be empty and has no default must be set; it says how."""
    [problem] = problems(read(model, metadata=defined("type: string", "allowEmpty: false")))
    assert problem.startswith("P (model-metadata.yaml:2): must have a value")
    assert "set MLOPS_RUNTIME_PARAM_P" in problem


def test_an_optional_one_that_nobody_sets_is_empty(model: Path) -> None:
    """A defined parameter without a value is there, and None."""
    found = read(model, metadata=defined("type: string"))
    assert (found.by_name["P"].value, found.problems) == (None, ())


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ("runtimeParameterDefinitions: 4", "must be a list of definitions"),
        ("runtimeParameterDefinitions: [4]", "runtimeParameterDefinitions[0]"),
        ("runtimeParameterDefinitions: [{type: string}]", "[0].fieldName"),
        ("runtimeParameterDefinitions: [{fieldName: 4, type: string}]", "must be a string"),
        (defined("minValue: 1"), "P.type (model-metadata.yaml:2): is missing"),
        (defined("type: sring"), "did you mean string?"),
        (defined("type: string", "minVale: 4"), "did you mean minValue?"),
        (defined("type: string", "maxValue: 4"), "is for numeric parameters"),
        (defined("type: numeric", "maxValue: x"), "P.maxValue = 'x'"),
        (defined("type: numeric", "minValue: 4", "maxValue: 3"), "at most maxValue, which is 3"),
        (defined("type: numeric", "allowEmpty: maybe"), "P.allowEmpty = 'maybe'"),
        (defined("type: boolean", "defaultValue: 4"), "P.defaultValue = 4"),
        (
            defined("type: numeric", "maxValue: 3", "defaultValue: 4"),
            "P.defaultValue = 4 (model-metadata.yaml:2): must be at most 3",
        ),
        (
            defined("type: credential", f"defaultValue: {SECRET}"),
            "P.defaultValue = '***' (model-metadata.yaml:2)",
        ),
        (defined("type: string") + "\n- fieldName: P\n  type: string", "is defined twice"),
    ],
)
def test_a_wrong_definition_is_told(model: Path, metadata: str, told: str) -> None:
    """What is wrong with a definition is a problem of its own."""
    [problem] = problems(read(model, metadata=metadata))
    assert told in problem


def test_a_definition_may_narrow_what_drumd_knows(model: Path) -> None:
    """A definition of one of drumd's parameters gives it a default and a range, within drumd's."""
    metadata = defined("type: numeric", "maxValue: 4", "defaultValue: 2").replace(
        ": P", ": " + known.WORKERS
    )
    assert read(model, metadata=metadata).by_name[known.WORKERS].value == 2
    [problem] = problems(read(model, metadata=metadata, environ={known.WORKERS: "5"}))
    assert "must be at most 4" in problem
    wide = metadata.replace("maxValue: 4", "maxValue: 9000")
    [problem] = problems(read(model, metadata=wide, environ={known.WORKERS: "300"}))
    assert "must be a whole number from 1 to 256" in problem


def test_a_definition_may_hold_a_known_number_for_a_string(model: Path) -> None:
    """A number of drumd's that the model defines as a string is read as the number."""
    metadata = defined("type: string", "defaultValue: '3'").replace(": P", ": " + known.WORKERS)
    assert read(model, metadata=metadata).by_name[known.WORKERS].value == 3


# --- the file -------------------------------------------------------------------------------------


def test_an_undefined_name_in_the_file_is_refused(model: Path) -> None:
    """A name that is neither defined nor drumd's is an error that says what was meant."""
    metadata = defined("type: string").replace(": P", ": THRESHOLD")
    file = "THRESHHOLD: a\nCUSTOM_MODEL_WORKERS: 2\nWhatever: 3\nDRUM_SERVER_TIPE: flask\n"
    found = problems(read(model, metadata=metadata, file=file))
    assert len(found) == 3
    assert "THRESHHOLD (params.yaml:1): is no parameter of this model" in found[0]
    assert "did you mean THRESHOLD?" in found[0]
    assert "add it to runtimeParameterDefinitions" in found[1]
    assert "did you mean DRUM_SERVER_TYPE?" in found[2]


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("A: [1", "params.yaml (params.yaml:1): cannot read the runtime parameters: it is no YAML"),
        ("a: 1\n b: 2", "(params.yaml:2): cannot read the runtime parameters: it is no YAML"),
        ("- a\n- b", "it is a list, where a mapping is expected; write NAME: value, one a line"),
        ("text", "it is a text"),
        ("P: 1\nP: 2", "P (params.yaml:2): is there twice, on lines 1 and 2"),
        ("P: !!python/object/apply:os.system [id]", "it is no YAML"),
        ("P: 2024-99-99", "it is no YAML: month must be in 1..12"),
        ("{[1]: 2}", "it is no YAML"),
        ("\x00", "it is no YAML"),
    ],
)
def test_a_broken_file_is_told_clearly(model: Path, file: str, told: str) -> None:
    """A file that is no mapping in YAML is told with its line and what is expected."""
    metadata = defined("type: numeric")
    [problem] = problems(read(model, metadata=metadata, file=file))
    assert told in problem


@pytest.mark.parametrize("file", ["\n", "# nothing\n", "---\n"])
def test_an_empty_file_says_nothing(model: Path, file: str) -> None:
    """A file without any parameter is fine."""
    found = read(model, file=file)
    assert (found.by_name, found.problems) == ({}, ())


def test_a_missing_file_is_told(model: Path) -> None:
    """A file that is not there, or is a directory, is a problem that names it."""
    for name, told in (("nowhere.yaml", "there is no such file"), ("model", "is a directory")):
        sayings = Sayings(environ={FILE: name})
        [problem] = read_parameters(sayings, read_metadata(model), model.parent).problems
        assert str(problem).startswith(name)
        assert told in str(problem)


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_random_bytes_are_no_crash(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Whatever is in the file and in the metadata, it is parameters or problems."""
    directory = tmp_path_factory.mktemp("random")
    (directory / "p.yaml").write_bytes(content)
    (directory / "model-metadata.yaml").write_bytes(content)
    sayings = Sayings(environ={FILE: "p.yaml"})
    found = read_parameters(sayings, read_metadata(directory), directory)
    assert all(problem.message for problem in found.problems)


# --- what drumd knows -----------------------------------------------------------------------------

NUMBERS = [each for each in TABLE if each.most is not None]
CHOICES = [each for each in TABLE if each.choices]


def name_of(value: object) -> str:
    return value.name if isinstance(value, Known) else ""


def test_the_known_parameters_are_those_that_were_promised() -> None:
    """Each server has worker class, keep-alive, grace, max requests, connections and log level."""
    servers = {f"DRUM_{server}_{what}" for server in ("GUNICORN", "UVICORN") for what in (
        "WORKER_CLASS", "KEEP_ALIVE", "GRACEFUL_TIMEOUT", "MAX_REQUESTS", "MAX_REQUESTS_JITTER",
        "WORKER_CONNECTIONS", "LOG_LEVEL",
    )}  # fmt: skip
    own = {
        "DRUM_SERVER_TYPE", "CUSTOM_MODEL_WORKERS", "CUSTOM_MODEL_THREADS", "CUSTOM_MODEL_QUEUE",
        "DRUM_CLIENT_REQUEST_TIMEOUT", "DRUM_WEBSERVER_BACKLOG", "DRUM_START_TIMEOUT",
        "DRUM_MAX_REQUEST_SIZE", "OPENAI_HOST", "OPENAI_PORT",
    }  # fmt: skip
    assert set(KNOWN) == servers | own
    assert len(KNOWN) == len(TABLE)


@pytest.mark.parametrize("parameter", NUMBERS, ids=name_of)
def test_a_number_within_its_range_is_taken(model: Path, parameter: Known) -> None:
    """Both ends of the range are allowed, from the environment and from the file."""
    for number in (parameter.least, parameter.most):
        for found in (
            read(model, environ={parameter.name: str(number)}),
            read(model, environ={parameter.name: said("numeric", number)}),
            read(model, file=f"{parameter.name}: {number}"),
        ):
            assert (found.by_name[parameter.name].value, found.problems) == (number, ())


@pytest.mark.parametrize(
    ("parameter", "wrong"),
    [
        (parameter, wrong)
        for parameter in NUMBERS
        for wrong in ("below", "above", "x", "true", "NaN", "[]", *(["1.5"] * parameter.whole))
    ],
    ids=lambda value: name_of(value) or str(value),
)
def test_a_number_out_of_its_range_is_an_error(model: Path, parameter: Known, wrong: str) -> None:
    """What is out of range, or no number, is told with the range; no default takes its place."""
    assert parameter.least is not None
    assert parameter.most is not None
    ends = {"below": str(parameter.least - 1), "above": str(parameter.most + 1)}
    text = ends.get(wrong, wrong)
    found = read(model, environ={parameter.name: text})
    [problem] = found.problems
    assert parameter.name not in found.by_name
    assert (problem.key, problem.value) == (parameter.name, text)
    assert f"from {parameter.least} to {parameter.most}" in problem.message


@pytest.mark.parametrize("parameter", CHOICES, ids=name_of)
def test_a_choice_is_taken_in_any_case(model: Path, parameter: Known) -> None:
    """Each choice is allowed, in small letters and capitals."""
    for choice in parameter.choices:
        for text in (choice, choice.upper(), choice.lower()):
            found = read(model, environ={parameter.name: text}).by_name[parameter.name]
            assert found.value == choice


@pytest.mark.parametrize("parameter", CHOICES, ids=name_of)
@pytest.mark.parametrize("text", ["nonsense", "", "4", "null", '["info"]', " info "])
def test_no_other_choice_is_taken(model: Path, parameter: Known, text: str) -> None:
    """Anything else is told with what there is to choose from."""
    [problem] = problems(read(model, environ={parameter.name: text}))
    assert all(choice in problem for choice in parameter.choices)


@pytest.mark.parametrize(
    "text", ["uvicorn.workers.UvicornWorker", "uvicorn_worker.UvicornWorker", "uvicornworker"]
)
def test_a_worker_class_may_have_its_module(model: Path, text: str) -> None:
    """uvicorn's worker class may be named with the module that gunicorn takes it from."""
    name = known.UVICORN_WORKER_CLASS
    assert read(model, environ={name: text}).by_name[name].value == "UvicornWorker"


def test_all_problems_are_told_at_once(model: Path) -> None:
    """Definitions, file and environment are all looked at before anything is told."""
    found = problems(
        read(
            model,
            metadata=defined("type: numeric", "minValue: 1", "defaultValue: 0")
            + "\n- fieldName: KEY\n  type: credential",
            file="CUSTOM_MODEL_WORKERS: 0\nNOBODY: 1\n",
            environ={
                "KEY": SECRET,
                "DRUM_GUNICORN_KEEP_ALIVE": "-1",
                "DRUM_UVICORN_LOG_LEVEL": "loud",
                "DRUM_SERVER_TYPE": "waitress",
            },
        )
    )
    keys = {each.split()[0] for each in found}
    assert keys == {
        "P.defaultValue", "NOBODY", "KEY", "CUSTOM_MODEL_WORKERS", "DRUM_GUNICORN_KEEP_ALIVE",
        "DRUM_UVICORN_LOG_LEVEL", "DRUM_SERVER_TYPE",
    }  # fmt: skip
    assert len(found) == len(keys)
    assert SECRET not in "".join(found)


def test_workers_are_bounded_as_those_of_any_pool() -> None:
    """As many workers are allowed as a pool may have."""
    assert known.MAX_WORKERS == kinds.MAX_WORKERS


def test_the_document_lists_what_there_is() -> None:
    """docs/runtime-parameters.md holds the table of parameters, with types, ranges and keys."""
    document = (Path(__file__).parents[2] / "docs/runtime-parameters.md").read_text()
    assert reference.markdown() in document
    assert reference.with_reference(document) == document


# --- credentials ----------------------------------------------------------------------------------


def test_a_credential_does_not_show_itself(model: Path) -> None:
    """A credential prints as ***, alone and in whatever it is in; its values can be used."""
    payload = {"credentialType": "gcp", "gcpKey": {"private": SECRET}, "list": [{"a": SECRET}]}
    found = read(model, environ={"X": said("credential", payload)})
    value = found.by_name["X"].value
    assert value == payload
    assert json.loads(json.dumps(value)) == payload
    assert value["gcpKey"]["private"] == SECRET
    for shown in (value, found, found.by_name["X"], [value], value["gcpKey"], value["list"]):
        assert SECRET not in f"{shown!r} {shown!s} {shown}"
    assert "***" in repr(value)


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text(min_size=4), min_size=1))
def test_no_value_of_a_credential_is_shown(values: dict[str, Any]) -> None:
    """Only the keys of a credential are in what it shows."""
    shown = repr(Credential(values))
    assert shown == repr(dict.fromkeys(values, "***"))
