"""`drumd server` as teams start it: its server types, its parameters, and what it refuses."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from drumd.exitcodes import ControlExit, DaemonExit
from tests.e2e.daemon import CHECKOUT, Daemon, Document, free_port
from tests.e2e.interpreters import interpreter_without
from tests.e2e.served import Served
from tests.waiting import wait_until

Start = Callable[..., Daemon]

CUSTOM = """
import json, os, sys

from drumd import RuntimeParameters

def load_model(code_dir):
    with open(os.path.join(code_dir, "..", "loads"), "a") as file:
        file.write(f"{os.getpid()}\\n")
    return "model"

def score_unstructured(model, data, **kwargs):
    has = RuntimeParameters.has("WORD")
    return json.dumps({
        "pid": os.getpid(),
        "cwd": os.getcwd(),
        "modules": sorted(name for name in sys.modules if "." not in name),
        "http": "uvicorn.protocols.http.h11_impl" in sys.modules,
        "word": RuntimeParameters.get("WORD") if has else None,
    })
"""
"""A model that tells what its worker is."""


class ModelServed(Served):
    """A running model server."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        super().__init__(daemon, daemon.directory, {"web": port})

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        """Send a request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=30)
        connection.request(method, path, body, {"Content-Type": "text/plain"})
        response = connection.getresponse()
        told = response.status, response.read().decode()
        connection.close()
        return told

    def tells(self) -> Document:
        """Return what the model says of its worker."""
        status, body = self.ask("POST", "/predictUnstructured/", b"x")
        assert status == 200, body
        document: Document = json.loads(body)
        return document

    def events_of(self, *names: str) -> list[Document]:
        return [line for line in self.daemon.log() if line["event"] in names]


@pytest.fixture
def code_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "custom.py").write_text(CUSTOM)
    return directory


Serve = Callable[..., ModelServed]


@pytest.fixture
def server(daemon: Start, code_dir: Path, tmp_path: Path) -> Serve:
    """Start `drumd server` with a model, and wait until it serves."""

    def start(
        *arguments: str, environ: Mapping[str, str] | None = None, **parameters: object
    ) -> ModelServed:
        port = free_port()
        quick = tmp_path / "quick.toml"
        quick.write_text("[pools.model]\nlinger = 0\nrollout.min_ready = 0\n")
        served = ModelServed(
            daemon(
                "server",
                *("--code-dir", str(code_dir), "--address", f"127.0.0.1:{port}"),
                *("--target-type", "unstructured", "--config", str(quick), *arguments),
                environ=environment(tmp_path / "daemon-0", environ, parameters),
            ),
            port,
        )
        served.ready("model")
        return served

    return start


def environment(
    directory: Path, environ: Mapping[str, str] | None, parameters: Mapping[str, object]
) -> dict[str, str]:
    """Return an environment without the tests' own switches, and with these runtime parameters."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("DRUMD_")}
    own |= {"PYTHONPATH": str(CHECKOUT), "DRUMD_SOCKET": str(directory / "admin.sock")}
    own |= {f"MLOPS_RUNTIME_PARAM_{name}": str(value) for name, value in parameters.items()}
    return own | dict(environ or {})


def run(
    tmp_path: Path,
    *arguments: str,
    python: Path = Path(sys.executable),
    environ: Mapping[str, str] | None = None,
    **parameters: object,
) -> tuple[int, str, str]:
    """Run drumd to its end; return exit code, stdout and stderr."""
    done = subprocess.run(
        [str(python), "-m", "drumd", *arguments],
        env=environment(tmp_path, environ, parameters),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# --- server types ---------------------------------------------------------------------------------

ASGI = {"fastapi", "starlette", "uvicorn"}
WSGI = {"flask", "werkzeug", "gunicorn"}


@pytest.mark.parametrize(
    ("said", "runtime", "has", "lacks"),
    [
        ("", "flask", {"flask", "werkzeug"}, {*ASGI, "gunicorn"}),
        ("GUNICORN", "gunicorn", {"flask", "gunicorn"}, ASGI),
        ("fastapi", "uvicorn", ASGI, WSGI),
        ("Uvicorn", "uvicorn", ASGI, WSGI),
    ],
)
def test_each_type_serves_and_imports_its_own(
    server: Serve, said: str, runtime: str, has: set[str], lacks: set[str]
) -> None:
    """Each server type answers; its workers import no other server, nor what nothing calls for."""
    served = server(**({"DRUM_SERVER_TYPE": said} if said else {}))
    assert served.wait_for("worker.loaded")["reason"].endswith(f"{runtime} serves it")
    assert served.ask("GET", "/ping/") == (200, '{"message":"OK"}')
    modules = set(served.tells()["modules"])
    assert has <= modules
    assert modules & {*lacks, "yaml", "httpx", "pydantic_settings"} == set()


def test_an_extension_file_chooses_fastapi(server: Serve, code_dir: Path) -> None:
    """A model with a custom_fastapi.py alone is served by fastapi, and the file is used."""
    (code_dir / "custom_fastapi.py").write_text(
        "def init_app(app):\n    app.add_api_route('/mine', lambda: {'mine': 1})\n"
    )
    served = server()
    assert served.wait_for("worker.loaded")["reason"].endswith("uvicorn serves it")
    assert served.ask("GET", "/mine") == (200, '{"mine":1}')


def test_both_extension_files_are_warned_of(server: Serve, code_dir: Path) -> None:
    """With both files flask serves, and the log says that the other one is not used."""
    for name in ("custom_flask.py", "custom_fastapi.py"):
        (code_dir / name).write_text("def init_app(app):\n    pass\n")
    served = server()
    assert served.wait_for("worker.loaded")["reason"].endswith("flask serves it")
    notices = [line["reason"] for line in served.events_of("config.warning")]
    [told] = [each for each in notices if "custom_fastapi.py" in each]
    assert "is not used: the server type is flask" in told


@pytest.mark.parametrize("said", ["x", "Django", ""])
def test_an_invalid_type_is_told_in_these_words(tmp_path: Path, code_dir: Path, said: str) -> None:
    """Anything else is a ValueError on stderr without a traceback; exit 78."""
    code, out, error = run(
        tmp_path,
        *("server", "--code-dir", str(code_dir), "--target-type", "regression"),
        DRUM_SERVER_TYPE=said,
    )
    assert (code, out) == (DaemonExit.CONFIG, "")
    lines = [line.strip() for line in error.splitlines()]
    options = "Valid options are: fastapi, flask, gunicorn, uvicorn"
    assert f"ValueError: Invalid DRUM_SERVER_TYPE: {said!r}. {options}" in lines
    assert "Traceback" not in error


def test_no_other_command_looks_at_the_type(tmp_path: Path, code_dir: Path) -> None:
    """check and serve take no notice of an invalid server type."""
    parameters: dict[str, Any] = {"DRUM_SERVER_TYPE": "x", "CUSTOM_MODEL_WORKERS": 0}
    config = tmp_path / "drumd.toml"
    config.write_text(f'[pools.web]\napp = "custom:nothing"\napp_dir = "{code_dir}"\n')
    code, out, error = run(tmp_path, "check", "--config", str(config), **parameters)
    assert (code, error) == (DaemonExit.STOPPED, "")
    assert 'app = "custom:nothing"' in out
    bind = ("--bind", f"127.0.0.1:{free_port()}")
    serve = ("serve", "custom:nothing", "--app-dir", str(code_dir), *bind)
    # It gets as far as the app, which lacks this name.
    code, _, error = run(tmp_path, *serve, **parameters)
    assert code == DaemonExit.START_FAILED
    assert "SERVER_TYPE" not in error


# --- packages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "hidden", "told", "extra"),
    [
        ("flask", ["flask", "werkzeug"], "flask, werkzeug are not installed", "flask"),
        ("gunicorn", ["gunicorn"], "gunicorn is not installed", "gunicorn"),
        ("fastapi", ["fastapi"], "fastapi is not installed", "fastapi"),
        ("uvicorn", ["starlette", "fastapi"], "fastapi, starlette are not installed", "fastapi"),
        ("flask", ["pandas"], "pandas is not installed", "model"),
        ("fastapi", ["python_multipart"], "python-multipart is not installed", "model"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(
    tmp_path: Path, code_dir: Path, type_: str, hidden: list[str], told: str, extra: str
) -> None:
    """What a server type takes and is not installed is named with the extra to install; exit 78."""
    python = interpreter_without(tmp_path / "venv", hidden)
    code, _, error = run(
        tmp_path,
        *("server", "--code-dir", str(code_dir), "--target-type", "regression"),
        python=python,
        DRUM_SERVER_TYPE=type_,
    )
    assert code == DaemonExit.CONFIG, error
    assert told in error
    assert f"pip install 'drumd[{extra}]'" in error
    assert "Traceback" not in error


def test_httpx_is_needed_for_a_backend_alone(tmp_path: Path, code_dir: Path) -> None:
    """Without httpx a model is served; with a backend it is named, and YAML for a file."""
    python = interpreter_without(tmp_path / "venv", ["httpx", "yaml"])
    (tmp_path / "p.yaml").write_text("A: 1\n")
    code, _, error = run(
        tmp_path,
        *("server", "--code-dir", str(code_dir), "--target-type", "textgeneration"),
        python=python,
        environ={"OPENAI_HOST": "h", "OPENAI_PORT": "1", "RUNTIME_PARAMS_FILE": "p.yaml"},
    )
    assert code == DaemonExit.CONFIG
    assert "httpx is not installed" in error
    assert "PyYAML is not installed" in error
    assert error.count("drumd[model]") == 2


def test_old_libraries_are_warned_of(tmp_path: Path, code_dir: Path) -> None:
    """`drumd check` warns of installed libraries that are too old for Pydantic 2."""
    for name, version in (("langchain", "0.0.354"), ("mlflow", "2.9.0"), ("ray", "2.7.0")):
        info = tmp_path / "libraries" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    path = os.pathsep.join((str(CHECKOUT), str(tmp_path / "libraries")))
    code, out, _ = run(tmp_path, "check", "custom:app", environ={"PYTHONPATH": path})
    assert code == DaemonExit.STOPPED
    told = [line for line in out.splitlines() if line.startswith("# warning: ")]
    assert [line.split()[2] for line in told] == ["langchain", "ray"]
    assert "pip install 'langchain>=0.1.0'" in told[0]
    assert "pip install 'ray[serve]>=2.8.0'" in told[1]
    assert code_dir.exists()


# --- what is wrong --------------------------------------------------------------------------------


def test_everything_wrong_is_told_at_once(tmp_path: Path, code_dir: Path) -> None:
    """Flags, variables, the file and the model's own file are looked at before drumd gives up."""
    (code_dir / "model-metadata.yaml").write_text(
        "runtimeParameterDefinitions:\n- {fieldName: LOGIN, type: credential}\n"
    )
    (tmp_path / "p.yaml").write_text("CUSTOM_MODEL_WORKERS: 0\nLOGIM: 1\n")
    code, _, error = run(
        tmp_path,
        *("server", "--code-dir", "model", "--target-type", "binary", "--workers", "none"),
        *("--positive-class-label", "yes", "--runtime-params-file", "p.yaml"),
        LOGIN="hunter2",
        DRUM_GUNICORN_KEEP_ALIVE="9999999",
    )
    assert code == DaemonExit.CONFIG
    assert error.startswith("cannot use the config: 6 problems\n")
    blocks = {block.split()[0]: block for block in error.split("\n\n")[1:]}
    assert set(blocks) == {
        "NEGATIVE_CLASS_LABEL", "LOGIN", "LOGIM", "CUSTOM_MODEL_WORKERS",
        "DRUM_GUNICORN_KEEP_ALIVE", "pools.model.workers",
    }  # fmt: skip
    assert 'LOGIN = "***"   # environment MLOPS_RUNTIME_PARAM_LOGIN' in blocks["LOGIN"]
    assert "hunter2" not in error
    assert "CUSTOM_MODEL_WORKERS = 0   # p.yaml:1" in blocks["CUSTOM_MODEL_WORKERS"]
    assert "must be a whole number from 1 to 256" in blocks["CUSTOM_MODEL_WORKERS"]
    assert "did you mean LOGIN?" in blocks["LOGIM"]
    assert "# flag --workers" in blocks["pools.model.workers"]


@pytest.mark.parametrize(
    ("server_type", "arguments"),
    [("flask", ()), ("gunicorn", ("--preload",)), ("fastapi", ()), ("fastapi", ("--preload",))],
)
def test_a_model_that_fails_to_load_ends_drumd(
    daemon: Start, code_dir: Path, server_type: str, arguments: tuple[str, ...]
) -> None:
    """Exit 3, with the hook and the exception, after one attempt, of a worker or its template."""
    (code_dir / "custom.py").write_text(
        "def load_model(code_dir):\n    raise OSError('the weights are not here')\n"
        "def score(data, model):\n    return data\n"
    )
    started = daemon(
        *("server", "--code-dir", str(code_dir), "--target-type", "regression"),
        *("--address", f"127.0.0.1:{free_port()}", *arguments),
        environ=environment(code_dir.parent, None, {"DRUM_SERVER_TYPE": server_type}),
    )
    assert started.wait() == DaemonExit.START_FAILED
    *_, last = started.text().splitlines()
    assert last.startswith("drumd: cannot go on: pool model never became ready: ")
    assert "load_model in custom.py raised OSError: the weights are not here" in last
    spawned = [line["event"] for line in started.log() if line["event"].endswith(".spawned")]
    assert spawned == ["template.spawned" if arguments else "worker.spawned"]
    check_told_once(started, "OSError: the weights are not here")


def check_told_once(started: Daemon, reason: str) -> None:
    """Check that the traceback is there once, and of events only those that need it say why."""
    assert started.text().count("Traceback (most recent call last)") == 1
    events = [line for line in started.log() if line["event"] != "worker.output"]
    told = [line["event"] for line in events if reason in line["reason"]]
    assert sorted(told) == ["daemon.stopping", "worker.failed"]
    assert not any("retry_in" in line for line in events)


def test_a_model_that_loads_for_too_long_names_what_to_set(daemon: Start, code_dir: Path) -> None:
    """The last line says where the load was, and by which flag and parameter it may take longer."""
    (code_dir / "custom.py").write_text(
        "import threading\ndef load_model(code_dir):\n    threading.Event().wait()\n"
        "def score(data, model):\n    return data\n"
    )
    started = daemon(
        *("server", "--code-dir", str(code_dir), "--target-type", "regression"),
        *("--address", f"127.0.0.1:{free_port()}", "--start-timeout", "1.5"),
        environ=environment(code_dir.parent, None, {"DRUM_SERVER_TYPE": "gunicorn"}),
    )
    assert started.wait() == DaemonExit.START_FAILED
    *_, last = started.text().splitlines()
    assert "not ready within start_timeout (1.5 s); it was in " in last
    advice = "to let it take longer, set --start-timeout, DRUM_START_TIMEOUT, or start_timeout in"
    assert advice in last
    [failed] = [line for line in started.log() if line["event"] == "worker.failed"]
    assert advice in failed["reason"]


# --- parameters and what they reach ---------------------------------------------------------------


def test_parameters_reach_the_supervisor(server: Serve, tmp_path: Path) -> None:
    """Workers and the rest come from the file of parameters; the config says so of each."""
    (tmp_path / "p.yaml").write_text(
        "DRUM_SERVER_TYPE: gunicorn\nCUSTOM_MODEL_WORKERS: 2\nDRUM_CLIENT_REQUEST_TIMEOUT: 33\n"
        "DRUM_GUNICORN_GRACEFUL_TIMEOUT: 7\nDRUM_WEBSERVER_BACKLOG: 99\n"
    )
    served = server("--runtime-params-file", str(tmp_path / "p.yaml"))
    assert len(served.ready("model")) == 2
    keys = {each["key"]: each for each in json.loads(ctl(served, "--json", "config"))["keys"]}
    for key, value, line in (
        ("workers", 2, 2),
        ("health.request_timeout", "33s", 3),
        ("grace_period", "7s", 4),
        ("backlog", 99, 5),
        ("start_timeout", "10m", 0),
    ):
        found = keys[f"pools.model.{key}"]
        assert found["value"] == value
        assert (
            found["origin"] == "drumd server" if not line else f"p.yaml:{line})" in found["origin"]
        )


def ctl(served: ModelServed, *arguments: str, code: int = 0) -> str:
    """Run drumctl, which must end with `code`; return all that it said."""
    done = served.daemon.drumctl(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_type_that_is_one_process_is_not_scaled(server: Serve) -> None:
    """drumctl says so, and which types can be; so does the log when a signal asks for it."""
    served = server()
    first = served.tells()
    told = (
        "cannot scale pool model to 2: the server type flask is one process; set DRUM_SERVER_TYPE"
    )
    assert told in ctl(served, "scale", "model", "2", code=ControlExit.DEGRADED)
    ctl(served, "scale", "model", "1")
    served.daemon.signal(signal.SIGTTIN)
    assert told in served.wait_for("signal.received")["reason"]
    assert served.pids("model") == [first["pid"]]


def test_a_reload_to_the_type_that_is_one_process_scales_to_one(
    server: Serve, tmp_path: Path
) -> None:
    """What an operator had scaled to stays otherwise, where the config says the same number."""
    file = tmp_path / "p.yaml"
    file.write_text("DRUM_SERVER_TYPE: gunicorn\n")
    served = server("--runtime-params-file", str(file))
    ctl(served, "scale", "model", "2")
    assert len(served.pids("model")) == 2
    file.write_text("DRUM_SERVER_TYPE: flask\n")
    assert "scaled to 1" in ctl(served, "config", "diff", code=ControlExit.DEGRADED)
    ctl(served, "reload")
    wait_until(lambda: len(served.pids("model")) == 1, what="one worker")
    assert "werkzeug" in served.tells()["modules"]


def test_a_credential_is_shown_nowhere(server: Serve, code_dir: Path) -> None:
    """Neither the log, nor drumctl, nor an endpoint, nor the process list shows what is in it."""
    secret = "hunter2"
    (code_dir / "custom.py").write_text(
        "from drumd import RuntimeParameters\n"
        "def load_model(code_dir):\n"
        "    login = RuntimeParameters.get('LOGIN')\n"
        f"    assert login['password'] == {secret!r}\n"
        "    print('the login is', login)\n"
        "    return login\n"
        "def score_unstructured(model, data):\n    raise ValueError(model)\n"
    )
    login = json.dumps({"type": "credential", "payload": {"user": "ada", "password": secret}})
    served = server(LOGIN=login, DRUM_SERVER_TYPE="gunicorn")
    told = [
        *(served.ask("GET", path)[1] for path in ("/", "/health", "/info", "/stats")),
        *(ctl(served, *words) for words in (["config"], ["--json", "config"], ["metrics"])),
        *(ctl(served, *words) for words in (["--json", "status"], ["--json", "events"])),
        *(
            Path(f"/proc/{pid}/cmdline").read_text()
            for pid in (served.daemon.pid, *served.pids("model"))
        ),
    ]
    status, error = served.ask("POST", "/predictUnstructured", b"x")
    assert (status, "'password': '***'" in error) == (500, True)
    served.wait_for("worker.output", line="the login is {'user': '***', 'password': '***'}")
    assert not [each for each in (*told, error, served.daemon.text()) if secret in each]


def test_a_reload_follows_the_file(server: Serve, code_dir: Path, tmp_path: Path) -> None:
    """A changed file scales, rolls to new workers, or changes the server type; a broken one is
    refused, and everything stays as it was, also after a re-exec; `config diff` names the changes.
    """
    (code_dir / "model-metadata.yaml").write_text(
        "runtimeParameterDefinitions:\n- {fieldName: WORD, type: string}\n"
        "- {fieldName: LOGIN, type: credential, allowEmpty: true}\n"
    )
    file = tmp_path / "p.yaml"

    def write(**values: object) -> None:
        file.write_text("".join(f"{name}: {value}\n" for name, value in values.items()))

    write(DRUM_SERVER_TYPE="gunicorn", WORD="one")
    served = server("--runtime-params-file", str(file))
    first = served.tells()
    assert first["word"] == "one"

    # Only what the supervisor reads has changed: the worker stays.
    write(DRUM_SERVER_TYPE="gunicorn", WORD="one", CUSTOM_MODEL_WORKERS=2)
    ctl(served, "reload")
    wait_until(lambda: len(served.pids("model")) == 2, what="two workers")
    assert first["pid"] in served.pids("model")

    # A worker reads what has changed, beside what the supervisor does: new ones take over.
    write(DRUM_SERVER_TYPE="gunicorn", WORD="two", CUSTOM_MODEL_WORKERS=1)
    ctl(served, "reload")
    served.ready("model")
    assert served.tells()["word"] == "two"

    write(DRUM_SERVER_TYPE="gunicorn", WURD="two", CUSTOM_MODEL_WORKERS=0)
    told = ctl(served, "reload", code=ControlExit.DEGRADED)
    assert "2 problems" in told
    assert "did you mean WORD?" in told
    assert served.tells()["word"] == "two"

    write(DRUM_SERVER_TYPE="gunicorn", WORD="two", LOGIN="{a: hunter2}")
    ctl(served, "reload")
    ctl(served, "re-exec")
    write(DRUM_SERVER_TYPE="fastapi", WORD="three", LOGIN="{a: hunter3}")
    diff = ctl(served, "config", "diff", code=ControlExit.DEGRADED)
    assert 'runtime_parameters.WORD = "two" -> "three"' in diff
    assert 'runtime_parameters.LOGIN = "***" -> "***"' in diff
    shown = ctl(served, "config")
    assert f"# the model in {code_dir}: server type gunicorn\n# target type unstructured" in shown
    assert '#   LOGIN = "***"' in shown
    assert '#   WORD = "two"' in shown
    assert "hunter" not in diff + shown + served.daemon.text()
    ctl(served, "reload")
    served.ready("model")
    last = served.tells()
    assert last["word"] == "three"
    assert "uvicorn" in last["modules"]


def test_a_link_to_the_model_is_pinned(daemon: Start, tmp_path: Path, code_dir: Path) -> None:
    """Workers are in the directory that a link led to; a reload follows it to the next one."""
    link = tmp_path / "current"
    link.symlink_to(code_dir)
    port = free_port()
    environ = {
        "CODE_DIR": "../current",
        "TARGET_TYPE": "unstructured",
        "ADDRESS": f"127.0.0.1:{port}",
    }
    started = daemon("server", environ=environment(tmp_path / "daemon-0", environ, {}))
    served = ModelServed(started, port)
    served.ready("model")
    assert served.tells()["cwd"] == str(code_dir.resolve())
    other = tmp_path / "release-2"
    other.mkdir()
    (other / "custom.py").write_text(CUSTOM)
    link.unlink()
    link.symlink_to(other)
    assert served.tells()["cwd"] == str(code_dir.resolve())
    ctl(served, "reload")
    served.ready("model")
    assert served.tells()["cwd"] == str(other.resolve())


@pytest.mark.parametrize("server_type", ["gunicorn", "fastapi"])
def test_with_preload_the_model_is_loaded_once(
    server: Serve, code_dir: Path, tmp_path: Path, server_type: str
) -> None:
    """Two workers with preload share one load of the model, and what extends the app."""
    for name, route in (("flask", "route"), ("fastapi", "get")):
        (code_dir / f"custom_{name}.py").write_text(
            f"def init_app(app):\n    app.{route}('/mine')(lambda: {{'mine': 1}})\n"
        )
    served = server("--preload", "--workers", "2", DRUM_SERVER_TYPE=server_type)
    assert len(served.ready("model")) == 2
    loads = (tmp_path / "loads").read_text().split()
    assert len(loads) == 1
    assert served.tells()["pid"] != int(loads[0])
    status, body = served.ask("GET", "/mine")
    assert (status, json.loads(body)) == (200, {"mine": 1})


def test_the_supervisor_imports_no_model(server: Serve, tmp_path: Path) -> None:
    """The model's code runs in workers alone."""
    served = server()
    loads = (tmp_path / "loads").read_text().split()
    assert loads == [str(served.tells()["pid"])]


def test_labels_and_prefix_are_flags(daemon: Start, tmp_path: Path, code_dir: Path) -> None:
    """Labels from a file beside, a name and a prefix reach the workers, who are elsewhere."""
    (code_dir / "custom.py").write_text("def score(data, model):\n    return data\n" + CUSTOM)
    (tmp_path / "daemon-0-labels").write_text("a\nb\nc\n")
    port = free_port()
    started = daemon(
        *("server", "--code-dir", "../model", "--address", f"127.0.0.1:{port}"),
        *("--target-type", "multiclass", "--class-labels-file", "../daemon-0-labels"),
        *("--target-name", "kind", "--url-prefix", "/m/"),
        environ=environment(tmp_path / "daemon-0", {"CLASS_LABELS": "x,y"}, {}),
    )
    served = ModelServed(started, port)
    served.ready("model")
    status, body = served.ask("GET", "/m/info/")
    info = json.loads(body)
    assert (status, info["labels"], info["targetName"]) == (200, ["a", "b", "c"], "kind")
    assert served.ask("GET", "/info/")[0] == 404


def test_the_h11_worker_class_serves_by_h11(server: Serve) -> None:
    """uvicorn's H11 worker class is served by h11 on asyncio's own loop."""
    served = server(DRUM_SERVER_TYPE="uvicorn", DRUM_UVICORN_WORKER_CLASS="UvicornH11Worker")
    told = served.tells()
    assert told["http"]
    assert "uvloop" not in told["modules"]


@pytest.mark.parametrize("installed", [True, False])
def test_uvloop_is_used_where_there_is_one(server: Serve, tmp_path: Path, installed: bool) -> None:
    """Uvicorn's workers are on uvloop; without it they serve on asyncio's own loop."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without/uvloop.py").write_text("raise ModuleNotFoundError(name='uvloop')\n")
    places = [str(CHECKOUT)] if installed else [str(tmp_path / "without"), str(CHECKOUT)]
    environ = {"PYTHONPATH": os.pathsep.join(places)}
    served = server(environ=environ, DRUM_SERVER_TYPE="fastapi")
    assert ("uvloop" in served.tells()["modules"]) == installed


def test_the_gevent_worker_class_serves_by_gevent(server: Serve) -> None:
    """gunicorn's gevent class serves the Flask app, in greenlets."""
    served = server(DRUM_SERVER_TYPE="gunicorn", DRUM_GUNICORN_WORKER_CLASS="gevent")
    assert {"gevent", "greenlet", "flask"} <= set(served.tells()["modules"])


def test_worker_connections_bound_uvicorn(server: Serve) -> None:
    """With one connection a worker answers on it, and 503 on a second one."""
    served = server(DRUM_SERVER_TYPE="fastapi", DRUM_UVICORN_WORKER_CONNECTIONS=1)
    with served.web.connect() as first:
        assert first.get("/ping").status == 200
        assert served.ask("GET", "/ping")[0] == 503
    wait_until(lambda: served.ask("GET", "/ping")[0] == 200, what="an answer once it is alone")


def test_a_worker_tells_what_is_wrong_in_a_file(server: Serve, tmp_path: Path) -> None:
    """A file that breaks while drumd runs is told by the next worker, which is tried again."""
    file = tmp_path / "p.yaml"
    file.write_text("DRUM_SERVER_TYPE: gunicorn\n")
    served = server("--runtime-params-file", str(file))
    file.write_text("CUSTOM_MODEL_THREADS: 0\n")
    [pid] = served.pids("model")
    os.kill(pid, signal.SIGKILL)
    told = "cannot use the model's settings: CUSTOM_MODEL_THREADS = 0"
    wait_until(lambda: told in served.daemon.text(), what="a worker that tells the problem")
    file.write_text("DRUM_SERVER_TYPE: gunicorn\n")
    served.ready("model")
    assert served.tells()["pid"] != pid
    assert "Traceback" not in served.daemon.text()
