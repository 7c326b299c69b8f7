from collections.abc import Mapping
from pathlib import Path

import pytest

from drumd.config.kinds import WorkerRange
from drumd.config.loading import Loaded, load
from drumd.config.problems import ConfigInvalid
from drumd.config.settings import Settings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(
    here: Path,
    toml: str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Loaded:
    if toml is not None:
        (here / "drumd.toml").write_text(toml)
    return load(flags or {}, environ or {}, None if toml is None else "drumd.toml")


WEB = '[pools.web]\napp = "main:app"\n'


def test_the_first_source_that_says_a_key_wins(here: Path) -> None:
    """A key is taken from flags, else the environment, else the file, else the defaults."""
    toml = WEB + "workers = 2\nthreads = 2\nbacklog = 2\n"
    environ = {"DRUMD_POOLS__WEB__WORKERS": "3", "DRUMD_POOLS__WEB__THREADS": "3"}
    config = loaded(here, toml, environ, {"pools.web.workers": 4, "pools.web.threads": None})
    web = config.settings.pools["web"]
    assert (web.workers, web.threads, web.backlog, web.keepalive) == (4, 3, 2, 75.0)
    assert config.origins["pools.web.workers"] == "flag --workers"
    assert config.origins["pools.web.threads"] == "environment DRUMD_POOLS__WEB__THREADS"
    assert config.origins["pools.web.backlog"] == "drumd.toml:5"
    assert config.origins["pools.web.keepalive"] == "default"


def test_tables_are_merged_key_by_key(here: Path) -> None:
    """A source that sets one key of a table leaves the others to the sources below."""
    toml = WEB + 'health.stall_after = "2s"\nhealth.hang_timeout = "9s"\nuvicorn.root_path = "/a"\n'
    environ = {
        "DRUMD_POOLS__WEB__HEALTH__STALL_AFTER": "500ms",
        "DRUMD_POOLS__WEB__UVICORN__WS_MAX_SIZE": "7",
    }
    web = loaded(here, toml, environ).settings.pools["web"]
    assert (web.health.stall_after, web.health.hang_timeout) == (0.5, 9.0)
    assert web.uvicorn == {"root_path": "/a", "ws_max_size": 7}


def test_an_app_can_be_served_without_a_file(here: Path) -> None:
    """Flags alone make a config; the app is then imported from the current directory."""
    config = loaded(here, flags={"pools.app.app": "main:app", "pools.app.bind": [":8080"]})
    pool = config.settings.pools["app"]
    assert (pool.bind, pool.app_dir) == (("0.0.0.0:8080",), str(here))
    assert config.origins["pools.app.app"] == "argument APP"
    assert config.origins["pools.app.bind"] == "flag --bind"


def test_what_is_loaded_is_plain_settings(here: Path) -> None:
    """The result is a `Settings`, equal to one that is made in code."""
    config = loaded(here, WEB)
    again = Settings(supervisor=config.settings.supervisor, pools=config.settings.pools)
    assert config.settings == again


@pytest.mark.parametrize(
    ("toml", "environ", "flags"),
    [
        ("workers = { min = 2, max = 8 }\n", {}, {}),
        ("[pools.web.workers]\nmin = 2\nmax = 8\n", {}, {}),
        ('workers = "2-8"\n', {}, {}),
        ("workers = { min = 5, max = 9 }\n", {}, {"pools.web.workers": "2-8"}),
        ("workers = 3\n", {"": "2-8"}, {}),
        ("workers = 3\n", {"": '{"min": 2, "max": 8}'}, {}),
        ("workers = { min = 1, max = 8 }\n", {"__MIN": "2"}, {}),
        ("", {"__MIN": "2", "__MAX": "8"}, {}),
    ],
)
def test_a_range_of_workers(
    here: Path, toml: str, environ: dict[str, str], flags: dict[str, object]
) -> None:
    """A range of workers is a table or `2-8`, in every source, merged key by key as tables are."""
    variables = {f"DRUMD_POOLS__WEB__WORKERS{end}": text for end, text in environ.items()}
    web = loaded(here, WEB + toml, variables, flags).settings.pools["web"]
    assert web.workers == WorkerRange(2, 8)


def test_a_number_of_workers_replaces_a_range(here: Path) -> None:
    """A source above that says a number wins over the range of one below."""
    toml = WEB + "workers = { min = 2, max = 8 }\n"
    assert loaded(here, toml, flags={"pools.web.workers": "3"}).settings.pools["web"].workers == 3
    environ = {"DRUMD_POOLS__WEB__WORKERS": "auto"}
    assert loaded(here, toml, environ).settings.pools["web"].workers == "auto"


def test_sources_can_be_read_again(here: Path) -> None:
    """A reload reads the file anew, and the flags and variables of the start still win."""
    environ = {"DRUMD_POOLS__WEB__THREADS": "3"}
    config = loaded(here, WEB + "backlog = 2\n", environ, {"pools.web.workers": 4})
    assert config.sources.load() == config
    (here / "drumd.toml").write_text(WEB + "backlog = 5\nworkers = 9\nthreads = 9\n")
    web = config.sources.load().settings.pools["web"]
    assert (web.workers, web.threads, web.backlog) == (4, 3, 5)
    (here / "drumd.toml").write_text(WEB + "backlog = -5\n")
    with pytest.raises(ConfigInvalid):
        config.sources.load()


def test_sources_stay_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload finds the file and relative paths from where drumd was started, wherever it is now.

    Its working directory may even be gone: a release that was deleted after the next one came.
    """
    start, gone = tmp_path / "start", tmp_path / "gone"
    (start / "src").mkdir(parents=True)
    gone.mkdir()
    (start / "drumd.toml").write_text(WEB)
    monkeypatch.chdir(start)
    flags = {"pools.web.app_dir": "src", "pools.web.bind": ["unix:x.sock"]}
    config = load(flags, {}, "drumd.toml")
    monkeypatch.chdir(gone)
    gone.rmdir()
    again = config.sources.load()
    monkeypatch.chdir(start)
    assert again == config
    assert again.settings.pools["web"].bind == (f"unix:{start}/x.sock",)


@pytest.mark.parametrize("text", ["127.0.0.1:1, unix:/x", '["127.0.0.1:1", "unix:/x"]'])
def test_lists_in_the_environment(here: Path, text: str) -> None:
    """A list in a variable is JSON, or has commas between its items."""
    web = loaded(here, WEB, {"DRUMD_POOLS__WEB__BIND": text}).settings.pools["web"]
    assert web.bind == ("127.0.0.1:1", "unix:/x")


def test_tables_in_the_environment(here: Path) -> None:
    """A table in a variable is JSON; a variable for one of its keys is merged into it."""
    environ = {
        "DRUMD_POOLS__WEB__ENVIRONMENT": '{"A": "1", "B": "1"}',
        "DRUMD_POOLS__WEB__ENVIRONMENT__B": "2",
        "DRUMD_POOLS__WEB__ENVIRONMENT__hf__Home": "3",
        "DRUMD_POOLS__WEB__HEALTH": '{"stall_after": "2s"}',
        "DRUMD_POOLS__WEB__UVICORN__HEADERS": '[["x", "y"]]',
    }
    config = loaded(here, WEB, environ)
    web = config.settings.pools["web"]
    assert web.environment == {"A": "1", "B": "2", "hf__Home": "3"}
    assert web.health.stall_after == 2.0
    assert web.uvicorn == {"headers": [["x", "y"]]}
    assert config.origins["pools.web.environment.A"] == "environment DRUMD_POOLS__WEB__ENVIRONMENT"
    assert (
        config.origins["pools.web.environment.B"] == "environment DRUMD_POOLS__WEB__ENVIRONMENT__B"
    )


@pytest.mark.parametrize(("in_file", "meant"), [("my-web", "my-web"), ("my_web", "my_web")])
def test_a_dash_in_a_pools_name(here: Path, in_file: str, meant: str) -> None:
    """A variable names a pool with a dash by an underscore, where the file has that pool."""
    toml = f'[pools.{in_file}]\napp = "main:app"\n'
    config = loaded(here, toml, {"DRUMD_POOLS__MY_WEB__WORKERS": "3"})
    assert {name: pool.workers for name, pool in config.settings.pools.items()} == {meant: 3}


def test_an_exact_name_comes_before_a_dashed_one(here: Path) -> None:
    """Where both `my-web` and `my_web` are pools, a variable means the latter."""
    toml = '[pools.my-web]\napp = "m:a"\nbind = ":1"\n[pools.my_web]\napp = "m:a"\nbind = ":2"\n'
    pools = loaded(here, toml, {"DRUMD_POOLS__MY_WEB__WORKERS": "3"}).settings.pools
    assert (pools["my-web"].workers, pools["my_web"].workers) == (1, 3)


def test_variables_for_other_purposes_are_left_alone(here: Path) -> None:
    """The variables for drumctl and for drumd's own children are no settings."""
    environ = {"DRUMD_SOCKET": "/x", "DRUMD_INSTANCE": "x", "DRUMD_SPEC_FD": "3", "PATH": "/bin"}
    assert loaded(here, WEB, environ).settings == loaded(here, WEB).settings


def test_paths_are_relative_to_where_they_are_said(here: Path) -> None:
    """Relative paths are taken from the file's directory, in flags from the current one."""
    conf = here / "conf"
    (conf / "src").mkdir(parents=True)
    (here / "src").mkdir()
    (conf / "drumd.toml").write_text(
        '[supervisor]\nadmin_socket = "admin.sock"\n'
        '[pools.a]\napp = "m:a"\napp_dir = "src"\nbind = ["unix:a.sock", ":1"]\n'
        '[pools.b]\napp = "m:a"\nbind = "unix:b.sock"\n'
        '[pools.c]\napp = "m:a"\napp_dir = "src"\nbind = ":2"\n'
    )
    flags = {"pools.c.app_dir": "src", "pools.c.bind": ["unix:c.sock"]}
    config = load(flags, {}, "conf/drumd.toml")
    pools = config.settings.pools
    assert config.settings.supervisor.admin_socket == str(conf / "admin.sock")
    assert (pools["a"].app_dir, pools["a"].bind) == (
        str(conf / "src"),
        (f"unix:{conf}/a.sock", "0.0.0.0:1"),
    )
    assert (pools["b"].app_dir, pools["b"].bind) == (str(conf), (f"unix:{conf}/b.sock",))
    assert (pools["c"].app_dir, pools["c"].bind) == (str(here / "src"), (f"unix:{here}/c.sock",))
    assert config.origins["pools.b.app_dir"] == "default"


def test_the_link_to_a_release_stays_a_link(here: Path) -> None:
    """A symlink in `app_dir` is kept, so that each rollout can follow it anew."""
    (here / "releases").mkdir()
    (here / "current").symlink_to("releases")
    web = loaded(here, WEB + 'app_dir = "current"\n').settings.pools["web"]
    assert web.app_dir == str(here / "current")


def test_lines_are_exact(here: Path) -> None:
    """Origins name the line, whatever strings, arrays and inline tables stand before it."""
    toml = '''# [pools.web]
supervisor = { log_level = "debug" }

[pools."web"]
bind = [
  "127.0.0.1:1",  # threads = 1
  """unix:\\
     /x""",
]
app = "main:app"
environment.TEXT = """
threads = 2
[pools.web.health]
"""
"threads" = 3

[ pools . web . restart ]
period = "1s"

[pools.web.gunicorn]
secure_scheme_headers = { A = "b" }
'''
    origins = loaded(here, toml).origins
    assert {key: origin for key, origin in origins.items() if origin != "default"} == {
        "supervisor.log_level": "drumd.toml:2",
        "pools.web.bind": "drumd.toml:5",
        "pools.web.app": "drumd.toml:10",
        "pools.web.environment.TEXT": "drumd.toml:11",
        "pools.web.threads": "drumd.toml:15",
        "pools.web.restart.period": "drumd.toml:18",
        "pools.web.gunicorn.secure_scheme_headers": "drumd.toml:21",
    }


def test_files_of_other_editors_are_read(here: Path) -> None:
    """A byte order mark and CR LF at the ends of lines change neither values nor line numbers."""
    text = WEB + 'environment.X = """\na"""\nthreads = 3\n'
    (here / "drumd.toml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    config = load({}, {}, "drumd.toml")
    assert config.settings.pools["web"].threads == 3
    assert config.origins["pools.web.threads"] == "drumd.toml:5"


def test_every_value_has_an_origin(here: Path) -> None:
    """Each key of the settings has an origin, whether it was said or not."""
    config = loaded(here, WEB)
    supervisor = {f"supervisor.{name}" for name in config.settings.supervisor.model_fields_set}
    assert supervisor <= set(config.origins)
    assert {"pools.web.health.stall_after", "supervisor.admin_socket"} <= set(config.origins)


def test_what_is_probably_not_meant_is_a_warning(here: Path) -> None:
    """What has no effect, or ends earlier than it says, is a warning with its origin."""
    toml = (
        WEB
        + 'runtime = "uvicorn"\nthreads = 8\nlinger = "40s"\nworker_memory = "1GB"\n'
        + "gunicorn.limit_request_line = 100\n"
    )
    config = loaded(here, toml)
    assert {warning.key: warning.origin for warning in config.warnings} == {
        "pools.web.linger": "drumd.toml:5",
        "pools.web.worker_memory": "drumd.toml:6",
        "pools.web.threads": "drumd.toml:4",
        "pools.web.gunicorn": "drumd.toml:7",
    }
    assert loaded(here, WEB).warnings == []


def test_keys_that_need_another_one_are_warned_about(here: Path) -> None:
    """What does nothing without another key is a warning, and none beside that key."""
    idle = "scale.up_at = 0.9\nrecycle.max_requests_jitter = 5\nrecycle.max_age_jitter = 5\n"
    keys = ("scale.up_at", "recycle.max_requests_jitter", "recycle.max_age_jitter")
    config = loaded(here, WEB + idle)
    assert [warning.key for warning in config.warnings] == [f"pools.web.{key}" for key in keys]
    assert all("has no effect: it is for" in warning.message for warning in config.warnings)
    needed = 'workers = "1-2"\nrecycle.max_requests = 9\nrecycle.max_age = "1h"\n'
    assert loaded(here, WEB + idle + needed).warnings == []


def test_a_file_that_is_wrong_in_itself_ends_the_look_at_it(here: Path) -> None:
    """A file that is not there, unreadable or no TOML is the one problem, with a next step."""
    (here / "bad.toml").write_text("[pools.web]\napp = main\n")
    (here / "latin.toml").write_bytes(b'x = "\xe9"')
    (here / "dir").mkdir()
    for name, message in {
        "gone.toml": "there is no such file",
        "dir": "this is a directory",
        "latin.toml": "byte 6 is not UTF-8",
        "bad.toml": "line 2, column 7",
    }.items():
        with pytest.raises(ConfigInvalid) as caught:
            load({}, {}, name)
        (problem,) = caught.value.problems
        assert message in problem.message
        assert (problem.key, problem.origin) == (name, name)
        assert problem.suggestion
