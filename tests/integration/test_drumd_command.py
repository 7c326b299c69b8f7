"""The command line of `drumd`, up to the daemon itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drumd.config.kinds import WorkerRange
from drumd.config.loading import Loaded
from drumd.exitcodes import DaemonExit
from drumd.supervisor.cli.drumd import COMMANDS, main

ROOT = Path(__file__).parents[2]


def _drumd(
    *arguments: str, directory: Path = ROOT, **environ: str
) -> "subprocess.CompletedProcess[str]":
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DRUMD_")}
    return subprocess.run(
        [sys.executable, "-m", "drumd.supervisor.cli.drumd", *arguments],
        cwd=directory,
        env={**clean, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_check_shows_flags_and_their_origin(tmp_path: Path) -> None:
    """`drumd check` prints the config with the origin of each value."""
    done = _drumd("check", "app:app", "--log-level", "debug", directory=tmp_path)
    assert done.returncode == DaemonExit.STOPPED, done.stderr
    assert "[pools.web]" in done.stdout
    assert 'app = "app:app"' in done.stdout
    assert "flag --log-level" in done.stdout
    assert "\x1b" not in done.stdout


def test_check_reads_the_default_file(tmp_path: Path) -> None:
    """Without `--config` a drumd.toml in the working directory is read."""
    (tmp_path / "drumd.toml").write_text('[pools.shop]\napp = "shop:app"\n')
    done = _drumd("check", directory=tmp_path)
    assert done.returncode == DaemonExit.STOPPED, done.stderr
    assert "[pools.shop]" in done.stdout


def test_an_app_on_the_command_line_is_the_only_pool(tmp_path: Path) -> None:
    """A drumd.toml that happens to be there adds no pool to the app that was named."""
    (tmp_path / "drumd.toml").write_text('[pools.shop]\napp = "shop:app"\n')
    done = _drumd("check", "app:app", directory=tmp_path)
    assert done.returncode == DaemonExit.STOPPED, done.stderr
    assert "shop" not in done.stdout


def test_flags_of_serve_reach_their_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each flag of `drumd serve` sets its key, and the daemon gets the sources to read again."""
    taken: list[Loaded] = []

    def daemon(loaded: Loaded) -> int:
        taken.append(loaded)
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("drumd.supervisor.running.run_daemon", daemon)
    flags = ["--preload", "--spares", "2", "--reload", "--startup-probe", "/healthz"]
    assert main(["serve", "app:app", "--workers", "2-8", *flags]) == 0
    (loaded,) = taken
    web = loaded.settings.pools["web"]
    assert (web.preload, web.spares, web.reload) == (True, 2, True)
    assert web.health.startup_probe == "/healthz"
    assert web.workers == WorkerRange(2, 8)
    assert loaded.origins["pools.web.health.startup_probe"] == "flag --startup-probe"
    assert loaded.origins["pools.web.preload"] == "flag --preload"
    assert loaded.sources.load() == loaded


def test_invalid_is_78_with_all_problems(tmp_path: Path) -> None:
    """An invalid config exits with 78 and tells all problems at once, for serve, run and check."""
    (tmp_path / "drumd.toml").write_text('[pools.web]\napp = "app:app"\nworkers = -1\nbnid = 1\n')
    for arguments in (("check",), ("run",), ("serve", "app:app", "--config", "drumd.toml")):
        done = _drumd(*arguments, directory=tmp_path)
        assert done.returncode == DaemonExit.CONFIG, arguments
        assert "pools.web.workers" in done.stderr
        assert "bnid" in done.stderr
        assert done.stdout == ""


def test_flags_are_checked_as_config_is(tmp_path: Path) -> None:
    """A wrong value of a flag is told with the flag's name."""
    done = _drumd("serve", "app:app", "--workers", "many", directory=tmp_path)
    assert done.returncode == DaemonExit.CONFIG
    assert "flag --workers" in done.stderr


def test_a_named_file_that_is_missing_is_invalid(tmp_path: Path) -> None:
    """A config file that was named and is not there is exit code 78, with its name."""
    done = _drumd("run", "--config", "nowhere.toml", directory=tmp_path)
    assert done.returncode == DaemonExit.CONFIG
    assert "nowhere.toml" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sevre", "app:app"], "unknown command 'sevre' (did you mean 'serve'?)"),
        (["serve"], "required: APP"),
        (["serve", "app:app", "--worker", "2"], "unknown flag '--worker' (did you mean '--worke"),
        (["serve", "app:app", "more"], "unexpected argument 'more'"),
        (["serve", "app:app", "--bind"], "--bind: expected one argument"),
        ([], "no command"),
    ],
)
def test_mistakes_are_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong command line exits with 2 and says what was probably meant."""
    assert main(arguments) == DaemonExit.USAGE
    error = capsys.readouterr().err
    assert error.startswith("drumd: cannot read the command line: ")
    assert said in error


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command's help fits 100 columns and has an example."""
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*filter(None, [command]), "--help"])
    out = capsys.readouterr().out
    assert "\nexample:\n  drumd " in out
    assert max(map(len, out.splitlines())) <= 100


def test_version_is_quick_and_plain() -> None:
    """`drumd --version` prints name and version, and imports no package for it."""
    code = (
        "import sys\n"
        "from drumd.supervisor.cli.drumd import main\n"
        "try:\n"
        "    main(['--version'])\n"
        "finally:\n"
        "    print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "drumd 0.1.0\n"
    assert not {"pydantic", "structlog", "asyncio", "drumd.config"} & set(done.stderr.split())


def test_elsewhere_than_on_linux_it_says_so() -> None:
    """On another system the commands refuse with the reason."""
    code = (
        "import sys\n"
        "sys.platform = 'darwin'\n"
        "from drumd.supervisor.cli.drumd import main\n"
        "sys.exit(main(['serve', 'app:app']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == DaemonExit.USAGE
    assert "cannot run on darwin: drumd needs Linux" in done.stderr
