"""The command line of `drumd server`, up to the daemon itself."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drumd.config.loading import Loaded
from drumd.config.modelserver.reading import read_settings
from drumd.config.modelserver.settings import ModelSettings
from drumd.config.modelserver.target import Target, TargetType
from drumd.exitcodes import DaemonExit
from drumd.supervisor.cli.drumd import main

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
    """Be in a directory with a model, and catch what a daemon would be started with."""
    taken: list[Loaded] = []

    def daemon(loaded: Loaded) -> int:
        taken.append(loaded)
        return 0

    (tmp_path / "model").mkdir()
    (tmp_path / "model/custom.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("drumd.supervisor.running.run_daemon", daemon)
    return taken


def told_to_workers(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> ModelSettings:
    """Return what a worker reads, where it is and with the variables that it has."""
    pool = loaded.settings.pools["model"]
    monkeypatch.chdir(Path(pool.app_dir).resolve())
    return read_settings(pool.environment)


def test_flags_reach_their_keys(loaded: list[Loaded], tmp_path: Path) -> None:
    """Each flag sets its key, and the daemon gets the sources to read again."""
    flags = [
        *("--code-dir", "model", "--address", "0.0.0.0:7777", "--target-type", "anomaly"),
        *("--workers", "1", "--preload", "--start-timeout", "20m"),
        *("--log-level", "debug", "--log-format", "json", "--admin-bind", "127.0.0.1:0"),
        *("--admin-socket", "a.sock"),
    ]
    assert main(["server", *flags]) == 0
    [found] = loaded
    pool, supervisor = found.settings.pools["model"], found.settings.supervisor
    assert (pool.bind, pool.app_dir) == (("0.0.0.0:7777",), str(tmp_path / "model"))
    assert (pool.preload, pool.workers, pool.start_timeout) == (True, 1, 1200)
    assert (supervisor.log_level, supervisor.log_format) == ("debug", "json")
    assert supervisor.admin_socket == str(tmp_path / "a.sock")
    assert found.origins["pools.model.bind"] == "flag --address"
    assert found.origins["pools.model.app_dir"] == "flag --code-dir"
    assert found.origins["pools.model.preload"] == "flag --preload"
    assert found.sources.load() == found


@pytest.mark.parametrize(
    ("flags", "target"),
    [
        (
            [
                "--target-type",
                "binary",
                "--positive-class-label",
                "y",
                "--negative-class-label",
                "n",
            ],
            Target(TargetType.BINARY, ("y", "n")),
        ),
        (
            ["--target-type", "multiclass", "--class-labels", "a", "b,c"],
            Target(TargetType.MULTICLASS, ("a", "b,c")),
        ),
        (
            ["--target-type", "multiclass", "--class-labels", "a,b,c"],
            Target(TargetType.MULTICLASS, ("a", "b", "c")),
        ),
        (
            ["--target-type", "multiclass", "--class-labels", "-1", "0", "1.50"],
            Target(TargetType.MULTICLASS, ("-1", "0", "1.50")),
        ),
        (
            ["--target-type", "multiclass", "--class-labels", "a b", 'say "x"', "日本", "it's\\n"],
            Target(TargetType.MULTICLASS, ("a b", 'say "x"', "日本", "it's\\n")),
        ),
        (
            [
                *("--target-type", "binary"),
                *("--positive-class-label", "-1", "--negative-class-label", "[no]"),
            ],
            Target(TargetType.BINARY, ("-1", "[no]")),
        ),
        (
            ["--target-type", "multilabel", "--class-labels", '["x,y", 2]'],
            Target(TargetType.MULTILABEL, ("x,y", "2")),
        ),
        (
            ["--target-type", "multilabel", "--class-labels-file", "labels"],
            Target(TargetType.MULTILABEL, ("one", "two")),
        ),
        (
            ["--target-type", "textgeneration", "--target-name", "answer"],
            Target(TargetType.TEXT_GENERATION, name="answer"),
        ),
    ],
)
@pytest.mark.parametrize("environ", [{}, {"CLASS_LABELS": "u,v"}, {"CLASS_LABELS_FILE": "nowhere"}])
def test_the_target_reaches_the_workers(
    loaded: list[Loaded],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    target: Target,
    environ: dict[str, str],
) -> None:
    """Labels on the command line are what workers read, whatever the environment has."""
    Path("labels").write_text("one\ntwo\n")
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    assert main(["server", "--code-dir", "model", *flags]) == 0
    [found] = loaded
    pool = found.settings.pools["model"]
    monkeypatch.chdir(pool.app_dir)
    assert read_settings({**environ, **pool.environment}).target == target


def test_prefix_and_parameters_reach_the_workers(
    loaded: list[Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has the prefix, and the file of parameters wherever it is."""
    Path("p.yaml").write_text("CUSTOM_MODEL_THREADS: 9\n")
    flags = ["--url-prefix", "/a/", "--runtime-params-file", "p.yaml", "--target-type", "anomaly"]
    assert main(["server", "--code-dir", "model", *flags]) == 0
    settings = told_to_workers(loaded[0], monkeypatch)
    assert (settings.url_prefix, settings.threads) == ("/a", 9)
    assert settings.code_dir.name == "model"


def test_flags_are_above_the_environment(
    loaded: list[Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these variables says the same as a flag, which is above it."""
    said: dict[str, Any] = {
        "CODE_DIR": "model",
        "ADDRESS": "127.0.0.1:1",
        "TARGET_TYPE": "regression",
        "URL_PREFIX": "/environment",
    }
    for name, text in said.items():
        monkeypatch.setenv(name, text)
    assert main(["server"]) == 0
    assert main(["server", "--address", "127.0.0.1:2", "--url-prefix", "/flag"]) == 0
    first, second = (each.settings.pools["model"] for each in loaded)
    assert (first.bind, second.bind) == (("127.0.0.1:1",), ("127.0.0.1:2",))
    assert "URL_PREFIX" not in first.environment  # a worker inherits drumd's own
    assert second.environment["URL_PREFIX"] == "/flag"


def test_a_config_file_adds_pools(loaded: list[Loaded]) -> None:
    """A drumd.toml counts when it is named, with further pools and keys of the model's."""
    Path("drumd.toml").write_text(
        '[pools.model]\nkeepalive = 5\n[pools.web]\napp = "m:a"\nbind = "127.0.0.1:1"\n'
    )
    flags = ["--code-dir", "model", "--target-type", "anomaly"]
    assert main(["server", *flags]) == 0
    assert main(["server", *flags, "--config", "drumd.toml"]) == 0
    without, found = loaded
    assert set(without.settings.pools) == {"model"}
    assert set(found.settings.pools) == {"model", "web"}
    assert found.settings.pools["model"].keepalive == 5


@pytest.mark.parametrize("server_type", ["flask", "gunicorn", "fastapi"])
def test_the_supervisor_imports_no_server(tmp_path: Path, server_type: str) -> None:
    """What `drumd server` imports to find all it needs is none of the frameworks and servers."""
    (tmp_path / "custom.py").write_text("raise SystemExit('the supervisor imports no model')")
    code = (
        "import sys\nfrom drumd.config.loading import Sources\n"
        "from drumd.config.modelserver.command import ModelServer\n"
        "said = {'TARGET_TYPE': 'anomaly', 'MLOPS_RUNTIME_PARAM_DRUM_SERVER_TYPE': sys.argv[1]}\n"
        "server = ModelServer(code_dir='.')\n"
        "Sources(flags={}, environ=said, config=None, model_server=server).load()\n"
        "import drumd.supervisor.running\nprint(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, server_type],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
    )
    servers = {"flask", "werkzeug", "gunicorn", "fastapi", "starlette", "uvicorn", "pandas"}
    assert servers & set(done.stdout.split()) == set()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["model"], "unexpected argument 'model'"),
        (["--codedir", "model"], "did you mean '--code-dir'?"),
        (["--class-labels"], "--class-labels: expected at least one argument"),
    ],
)
def test_mistakes_are_2(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line exits with 2 and says what was probably meant."""
    assert main(["server", *flags]) == DaemonExit.USAGE
    assert said in capsys.readouterr().err
