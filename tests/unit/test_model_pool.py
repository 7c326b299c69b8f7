"""The pool of `drumd server`: which server, what its parameters come to, and what is refused."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from drumd.config.check import render, render_problems
from drumd.config.inforce import document
from drumd.config.loading import Loaded, Sources
from drumd.config.modelserver import known
from drumd.config.modelserver.changed import changes_between
from drumd.config.modelserver.command import ModelServer
from drumd.config.modelserver.known import Known
from drumd.config.modelserver.table import KNOWN, TABLE
from drumd.config.problems import ConfigInvalid
from drumd.config.settings import PoolSettings
from drumd.config.writing import written
from tests.unit.test_model_parameters import name_of

FLASK_APP = "drumd.modelserver.flask_app:make_app"
FASTAPI_APP = "drumd.modelserver.fastapi_app:make_app"
PREFIX = "MLOPS_RUNTIME_PARAM_"


class Model:
    """A model directory, and what there is beside it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.directory = place / "model"
        self.directory.mkdir()
        self.write("custom.py")

    def write(
        self, name: str, text: str = "raise SystemExit('the supervisor imports no model')"
    ) -> None:
        """Write a file of the model's."""
        (self.directory / name).write_text(text)

    def load(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        flags: Mapping[str, object] | None = None,
        server: ModelServer | None = None,
        params: str = "",
        config: str = "",
        **parameters: object,
    ) -> Loaded:
        """Load the config as `drumd server` does, a regression model by default."""
        said = {"TARGET_TYPE": "regression", **(environ or {})}
        said |= {PREFIX + name: str(value) for name, value in parameters.items()}
        if params:
            (self.place / "params.yaml").write_text(params)
            said["RUNTIME_PARAMS_FILE"] = "params.yaml"
        if config:
            (self.place / "drumd.toml").write_text(config)
        return Sources(
            flags=flags or {},
            environ=said,
            config="drumd.toml" if config else None,
            directory=self.place,
            model_server=server or ModelServer(code_dir="model"),
        ).load()

    def pool(self, **options: Any) -> PoolSettings:
        """Return the one pool."""
        return self.load(**options).settings.pools["model"]

    def refused(self, **options: Any) -> str:
        """Return what is told of a config that is wrong, as `drumd server` writes it."""
        with pytest.raises(ConfigInvalid) as caught:
            self.load(**options)
        return render_problems(caught.value)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path)


def warnings(loaded: Loaded) -> list[str]:
    return [str(warning) for warning in loaded.warnings]


# --- the server type ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "runtime", "app"),
    [
        ("flask", "flask", FLASK_APP),
        ("gunicorn", "gunicorn", FLASK_APP),
        ("fastapi", "uvicorn", FASTAPI_APP),
        ("uvicorn", "uvicorn", FASTAPI_APP),
        ("GUnicorn", "gunicorn", FLASK_APP),
        ("FASTAPI", "uvicorn", FASTAPI_APP),
        ('{"type": "string", "payload": "Uvicorn"}', "uvicorn", FASTAPI_APP),
    ],
)
def test_the_parameter_chooses_the_server(model: Model, said: str, runtime: str, app: str) -> None:
    """DRUM_SERVER_TYPE, in any case, says which runtime serves which app."""
    loaded = model.load(DRUM_SERVER_TYPE=said)
    pool = loaded.settings.pools["model"]
    assert (pool.runtime, pool.app, pool.app_dir) == (runtime, app, str(model.directory))
    assert loaded.origins["pools.model.runtime"] == (
        "runtime parameter DRUM_SERVER_TYPE (environment)"
    )
    assert set(loaded.settings.pools) == {"model"}


@pytest.mark.parametrize("said", ["x", "", "4", "true", "waitress", " flask", "Gunicorn "])
def test_any_other_type_is_refused_in_these_words(model: Model, said: str) -> None:
    """Anything else is told word for word as clients know it."""
    told = model.refused(DRUM_SERVER_TYPE=said)
    options = "Valid options are: fastapi, flask, gunicorn, uvicorn"
    words = f"ValueError: Invalid DRUM_SERVER_TYPE: {said!r}. {options}"
    assert words in [line.strip() for line in told.splitlines()]


def test_a_type_of_another_kind_is_refused(model: Model) -> None:
    """A number is no server type, as JSON or in a file."""
    assert "must be one of fastapi, flask" in model.refused(params="DRUM_SERVER_TYPE: 4")


@pytest.mark.parametrize(
    ("files", "said", "runtime", "unused"),
    [
        ((), "", "flask", ""),
        (("custom_flask.py",), "", "flask", ""),
        (("custom_fastapi.py",), "", "uvicorn", ""),
        (("custom_flask.py", "custom_fastapi.py"), "", "flask", "custom_fastapi.py"),
        (("custom_flask.py", "custom_fastapi.py"), "fastapi", "uvicorn", "custom_flask.py"),
        (("custom_fastapi.py",), "gunicorn", "gunicorn", "custom_fastapi.py"),
        (("custom_flask.py",), "gunicorn", "gunicorn", ""),
    ],
)
def test_an_extension_file_decides_where_nobody_does(
    model: Model, files: tuple[str, ...], said: str, runtime: str, unused: str
) -> None:
    """A lone custom_fastapi.py means fastapi, all else flask; an unused file is warned of."""
    for name in files:
        model.write(name)
    given: dict[str, Any] = {"DRUM_SERVER_TYPE": said} if said else {}
    loaded = model.load(**given)
    assert loaded.settings.pools["model"].runtime == runtime
    found = [each for each in warnings(loaded) if "is not used" in each]
    assert [each.split(":")[0] for each in found] == ([unused] if unused else [])


def test_a_type_that_is_defined_and_empty_chooses_nothing(model: Model) -> None:
    """A definition without a default, and without a value, leaves the choice as it is."""
    definition = "runtimeParameterDefinitions: [{fieldName: DRUM_SERVER_TYPE, type: string}]\n"
    metadata = model.directory / "model-metadata.yaml"
    model.write(metadata.name, (metadata.read_text() if metadata.exists() else "") + definition)
    assert model.pool().runtime == "flask"
    model.write("custom_fastapi.py")
    assert model.pool().runtime == "uvicorn"


def test_a_directory_is_no_extension_file(model: Model) -> None:
    """Only a file of that name counts."""
    (model.directory / "custom_fastapi.py").mkdir()
    assert model.pool().runtime == "flask"


def test_flask_is_one_process_for_development(model: Model) -> None:
    """With flask, more workers have no effect, whoever asks for them, and a warning says so."""
    ways: tuple[dict[str, Any], ...] = (
        {"CUSTOM_MODEL_WORKERS": 3},
        {"flags": {"pools.model.workers": "3"}},
        {"environ": {"DRUMD_POOLS__MODEL__WORKERS": "3"}},
        {"config": "[pools.model]\nworkers = 3\n"},
    )
    for options in ways:
        loaded = model.load(**options)
        assert loaded.settings.pools["model"].workers == 1
        [told] = [each for each in warnings(loaded) if "workers" in each]
        assert "has no effect: the server type flask is one process" in told
        assert "set DRUM_SERVER_TYPE to gunicorn or fastapi" in told
    assert [each for each in warnings(model.load()) if "development" in each]
    assert not [each for each in warnings(model.load()) if "workers" in each]


# --- parameters and keys --------------------------------------------------------------------------


def value_at(pool: PoolSettings, key: str) -> object:
    found: Any = pool
    for name in key.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


CASES = [
    (parameter, server)
    for parameter in TABLE
    for server in ("flask", "gunicorn", "uvicorn")
    if parameter.keys and parameter.name != known.SERVER_TYPE and parameter.server in ("", server)
    and (parameter.name, server) not in ((known.THREADS, "uvicorn"), (known.WORKERS, "flask"))
]  # fmt: skip


@pytest.mark.parametrize(
    ("parameter", "server"), CASES, ids=lambda each: name_of(each) or str(each)
)
def test_each_parameter_reaches_its_key(model: Model, parameter: Known, server: str) -> None:
    """A parameter sets its keys of the pool, and the origin of each says so."""
    said = parameter.choices[-1] if parameter.choices else (parameter.least or 0) + 1
    expected: tuple[object, ...] = (said,) * len(parameter.keys)
    if parameter.name == known.UVICORN_WORKER_CLASS:
        expected = ("asyncio", "h11")
    if parameter.name == known.UVICORN_CONNECTIONS:
        expected = (3,)
    if said == "gevent":
        pytest.importorskip("gevent")
    given: dict[str, Any] = {parameter.name: said}
    loaded = model.load(DRUM_SERVER_TYPE=server, **given)
    pool = loaded.settings.pools["model"]
    assert tuple(value_at(pool, key) for key in parameter.keys) == expected
    for key in parameter.keys:
        origin = f"runtime parameter {parameter.name} (environment)"
        assert loaded.origins[f"pools.model.{key}"] == origin


@pytest.mark.parametrize("parameter", [each for each in TABLE if each.server], ids=name_of)
def test_parameters_of_another_server_do_not_count(model: Model, parameter: Known) -> None:
    """Those of a server that is not chosen change nothing, and are checked all the same."""
    said = parameter.choices[-1] if parameter.choices else (parameter.least or 0) + 1
    other = "gunicorn" if parameter.server == "uvicorn" else "fastapi"
    for server in ("flask", other):
        assert model.pool(DRUM_SERVER_TYPE=server, **{parameter.name: said}) == model.pool(
            DRUM_SERVER_TYPE=server
        )
        told = model.refused(DRUM_SERVER_TYPE=server, **{parameter.name: -1})
        assert told.startswith("cannot use the config: 1 problem\n")


DEFAULTS = [each for each in TABLE if each.default not in ("", "not set")]


@pytest.mark.parametrize("parameter", DEFAULTS, ids=name_of)
def test_the_defaults_in_the_table_are_those_in_force(model: Model, parameter: Known) -> None:
    """What a parameter's default is said to be is what the pool has without it."""
    server = parameter.server or "gunicorn"
    if parameter.name == known.SERVER_TYPE:
        assert model.pool().runtime == parameter.default
        return
    bare = model.pool(DRUM_SERVER_TYPE=server)
    told = model.pool(DRUM_SERVER_TYPE=server, **{parameter.name: parameter.default})
    for key in parameter.keys:
        section, _, option = key.partition(".")
        if section not in ("gunicorn", "uvicorn"):
            assert value_at(bare, key) == value_at(told, key)
        elif section == "gunicorn" and option != "worker_class":
            from gunicorn.config import Config  # noqa: PLC0415 - few tests need it

            assert str(Config().settings[option].default) == parameter.default


def test_the_sources_are_in_order(model: Model) -> None:
    """Flags, DRUMD_ variables, parameters of environment, file and model, and TOML: first wins."""
    model.write(
        "model-metadata.yaml",
        "runtimeParameterDefinitions:\n"
        "- {fieldName: CUSTOM_MODEL_WORKERS, type: numeric, defaultValue: 3}\n",
    )
    everything: dict[str, Any] = {
        "flags": {"pools.model.workers": "7"},
        "environ": {
            "DRUMD_POOLS__MODEL__WORKERS": "6",
            PREFIX + "CUSTOM_MODEL_WORKERS": "5",
            PREFIX + "DRUM_SERVER_TYPE": "gunicorn",
        },
        "params": "CUSTOM_MODEL_WORKERS: 4\n",
        "config": "[pools.model]\nworkers = 2\n",
    }
    seen = []
    for gone in ("", "flags", "DRUMD_POOLS__MODEL__WORKERS", PREFIX + "CUSTOM_MODEL_WORKERS"):
        everything.pop(gone, None)
        everything["environ"].pop(gone, None)
        loaded = model.load(**everything)
        seen.append((loaded.settings.pools["model"].workers, loaded.origins["pools.model.workers"]))
    everything.pop("params")
    (model.place / "params.yaml").unlink()
    loaded = model.load(**everything)
    seen.append((loaded.settings.pools["model"].workers, loaded.origins["pools.model.workers"]))
    (model.directory / "model-metadata.yaml").unlink()
    loaded = model.load(**everything)
    seen.append((loaded.settings.pools["model"].workers, loaded.origins["pools.model.workers"]))
    assert seen == [
        (7, "flag --workers"),
        (6, "environment DRUMD_POOLS__MODEL__WORKERS"),
        (5, "runtime parameter CUSTOM_MODEL_WORKERS (environment)"),
        (4, "runtime parameter CUSTOM_MODEL_WORKERS (params.yaml:1)"),
        (3, "runtime parameter CUSTOM_MODEL_WORKERS (model-metadata.yaml:2)"),
        (2, "drumd.toml:2"),
    ]


def test_a_load_may_take_minutes(model: Model) -> None:
    """A worker has ten minutes to load, unless the file, a parameter or a flag says otherwise."""
    assert model.pool().start_timeout == 600
    assert model.pool(config="[pools.model]\nstart_timeout = 90\n").start_timeout == 90
    assert model.pool(DRUM_START_TIMEOUT=1200).start_timeout == 1200
    flags = {"pools.model.start_timeout": "30m"}
    assert model.pool(flags=flags, DRUM_START_TIMEOUT=1200).start_timeout == 1800


def test_never_is_above_the_file(model: Model) -> None:
    """Max requests of 0 mean never, also where the file has a number."""
    config = "[pools.model.recycle]\nmax_requests = 5\n"
    said = {"DRUM_SERVER_TYPE": "gunicorn"}
    assert model.pool(config=config, **said).recycle.max_requests == 5
    pool = model.pool(config=config, DRUM_GUNICORN_MAX_REQUESTS=0, **said)
    assert pool.recycle.max_requests is None


def test_a_rule_names_the_parameter(model: Model) -> None:
    """A rule about several keys tells which parameter said the wrong one."""
    told = model.refused(
        config="[pools.model.health]\nstall_after = 10\n", params="DRUM_CLIENT_REQUEST_TIMEOUT: 5\n"
    )
    assert "runtime parameter DRUM_CLIENT_REQUEST_TIMEOUT (params.yaml:1)" in told
    assert "must be at least stall_after" in told


def test_the_address_may_be_a_variable(model: Model) -> None:
    """ADDRESS says where to serve; the flag is above it, the file below."""
    config = '[pools.model]\nbind = "127.0.0.1:1"\n'
    said = {"ADDRESS": "127.0.0.1:2"}
    assert model.pool(config=config).bind == ("127.0.0.1:1",)
    assert model.pool(config=config, environ=said).bind == ("127.0.0.1:2",)
    flag = ModelServer(code_dir="model", address="localhost:3")
    assert model.pool(config=config, environ=said, server=flag).bind == ("localhost:3",)
    assert "flag --address" in model.refused(server=ModelServer(code_dir="model", address="x"))


def test_an_unknown_parameter_of_drumd_s_is_warned_of(model: Model) -> None:
    """A variable that is called as drumd's parameters are, and is none, is probably misspelt."""
    found = warnings(model.load(DRUM_GUNICORN_KEEPALIVE=3, CUSTOM_MODEL_WORKER=2, MY_OWN=1))
    told = [each for each in found if "no such runtime parameter" in each]
    assert len(told) == 2
    assert "did you mean DRUM_GUNICORN_KEEP_ALIVE?" in "".join(told)
    assert "did you mean CUSTOM_MODEL_WORKERS?" in "".join(told)


DEFINED = """
runtimeParameterDefinitions:
- {fieldName: THRESHOLD, type: numeric, defaultValue: 1}
- {fieldName: MODEL_A, type: string, allowEmpty: true}
"""


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["THRESHHOLD"], ["THRESHOLD"]),
        (["threshold"], ["THRESHOLD"]),
        (["MODEL_B"], ["MODEL_A"]),
        (["MODEL_A", "MODEL_B"], []),
        (["TEMPERATURE", "TOKEN", "HOLD"], []),
        (["DRUM_SERVRE_TYPE"], ["DRUM_SERVER_TYPE"]),
        (["DRUMSERVER_TYPE"], ["DRUM_SERVER_TYPE"]),
    ],
)
def test_a_variable_that_is_nearly_a_parameter_is_warned_of(
    model: Model, said: list[str], told: list[str]
) -> None:
    """Another name than the definitions' is the model's business, unless it is nearly one."""
    model.write("model-metadata.yaml", DEFINED)
    found = warnings(model.load(environ={PREFIX + name: "1" for name in said}))
    meant = [each.partition("did you mean ")[2] for each in found if each.startswith(PREFIX)]
    assert meant == [f"{name}?" for name in told]


def test_a_refused_config_comes_with_the_hints(model: Model) -> None:
    """Where something is wrong, what looks misspelt is told below it: that may be why."""
    told = model.refused(CUSTOM_MODEL_WORKERS=0, DRUM_SERVRE_TYPE="fastapi")
    assert told.startswith("cannot use the config: 1 problem\n")
    *_, last = told.splitlines()
    assert last.startswith(f"warning: {PREFIX}DRUM_SERVRE_TYPE (environment): has no effect")
    assert last.endswith("; did you mean DRUM_SERVER_TYPE?")


# --- what workers are told ------------------------------------------------------------------------


def test_workers_are_told_what_flags_say(model: Model) -> None:
    """Flags reach the workers as variables; files by absolute paths; the directory as their own."""
    (model.place / "labels.txt").write_text("a\nb\n")
    flags = {
        "TARGET_TYPE": "multiclass",
        "CLASS_LABELS_FILE": "labels.txt",
        "URL_PREFIX": "/m",
        "RUNTIME_PARAMS_FILE": "p.yaml",
    }
    (model.place / "p.yaml").write_text("OPENAI_HOST: h\nOPENAI_PORT: 1\n")
    server = ModelServer(code_dir="model", flags=flags)
    loaded = model.load(server=server, environ={"CLASS_LABELS": "x,y"})
    environment = loaded.settings.pools["model"].environment
    digest = environment.pop("RUNTIME_PARAMS_DIGEST")
    assert digest
    assert environment == {
        "CODE_DIR": ".",
        "TARGET_TYPE": "multiclass",
        "CLASS_LABELS_FILE": str(model.place / "labels.txt"),
        "CLASS_LABELS": "",
        "URL_PREFIX": "/m",
        "RUNTIME_PARAMS_FILE": str(model.place / "p.yaml"),
    }
    assert loaded.origins["pools.model.environment.URL_PREFIX"] == "flag --url-prefix"


def test_the_pool_s_own_variables_are_looked_at(model: Model) -> None:
    """What the config gives the workers as variables counts as the environment does."""
    config = f'[pools.model.environment]\n{PREFIX}DRUM_SERVER_TYPE = "gunicorn"\n'
    assert model.pool(config=config).runtime == "gunicorn"


def digest_of(loaded: Loaded) -> str:
    return loaded.settings.pools["model"].environment["RUNTIME_PARAMS_DIGEST"]


def test_workers_are_others_when_their_parameters_are(model: Model) -> None:
    """A changed file is another digest, unless only the supervisor reads what changed."""
    model.write(
        "model-metadata.yaml",
        "runtimeParameterDefinitions:\n- {fieldName: P, type: credential}\n",
    )
    text = "P: {a: hunter2}\nCUSTOM_MODEL_WORKERS: 2\n"
    first = digest_of(model.load(params=text))
    assert digest_of(model.load(params=text)) == first
    assert digest_of(model.load(params=text.replace(": 2", ": 3"))) == first
    assert digest_of(model.load(params=text.replace("hunter2", "hunter3"))) != first
    assert digest_of(model.load(params=text, environ={"TARGET_TYPE": "anomaly"})) != first
    assert 'RUNTIME_PARAMS_DIGEST = "***"' in render(model.load(params=text), color=False)


NAMED = """
targetType: binary
inferenceModel: {positiveClassLabel: "yes", negativeClassLabel: "no"}
runtimeParameterDefinitions:
- {fieldName: LOGIN, type: credential, allowEmpty: true}
- {fieldName: WORD, type: string, defaultValue: hello}
- {fieldName: BACKENDS, type: string, allowEmpty: true}
"""


def loaded_twice(model: Model, before: str, after: str, metadata: str = NAMED) -> list[Loaded]:
    model.write("model-metadata.yaml", NAMED)
    environ = {"TARGET_TYPE": ""}
    first = model.load(environ=environ, params=before)
    model.write("model-metadata.yaml", metadata)
    return [first, model.load(environ=environ, params=after)]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("WORD: hello", "WORD: hello\n", {}),
        ("", "WORD: bye", {"WORD": ("hello", "bye")}),
        ("LOGIN: {a: 1}", "LOGIN: {a: 2}", {"LOGIN": ("***", "***")}),
        ("LOGIN: {a: 1, 2: b}", "LOGIN: {2: b, a: 1}", {}),
        ("LOGIN: {a: 1, 2: b}", "LOGIN: {a: true, 2: b}", {"LOGIN": ("***", "***")}),
        ("", "LOGIN: {a: 2}", {"LOGIN": (None, "***")}),
        ("", "BACKENDS: http://u:hunter2@h", {"BACKENDS": (None, "http://u:***@h")}),
        ("", "CUSTOM_MODEL_QUEUE: 5", {"CUSTOM_MODEL_QUEUE": (None, 5)}),
    ],
)
def test_a_reload_names_the_parameters_that_it_changes(
    model: Model, before: str, after: str, told: dict[str, tuple[Any, Any]]
) -> None:
    """`drumctl config diff` names what workers read, with values; of secrets, that they changed."""
    changes = changes_between(*loaded_twice(model, before or "{}", after))
    path = "pools.model.runtime_parameters."
    assert {each.key: (each.before, each.after) for each in changes.keys} == {
        path + name: values for name, values in told.items()
    }
    assert "hunter" not in repr(changes)


def test_a_reload_names_what_it_changes_of_the_target(model: Model) -> None:
    """Another label is named as such."""
    changed = NAMED.replace('"no"', '"never"')
    [change] = changes_between(*loaded_twice(model, "{}", "{}", changed)).keys
    assert change.key == "pools.model.target.labels"
    assert (change.before, change.after) == (["yes", "no"], ["yes", "never"])


def test_the_model_in_force_is_told(model: Model) -> None:
    """`drumctl config --json` has directory, server, target and parameters, secrets masked."""
    loaded, _ = loaded_twice(model, "LOGIN: {password: hunter2}", "{}")
    told = document(loaded, color=False)["model"]
    assert told["code_dir"] == str(model.directory)
    assert told["server_type"] == "flask"
    assert told["target"] == {"type": "binary", "name": "Predictions", "labels": ["yes", "no"]}
    assert [(each["name"], each["value"], each["origin"]) for each in told["parameters"]] == [
        ("BACKENDS", None, "model-metadata.yaml:7"),
        ("LOGIN", "***", "params.yaml:1"),
        ("WORD", "hello", "model-metadata.yaml:6"),
    ]
    assert "hunter2" not in repr(loaded) + render(loaded, color=False)


def test_no_credential_is_shown(model: Model) -> None:
    """Neither the config that is printed nor a problem shows what is in a credential."""
    secret = '{"type": "credential", "payload": {"password": "hunter2"}}'
    config = f"[pools.model.environment]\n{PREFIX}LOGIN = '{secret}'\n"
    loaded = model.load(config=config)
    assert "hunter2" not in render(loaded, color=False) + repr(loaded)
    broken = secret.replace('{"password": "hunter2"}', '"hunter2"')
    told = model.refused(environ={PREFIX + "LOGIN": broken})
    assert "hunter2" not in told
    assert '"***"' in told


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "credentials", "payload": {"password": "hunter2"}}',
        '{"type": "credentials", "payload": "hunter2"}',
        '{"type": "credential", "payload": {"password": "hunter2"}',
        '{"type": "string", "payload": {"password": "hunter2"}}',
        '{"password": "hunter2"}',
        '[{"password": "hunter2"}]',
    ],
)
def test_what_may_be_a_credential_is_not_shown(model: Model, text: str) -> None:
    """A problem may be that its type is wrong, or missing."""
    told = model.refused(environ={PREFIX + "CUSTOM_MODEL_WORKERS": text})
    assert "hunter2" not in told
    assert '"***"' in told


def test_a_mapping_without_a_type_is_not_shown(model: Model) -> None:
    """What is in it may well be a credential's."""
    config = f'[pools.model.environment]\n{PREFIX}LOGIN = \'{{"user": "hunter2"}}\'\n'
    loaded = model.load(config=config)
    assert "hunter2" not in render(loaded, color=False) + repr(loaded)


# --- packages -----------------------------------------------------------------------------------


def test_a_directory_is_no_package(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package may come with the model; a directory of its name, with templates say, is none."""
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    # What another test imported would be found as it is.
    for name in ("flask", "werkzeug", "numpy", "pandas", "python_multipart"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (model.directory / "flask").mkdir()
    assert "cannot serve: flask, werkzeug are not installed" in model.refused()
    model.write("flask/__init__.py")
    model.write("werkzeug.py")
    assert "werkzeug" not in model.refused()


# --- what is refused ------------------------------------------------------------------------------


def test_the_model_directory_must_be_named(model: Model) -> None:
    """Without a directory it says how to name one; CODE_DIR will do, and the flag is above it."""
    told = model.refused(server=ModelServer())
    assert "name it with --code-dir, or CODE_DIR" in told
    assert model.pool(server=ModelServer(), environ={"CODE_DIR": "model"}).app_dir == str(
        model.directory
    )
    assert model.pool(environ={"CODE_DIR": "nowhere"}).app_dir == str(model.directory)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ((), "has neither a custom.py nor an artifact (.pkl, .joblib, .onnx)"),
        (("notes.txt", ".hidden.pkl"), "has neither a custom.py nor an artifact"),
        (("a.pkl", "b.onnx"), "has several artifacts and no custom.py: a.pkl, b.onnx"),
    ],
)
def test_a_directory_without_a_model_is_told(
    model: Model, files: tuple[str, ...], told: str
) -> None:
    """What is missing in the directory, or there twice, is told before anything starts."""
    (model.directory / "custom.py").unlink()
    for name in files:
        model.write(name)
    found = model.refused()
    assert told in found
    assert f'"{model.directory}"   # flag --code-dir' in found
    assert found.startswith("cannot use the config: 1 problem\n")


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib", "M.ONNX"])
def test_one_artifact_is_a_model(model: Model, name: str) -> None:
    """A directory with one artifact and no code can be served."""
    (model.directory / "custom.py").unlink()
    model.write(name)
    assert model.pool().app == FLASK_APP


def test_no_directory_and_a_file_are_told(model: Model) -> None:
    """A directory that is not there, or is a file, is the one problem that is told of it."""
    for name, words in (("nowhere", "there is no such directory"), ("f", "is no directory")):
        (model.place / "f").touch()
        found = model.refused(server=ModelServer(code_dir=name))
        assert words in found
        assert found.startswith("cannot use the config: 1 problem\n")


def test_what_follows_from_the_model_cannot_be_set(model: Model) -> None:
    """app, app_dir and runtime are refused, from the file and from variables."""
    config = '[pools.model]\napp = "main:app"\nruntime = "gunicorn"\n'
    told = model.refused(config=config, environ={"DRUMD_POOLS__MODEL__APP_DIR": "/"})
    assert told.count("cannot be set: it follows from the model directory") == 3
    assert "drumd.toml:3" in told


def test_everything_wrong_is_told_at_once(model: Model) -> None:
    """Problems with keys, target, parameters and server type are in one list."""
    told = model.refused(
        config="[pools.model]\nkeepalive = -1\n",
        environ={"TARGET_TYPE": "binary", "POSITIVE_CLASS_LABEL": "a"},
        params="NOBODY: 1\nCUSTOM_MODEL_WORKERS: 0\n",
        DRUM_SERVER_TYPE="x",
    )
    assert told.startswith("cannot use the config: 5 problems\n")
    for key in ("keepalive", "NEGATIVE_CLASS_LABEL", "NOBODY", "CUSTOM_MODEL_WORKERS"):
        assert key in told


def test_each_origin_is_told(model: Model) -> None:
    """The config that is printed says of each value which parameter set it."""
    said: dict[str, Any] = {name: "info" for name in KNOWN if name.endswith("LOG_LEVEL")}
    text = render(model.load(DRUM_SERVER_TYPE="fastapi", **said), color=False)
    assert 'log_level = "info"' in text
    assert "# runtime parameter DRUM_UVICORN_LOG_LEVEL (environment)" in text
    assert "# drumd server" in text
    assert str(written(600.0, PoolSettings.model_fields["start_timeout"])) in text


def test_only_the_server_command_looks_at_the_type(tmp_path: Path) -> None:
    """Any other command loads its config whatever the server type is."""
    for key in ("DRUM_SERVER_TYPE", "CUSTOM_MODEL_WORKERS"):
        loaded = Sources(
            flags={"pools.web.app": "main:app"},
            environ={PREFIX + key: "nonsense", "TARGET_TYPE": "nonsense", "CODE_DIR": "/nowhere"},
            config=None,
            directory=tmp_path,
        ).load()
        assert loaded.settings.pools["web"].runtime == "auto"
        assert not loaded.warnings


def test_the_documents_examples_are_valid(model: Model) -> None:
    """The files and variables that docs/runtime-parameters.md shows can be used together."""
    document = (Path(__file__).parents[2] / "docs/runtime-parameters.md").read_text()
    params, metadata = (part.split("```")[0] for part in document.split("```yaml\n")[1:])
    shell = document.split("```sh\n")[1].split("```")[0]
    variables = (line.removeprefix("export ").partition("=") for line in shell.splitlines())
    said = {name: text.strip("'") for name, _, text in variables}
    assert PREFIX + "DATABASE" in said
    model.write("model-metadata.yaml", metadata)
    del said[PREFIX + "DRUM_SERVER_TYPE"]  # the file says another one, which is the example's
    pool = model.pool(params=params, environ=said)
    assert (pool.runtime, pool.workers) == ("uvicorn", 4)
