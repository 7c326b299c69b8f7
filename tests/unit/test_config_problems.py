import grp
import tempfile
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from drumd.config.check import render, render_problems
from drumd.config.loading import load
from drumd.config.problems import ABSENT, ConfigInvalid, Problem
from drumd.config.settings import PoolSettings, Settings, SupervisorSettings
from drumd.config.writing import to_toml

WEB = '[pools.web]\napp = "main:app"\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(
    here: Path, toml: str, environ: dict[str, str] | None = None, flags: Any = None
) -> list[Problem]:
    (here / "drumd.toml").write_text(toml)
    with pytest.raises(ConfigInvalid) as caught:
        load(flags or {}, environ or {}, "drumd.toml")
    return caught.value.problems


def test_all_problems_are_named_at_once(here: Path) -> None:
    """Problems of every kind and source come in one list, each with its origin."""
    toml = """[supervisor]
log_level = "inf"
[pools.web]
app = "main.py"
workers = 0
keepaliv = 3
restart.backoff_max = "10ms"
uvicorn.interface = "asgi4"
[pools.Api]
app = "m:a"
app_dir = "nowhere"
threads = true
"""
    environ = {
        "DRUMD_POOLS__WEB__BACKLOG": "0",
        "DRUMD_LOG_LEVEL": "info",
        "DRUMD_POOLS__WEB__ENVIRONMENT": "{",
    }
    found = problems(here, toml, environ, {"pools.web.keepalive": "10 sec"})
    assert {problem.key: problem.origin for problem in found} == {
        "supervisor.log_level": "drumd.toml:2",
        "pools.web.app": "drumd.toml:4",
        "pools.web.workers": "drumd.toml:5",
        "pools.web.keepaliv": "drumd.toml:6",
        "pools.web.restart.backoff_max": "drumd.toml:7",
        "pools.web.uvicorn.interface": "drumd.toml:8",
        "pools.Api": "drumd.toml:9",
        "pools.Api.threads": "drumd.toml:12",
        "pools.web.backlog": "environment DRUMD_POOLS__WEB__BACKLOG",
        "log_level": "environment DRUMD_LOG_LEVEL",
        "pools.web.environment": "environment DRUMD_POOLS__WEB__ENVIRONMENT",
        "pools.web.keepalive": "flag --keepalive",
    }
    assert len(found) == 12


@pytest.mark.parametrize(
    ("toml", "key", "message", "suggestion"),
    [
        (WEB + "workers = 257", "workers", 'from 1 to 256, or "auto"', ""),
        (WEB + 'workers = "four"', "workers", 'or a range such as "2-8"', ""),
        (WEB + "workers = true", "workers", 'from 1 to 256, or "auto"', ""),
        (WEB + 'workers = "8-2"', "workers", "max of at least its min, which is 8", ""),
        (WEB + 'workers = "0-2"', "workers", "min and a max from 1 to 256", ""),
        (WEB + 'workers = "2-257"', "workers", "min and a max from 1 to 256", ""),
        (WEB + "workers = { min = 2 }", "workers", "a min and a max", "{ min = 2, max = 8 }"),
        (WEB + "workers = { min = 2, mx = 8 }", "workers", "and nothing else", "write { min"),
        (WEB + "workers = { min = 2, max = 8.0 }", "workers", "whole numbers as min and max", ""),
        (WEB + "workers = { min = 3, max = 2 }", "workers", "at least its min, which is 3", ""),
        (WEB + "spares = -1", "spares", "must be at least 0", ""),
        (WEB + "spares = 257", "spares", "must be at most 256", ""),
        (WEB + 'preload = "perhaps"', "preload", "must be true or false", ""),
        (
            WEB + 'preload = true\nafter_fork = "hooks.renew()"',
            "after_fork",
            "must name a function as module:function",
            "write hooks:renew",
        ),
        (WEB + 'preload = true\nbefore_fork = "hooks"', "before_fork", "such as main:close", ""),
        (
            WEB + 'before_fork = "hooks:close"',
            "before_fork",
            "without preload no worker is forked",
            "set preload = true in [pools.web], or leave before_fork out",
        ),
        (WEB + 'health.startup_probe = "healthz"', "health.startup_probe", 'with "/"', "/healthz"),
        (WEB + 'health.startup_probe = ""', "health.startup_probe", 'with "/"', "/healthz"),
        (WEB + 'health.startup_probe = "/a b"', "health.startup_probe", "as a request has", "%20"),
        (
            WEB + 'health.startup_probe = "/a\\r\\nX: y"',
            "health.startup_probe",
            "as a request has it",
            "",
        ),
        (WEB + "rollout.max_surge = -1", "rollout.max_surge", "must be at least 0", ""),
        (
            WEB + "rollout.max_surge = 0",
            "rollout.max_surge",
            "no worker could be replaced",
            "at least 1",
        ),
        (
            WEB + 'rollout.memory = "no_surge"',
            "rollout.memory",
            "must be refuse, no-surge or ignore",
            "did you mean no-surge?",
        ),
        (WEB + "recycle.max_requests = 0", "recycle.max_requests", "must be at least 1", ""),
        (WEB + 'recycle.max_age = "0s"', "recycle.max_age", "must be more than 0", ""),
        (WEB + 'recycle.max_memory = "lots"', "recycle.max_memory", "as a size", "write e.g."),
        (WEB + "recycle.max_request = 1", "recycle.max_request", "no key", "max_requests?"),
        (WEB + "max_requests = 1", "max_requests", "no key", "pools.web.recycle.max_requests?"),
        (WEB + "max_surge = 1", "max_surge", "no key", "pools.web.rollout.max_surge?"),
        (WEB + "scale.up_at = 1.5", "scale.up_at", "must be at most 1", ""),
        (WEB + "scale.up_at = true", "scale.up_at", "must be a number", ""),
        (WEB + "scale.up_at = nan", "scale.up_at", "must be a number", ""),
        (WEB + "scale.down_at = -0.5", "scale.down_at", "must be at least 0", ""),
        (WEB + "scale.down_at = 0.8", "scale.down_at", "must be below up_at, which is 0.8", ""),
        (WEB + "scale.queue = 0", "scale.queue", "must be at least 1", ""),
        (WEB + 'scale.cooldown = "-1s"', "scale.cooldown", "as a duration", ""),
        (WEB + "threads = 2.0", "threads", "must be a whole number", ""),
        (WEB + "threads = 0", "threads", "must be at least 1", ""),
        (WEB + 'essential = "maybe"', "essential", "must be true or false", ""),
        (WEB + 'keepalive = "10 sec"', "keepalive", "cannot read '10 sec' as a", "write e.g. 30s"),
        (WEB + "stop_timeout = 0", "stop_timeout", "must be more than 0", ""),
        (WEB + "keepalive = nan", "keepalive", "cannot read nan as a duration", "write"),
        (WEB + "keepalive = true", "keepalive", "cannot read True as a duration", "write"),
        (WEB + 'worker_memory = "1 pound"', "worker_memory", "as a size", "write e.g. 512MB"),
        (WEB + 'runtime = "gunicron"', "runtime", "auto, uvicorn, gunicorn or flask", "gunicorn"),
        (WEB + "bind = []", "bind", "at least one item", ""),
        (WEB + 'bind = "80"', "bind", "cannot use bind '80': the port is missing", "0.0.0.0:80"),
        (WEB + 'bind = [":1", "unix:"]', "bind", "the path is missing", "unix:/run"),
        (WEB + "bind = [5]", "bind", "must be a string", ""),
        (WEB + "health = 5", "health", "must be a table, [pools.web.health]", ""),
        (WEB + "environment.X = 5", "environment.X", "must be a string", ""),
        (WEB + "heath.stall_after = 5", "heath", "no key of [pools.web]", "pools.web.health?"),
        (WEB + "stall_after = 5", "stall_after", "no key", "pools.web.health.stall_after?"),
        (WEB + "xyzzy = 5", "xyzzy", "no key", "docs/configuration.md"),
        ('[pools.web]\napp = "main"', "app", "module:attribute, such as main:app", ""),
        ('[pools.web]\napp = "src/main.py"', "app", 'such as main:app, with app_dir = "src"', ""),
        ('[pools.web]\napp = "m:make()"', "app", "module:attribute", "leave the parentheses away"),
        ('[pools.web]\napp = ""', "app", "such as main:app", ""),
        ("[pools.web]", "app", "is missing", 'app = "main:app"'),
        (WEB + 'app_dir = "nowhere"', "app_dir", "no such directory", "name the directory"),
        (WEB + 'health.hang_timeout = "0.5s"', "health.hang_timeout", "at least stall_after", ""),
        (
            WEB + 'health.request_timeout = "0.5s"',
            "health.request_timeout",
            "at least stall_after, which is 1s",
            "",
        ),
    ],
)
def test_each_kind_of_problem(
    here: Path, toml: str, key: str, message: str, suggestion: str
) -> None:
    """A wrong value is one problem that says what it must be and, where it can, what was meant."""
    (problem,) = problems(here, toml)
    assert problem.key == f"pools.web.{key}"
    assert message in problem.message
    assert suggestion in problem.suggestion
    assert problem.origin.startswith("drumd.toml:")


@pytest.mark.parametrize(
    ("toml", "key", "message"),
    [
        ('admin_bind = "unix:/x"', "admin_bind", "must be host:port"),
        ('admin_bind = "80"', "admin_bind", "the port is missing"),
        (f'admin_socket = "/{"x" * 120}"', "admin_socket", "bytes long"),
        ('admin_socket = ""', "admin_socket", "must not be empty"),
        ("journal_size = 1", "journal_size", "must be at least 10"),
    ],
)
def test_problems_of_the_supervisor(here: Path, toml: str, key: str, message: str) -> None:
    """The daemon's own settings are looked at in the same way."""
    (problem,) = problems(here, f"[supervisor]\n{toml}\n{WEB}")
    assert (problem.key, problem.origin) == (f"supervisor.{key}", "drumd.toml:2")
    assert message in problem.message


@pytest.mark.parametrize("name", ["DRUMD_SPEC_FD", "", "A=B", "NUL\\u0000"])
def test_variables_that_workers_cannot_have(here: Path, name: str) -> None:
    """A name that drumd uses itself, or that no variable can have, is refused."""
    (problem,) = problems(here, f'{WEB}environment."{name}" = "x"')
    assert problem.key == "pools.web.environment"
    assert problem.message.startswith("cannot set")


KEYS = st.sampled_from(
    [
        *(*Settings.model_fields, *PoolSettings.model_fields, *SupervisorSettings.model_fields),
        *("min", "max", "max_surge", "max_requests", "max_age", "down_at", "startup_probe"),
        *(
            "web",
            "my-pool",
            "Bad",
            "",
            "a.b",
            "stall_after",
            "ws_max_size",
            "worker_class",
            "[key]",
        ),
    ]
)
LEAVES = st.one_of(
    st.none().map(lambda _: "main:app"),
    *(st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    st.sampled_from(["auto", "2-8", "/x", ":80", "unix:x", "30s", "1GB", "gunicorn", "debug"]),
)
TABLES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)


@given(
    st.dictionaries(KEYS, TABLES, max_size=3),
    st.dictionaries(st.sampled_from(["web", "api", "Bad"]), st.dictionaries(KEYS, TABLES)),
)
@example({"[key]": 1}, {"[key]": {"[key]": 1, "environment": {"[key]": 1}}})
@settings(deadline=None)
def test_whatever_is_written_ends_in_a_config_or_in_problems(
    top: dict[str, Any], pools: dict[str, Any]
) -> None:
    """No file makes the loading itself fail, and every problem can be shown."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "drumd.toml")
        tables = {**top, "pools": pools}
        file.write_text("".join(f"{to_toml(k)} = {to_toml(v)}\n" for k, v in tables.items()))
        try:
            shown = render(load({}, {}, file), color=False)
        except ConfigInvalid as error:
            shown = render_problems(error)
    assert shown.startswith(("[supervisor]", "cannot use the config: "))
    assert "cannot use the config: 0" not in shown


PARTS = KEYS.filter(lambda name: name != "").map(str.upper) | st.sampled_from(["POOLS", "X", ""])
VARIABLES = st.lists(PARTS, min_size=1, max_size=5).map(lambda parts: "DRUMD_" + "__".join(parts))


@given(st.dictionaries(VARIABLES, TABLES.map(to_toml) | LEAVES.map(str), max_size=5))
@settings(deadline=None)
def test_whatever_is_in_the_environment_ends_in_a_config_or_in_problems(
    environ: dict[str, str],
) -> None:
    """No environment makes the loading itself fail, and every problem can be shown."""
    try:
        shown = render(load({"pools.web.app": "main:app"}, environ, None), color=False)
    except ConfigInvalid as error:
        shown = render_problems(error)
    assert shown.startswith(("[supervisor]", "cannot use the config: "))
    assert "cannot use the config: 0" not in shown


def test_a_config_without_a_pool_is_refused(here: Path) -> None:
    """Without a pool there is nothing to serve, and the problem shows how to write one."""
    (problem,) = problems(here, "")
    assert (problem.key, problem.value) == ("pools", ABSENT)
    assert "[pools.web]" in problem.suggestion


def test_without_a_file_a_missing_pool_points_to_both_ways() -> None:
    """Where no file was read, the problem says so, and names --config and `drumd serve`."""
    with pytest.raises(ConfigInvalid) as caught:
        load({}, {}, None)
    (problem,) = caught.value.problems
    assert problem.suggestion == (
        "there is no drumd.toml here: name one with --config, "
        "or serve one app without a file: drumd serve main:app"
    )


@pytest.mark.parametrize("group", ["no-such-group", "nul\0in it"])
def test_an_unknown_admin_group_is_refused(here: Path, group: str) -> None:
    """A group that the machine does not know is a problem of the config, whoever named it."""
    (by_file,) = problems(here, f"{WEB}[supervisor]\nadmin_group = {to_toml(group)}\n")
    (by_flag,) = problems(here, WEB, flags={"supervisor.admin_group": group})
    assert (by_file.origin, by_flag.origin) == ("drumd.toml:4", "flag --admin-group")
    for problem in (by_file, by_flag):
        assert problem.key == "supervisor.admin_group"
        assert problem.message == f"cannot find group {group!r}"
        assert "getent group" in problem.suggestion


def test_a_known_admin_group_is_taken(here: Path) -> None:
    """A group that the machine knows is no problem."""
    group = grp.getgrall()[0].gr_name
    (here / "drumd.toml").write_text(WEB)
    loaded = load({"supervisor.admin_group": group}, {}, "drumd.toml")
    assert loaded.settings.supervisor.admin_group == group


@pytest.mark.parametrize("toml", ["pools = 5", "[pools]\nweb = 5", "supervisor = []\n" + WEB])
def test_a_value_in_place_of_a_table(here: Path, toml: str) -> None:
    """A value where a table must be is a problem, not a crash."""
    assert "must be a table" in problems(here, toml)[0].message


def test_a_variable_for_an_unknown_pool_says_which_one_was_meant(here: Path) -> None:
    """A misspelt pool in a variable has no app, and the problem names the pool like it."""
    (problem,) = problems(here, WEB, {"DRUMD_POOLS__WEP__WORKERS": "3"})
    assert (problem.key, problem.origin) == (
        "pools.wep.app",
        "environment DRUMD_POOLS__WEP__WORKERS",
    )
    assert "the pool web?" in problem.suggestion


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("DRUMD_LOG_LEVEL", "DRUMD_SUPERVISOR__LOG_LEVEL"),
        ("DRUMD_WORKERS", "DRUMD_POOLS__NAME__WORKERS"),
        ("DRUMD_POOL__WEB__WORKERS", "DRUMD_POOLS"),
        ("DRUMD_POOLS__WEB__WORKER", "DRUMD_POOLS__WEB__WORKERS"),
        ("DRUMD_POOLS__WEB__HEALTH__STAL_AFTER", "DRUMD_POOLS__WEB__HEALTH__STALL_AFTER"),
    ],
)
def test_an_unknown_variable_says_which_one_was_meant(
    here: Path, variable: str, meant: str
) -> None:
    """A DRUMD_ variable that is no setting is a problem that names the variable like it."""
    (problem,) = problems(here, WEB, {variable: "3"})
    assert problem.origin == f"environment {variable}"
    assert f"{meant}?" in problem.suggestion


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (":8000", "0.0.0.0:8000"),
        ("127.0.0.1:8000", "0.0.0.0:8000"),
        ("[::1]:8000", "[::]:8000"),
        ("unix:x", "unix://x"),
        ("fd://3", "fd://3"),
    ],
)
def test_two_pools_cannot_have_one_address(here: Path, one: str, other: str) -> None:
    """Addresses that cannot both be bound are a problem, however they are written."""
    toml = f'{WEB}bind = "{one}"\n[pools.api]\napp = "m:a"\nbind = "{other}"\n'
    (problem,) = problems(here, toml)
    assert problem.key == "pools.api.bind"
    assert "pools.web.bind" in problem.message
    assert problem.suggestion == "give api an address of its own"


def test_two_pools_with_the_default_address(here: Path) -> None:
    """Two pools that both leave their address at the default collide, too."""
    (problem,) = problems(here, WEB + '[pools.api]\napp = "m:a"\n')
    assert (problem.key, problem.origin) == ("pools.api.bind", "default")


def test_addresses_that_do_not_collide(here: Path) -> None:
    """Port 0, other ports, and v4 beside v6 do not collide."""
    (here / "drumd.toml").write_text(
        WEB + 'bind = ["0.0.0.0:1", "[::]:1", ":0", ":0", "127.0.0.1:2", "127.0.0.2:2"]\n'
    )
    load({}, {}, "drumd.toml")


def test_an_address_twice_in_one_list(here: Path) -> None:
    """One pool that names an address twice, or the admin's, is told so."""
    toml = f'[supervisor]\nadmin_bind = ":2"\n{WEB}bind = [":1", ":1", "127.0.0.1:2"]\n'
    messages = [problem.message for problem in problems(here, toml)]
    assert messages == [
        "collides with 0.0.0.0:1 of this list",
        "collides with 0.0.0.0:2 of supervisor.admin_bind",
    ]


SECRET = "hunter2-and-more"


def test_secrets_stay_out_of_problems(here: Path) -> None:
    """No problem repeats a secret, whatever is wrong with it and wherever it was said."""
    toml = f"""{WEB}
tokenn = "{SECRET}"
worker_password = "{SECRET}"
environment = {{ A_TOKEN = ["{SECRET}"], CREDENTIALS = {{ x = "{SECRET}" }} }}
enviroment = {{ API_KEY = "{SECRET}" }}
uvicorn.ssl_keyfile_password = ["{SECRET}"]
uvicorn.headers = "{SECRET}"
gunicorn.raw_env = ["TOKEN={SECRET}"]
"""
    environ = {
        "DRUMD_API_KEY": SECRET,
        "DRUMD_POOLS__API__ENVIRONMENT": '{"TOKEN": ' + SECRET,
        "DRUMD_POOLS__API__ENVIROMENT__X": SECRET,
        "DRUMD_POOLS__API__ENVIRONMENT__DB": f"postgres://me:{SECRET}@host/x",
    }
    (here / "drumd.toml").write_text(toml)
    with pytest.raises(ConfigInvalid) as caught:
        load({}, environ, "drumd.toml")
    assert len(caught.value.problems) >= 10
    assert SECRET not in render_problems(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_an_environment_that_is_no_table_is_hidden(here: Path) -> None:
    """A wrong value in the place of the whole environment may hold secrets and is not shown."""
    assert SECRET not in str(problems(here, f'{WEB}environment = "TOKEN={SECRET}"'))


def test_problems_are_shown_one_block_each(here: Path) -> None:
    """The list begins with the count; a block has key, value, origin, message and suggestion."""
    (here / "drumd.toml").write_text(WEB + 'workers = 0\nruntime = "gunicron"\n')
    with pytest.raises(ConfigInvalid) as caught:
        load({}, {}, "drumd.toml")
    assert render_problems(caught.value) == (
        "cannot use the config: 2 problems\n"
        "\n"
        '  pools.web.runtime = "gunicron"   # drumd.toml:4\n'
        "    must be auto, uvicorn, gunicorn or flask\n"
        "    did you mean gunicorn?\n"
        "\n"
        "  pools.web.workers = 0   # drumd.toml:3\n"
        '    must be a whole number from 1 to 256, or "auto", or a range such as "2-8"\n'
    )


def test_a_worker_class_needs_gunicorn_for_certain(here: Path) -> None:
    """A worker class beside runtime auto is refused, with the line to write."""
    (problem,) = problems(here, WEB + '[pools.web.gunicorn]\nworker_class = "gevent"\n')
    assert problem.key == "pools.web.gunicorn.worker_class"
    assert problem.message == (
        'cannot be used with runtime "auto", which is settled only when the app is loaded'
    )
    assert problem.suggestion == 'set runtime = "gunicorn" in [pools.web]'
