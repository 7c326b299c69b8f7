"""An invalid config is told whole, at once, whoever reads it; a valid one says where it is from."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from drumd.exitcodes import DaemonExit
from tests.e2e.daemon import APPS, CHECKOUT, Daemon

Start = Callable[..., Daemon]

BROKEN = """\
[supervisor]
log_levl = "info"
admin_bind = "unix:/run/admin.sock"

[pools.web]
app = "main.py"
workers = 0
grace_period = "5 parsecs"
bind = ["127.0.0.1:99999"]
essential = "perhaps"
[pools.web.uvicorn]
workers = 3
htp = "h11"
[pools.web.environment]
API_TOKEN = "hunter2"

[pools.Shop]
app = "shop:app"

[pools.api]
app = "api:app"
runtime = "waitress"
keepalive = -1.5
[pools.api.gunicorn]
preload_app = true
worker_class = "eventlet"
"""
PROBLEMS = {
    "supervisor.log_levl": "did you mean supervisor.log_level?",
    "supervisor.admin_bind": "must be host:port",
    "pools.web.app": "such as main:app",
    "pools.web.workers": "from 1 to 256",
    "pools.web.grace_period": "write e.g. 30s, 500ms or 1h30m",
    "pools.web.bind": "the port must be a number from 0 to 65535",
    "pools.web.essential": "",
    "pools.web.uvicorn.workers": "set `workers` of the pool",
    "pools.web.uvicorn.htp": "did you mean http?",
    "pools.Shop": "small letters",
    "pools.api.runtime": "must be auto, uvicorn, gunicorn or flask",
    "pools.api.keepalive": "",
    "pools.api.gunicorn.preload_app": "cannot be passed to gunicorn",
    "pools.api.gunicorn.worker_class": "",
}
"""Each key with something wrong, and what to do about it."""


def told(daemon: Start, *arguments: str, **options: object) -> tuple[int, str]:
    """Run drumd to its end; return the exit code and all that it said."""
    started = daemon(*arguments, **options)
    return started.wait(), started.text()


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.toml"
    path.write_text(BROKEN)
    return path


def test_all_problems_are_told_at_once(daemon: Start, broken: Path) -> None:
    """Every wrong key is told with its value, its line in the file and what to write; exit 78."""
    code, text = told(daemon, "check", "--config", str(broken))
    assert code == DaemonExit.CONFIG
    assert text.startswith(f"cannot use the config: {len(PROBLEMS)} problems\n")
    lines = BROKEN.splitlines()
    blocks = {block.split()[0]: block for block in text.split("\n\n")[1:]}
    assert blocks.keys() == PROBLEMS.keys()
    for key, advice in PROBLEMS.items():
        block = blocks[key]
        assert advice in block, block
        first, _, number = block.splitlines()[0].partition(f"# {broken}:")
        line = lines[int(number) - 1]
        assert key.rpartition(".")[2] in line, block
        assert first.partition(" = ")[2].strip() in line, block


def test_run_says_what_check_says(daemon: Start, broken: Path) -> None:
    """`drumd run` refuses the same file with the same text and code, and starts nothing."""
    checked = told(daemon, "check", "--config", str(broken))
    assert told(daemon, "run", "--config", str(broken)) == checked


def test_secrets_are_in_no_output(daemon: Start, tmp_path: Path, broken: Path) -> None:
    """Values of the workers' environment are masked in the resolved config and told in no error."""
    assert "hunter2" not in told(daemon, "check", "--config", str(broken))[1]
    good = tmp_path / "good.toml"
    good.write_text(
        f'[pools.web]\napp = "unruly:asgi"\napp_dir = "{APPS}"\n'
        'environment = { API_TOKEN = "hunter2" }\nuvicorn = { ssl_keyfile_password = "hunter3" }\n'
    )
    code, text = told(daemon, "check", "--config", str(good))
    assert code == 0, text
    assert "API_TOKEN" in text
    assert "hunter" not in text


REFUSED = {
    "uvicorn": {
        "workers": ("4", "`workers`"),
        "host": ('"0.0.0.0"', "`bind`"),
        "port": ("80", "`bind`"),
        "uds": ('"/x"', "`bind`"),
        "reload": ("true", "`reload`"),
        "limit_max_requests": ("5", "`recycle.max_requests`"),
    },
    "gunicorn": {
        "workers": ("4", "`workers`"),
        "threads": ("4", "`threads`"),
        "bind": ('"0.0.0.0:80"', "`bind`"),
        "reload": ("true", "`reload`"),
        "max_requests": ("5", "`recycle.max_requests`"),
        "daemon": ("true", ""),
        "preload_app": ("true", "`preload`"),
        "pidfile": ('"/x"', ""),
        "timeout": ("10", "`health.request_timeout`"),
        "graceful_timeout": ("10", "`grace_period`"),
    },
}
"""Options that would fight the supervisor, and the pool's key that is named instead."""


@pytest.mark.parametrize("server", REFUSED)
def test_options_that_would_fight_drumd_are_refused(
    daemon: Start, tmp_path: Path, server: str
) -> None:
    """An option of the server's that is the supervisor's business is refused, with what to use."""
    options = "".join(f"{name} = {value}\n" for name, (value, _) in REFUSED[server].items())
    path = tmp_path / "drumd.toml"
    path.write_text(
        f'[pools.web]\napp = "a:b"\nruntime = "{server}"\n[pools.web.{server}]\n{options}'
    )
    code, text = told(daemon, "check", "--config", str(path))
    assert code == DaemonExit.CONFIG
    blocks = {block.split()[0]: block for block in text.split("\n\n")[1:]}
    assert blocks.keys() == {f"pools.web.{server}.{option}" for option in REFUSED[server]}
    for option, (_, instead) in REFUSED[server].items():
        block = blocks[f"pools.web.{server}.{option}"]
        assert f"cannot be passed to {server}" in block
        assert instead in block


def test_resolved_config_says_where_each_value_is_from(daemon: Start, tmp_path: Path) -> None:
    """Flag, environment, file and default: `drumd check` prints each value with its origin."""
    path = tmp_path / "drumd.toml"
    path.write_text(f'[pools.web]\napp = "unruly:asgi"\napp_dir = "{APPS}"\nthreads = 7\n')
    code, text = told(
        daemon,
        "check",
        "--config",
        str(path),
        "--log-level=warning",
        environ={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(CHECKOUT),
            "DRUMD_POOLS__WEB__BACKLOG": "99",
            "DRUMD_POOLS__WEB__HEALTH__STALL_AFTER": "2s",
        },
    )
    assert code == 0, text
    origins = {
        line.partition(" = ")[0].strip(): line.partition("#")[2].strip()
        for line in text.splitlines()
        if " = " in line
    }
    assert origins["app"] == f"{path}:2"
    assert origins["threads"] == f"{path}:4"
    assert origins["log_level"] == "flag --log-level"
    assert "DRUMD_POOLS__WEB__BACKLOG" in origins["backlog"]
    assert "DRUMD_POOLS__WEB__HEALTH__STALL_AFTER" in origins["stall_after"]
    assert origins["keepalive"] == "default"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["serve", "app:app", "--wrkers", "2"],
            "unknown flag '--wrkers' (did you mean '--workers'?)",
        ),
        (["serve"], "required: APP; see `drumd serve --help`"),
        (["srve", "app:app"], "unknown command 'srve' (did you mean 'serve'?)"),
    ],
)
def test_wrong_command_lines_are_2(daemon: Start, arguments: list[str], said: str) -> None:
    """A wrong command line is one line that says what was probably meant, and exit code 2."""
    code, text = told(daemon, *arguments)
    assert code == DaemonExit.USAGE
    assert text.startswith("drumd: cannot read the command line: ")
    assert said in text
    assert text.count("\n") == 1
