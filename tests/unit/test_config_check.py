import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drumd.config import reference
from drumd.config.check import render
from drumd.config.loading import Loaded, load
from drumd.config.writing import to_toml
from tests.unit.config_values import POOL, SUPERVISOR, settings_of, values

TOML = """[supervisor]
log_level = "debug"
[pools.web]
app = "main:app"
workers = "auto"
worker_memory = "1MiB"
keepalive = "90s"
bind = ["127.0.0.1:80", "unix:/x.sock"]
health.stall_after = 0.25
[pools.web.uvicorn]
root_path = '/a"b'
ws_ping_interval = 2.5
[pools.web.environment]
"odd name" = "é\\u007f\\n"
[pools.api]
app = "api:app"
runtime = "gunicorn"
linger = "50s"
gunicorn = { worker_class = "sync", secure_scheme_headers = { X = "y" } }
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    monkeypatch.chdir(tmp_path)
    Path("drumd.toml").write_text(TOML)
    return load({"pools.api.threads": 9}, {}, "drumd.toml")


def test_what_is_shown_can_be_copied(config: Loaded) -> None:
    """What `drumd check` prints is a config file that means the same."""
    Path("copy.toml").write_text(render(config, color=False))
    assert load({}, {}, "copy.toml").settings == config.settings


@given(
    values(SUPERVISOR), st.dictionaries(st.sampled_from(["web", "api"]), values(POOL), min_size=1)
)
@settings(deadline=None, max_examples=40)
def test_what_is_shown_of_any_config_can_be_copied(
    supervisor: dict[str, Any], pools: dict[str, dict[str, Any]]
) -> None:
    """Whatever the values of the keys, what `drumd check` prints means the same, secrets apart."""
    ports = {"web": ":1", "api": ":2"}
    for name, pool in pools.items():
        # One address cannot be bound twice, and hooks of a fork need one.
        pool.update(bind=ports[name], before_fork=pool["before_fork"] if pool["preload"] else None)
        pool.update(after_fork=pool["after_fork"] if pool["preload"] else None)
        pool["environment.API_TOKEN"] = None
        pool["uvicorn.headers"] = None
    tables = {"supervisor": supervisor, **{f"pools.{name}": pool for name, pool in pools.items()}}
    said = {
        f"{table}.{key}": value
        for table, keys in tables.items()
        for key, value in settings_of(keys).items()
    }
    config = load(said, {}, None)
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "copy.toml")
        copy.write_text(render(config, color=False))
        assert load({}, {}, copy).settings == config.settings


def test_each_value_is_shown_with_its_origin(config: Loaded) -> None:
    """Each line ends with where its value came from, and the comments of a table are aligned."""
    lines = render(config, color=False).splitlines()
    assert 'log_level = "debug"        # drumd.toml:2' in lines
    assert "# admin_socket is not set  # default" in lines
    assert any(line.split() == ["threads", "=", "9", "#", "flag", "--threads"] for line in lines)
    keys = (line for line in lines if line and not line.startswith(("[", "# warning")))
    assert all("  # " in line for line in keys)
    health = lines[lines.index("[pools.web.health]") + 1 : lines.index("[pools.web.restart]") - 1]
    assert health == [
        'stall_after = "250ms"       # drumd.toml:9',
        'hang_timeout = "30s"        # default',
        'request_timeout = "2m"      # default',
        "# startup_probe is not set  # default",
    ]


def test_automatic_workers_are_counted(config: Loaded) -> None:
    """`workers = "auto"` is shown with the number that it means here, and why."""
    (line,) = (
        line
        for line in render(config, color=False).splitlines()
        if '"auto"' in line and line.startswith("workers")
    )
    assert "# drumd.toml:5; " in line
    assert "one per CPU, " in line


def test_a_range_of_workers_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a range of workers was said, it is shown as one value with one origin."""
    monkeypatch.chdir(tmp_path)
    web = {"pools.web.app": "main:app"}
    line = "workers = { min = 2, max = 8 }"
    by_flag = load({**web, "pools.web.workers": "2-8"}, {}, None)
    by_variable = load(web, {"DRUMD_POOLS__WEB__WORKERS": '{"min": 2, "max": 8}'}, None)
    for config, origin in ((by_flag, "flag --workers"), (by_variable, "environment DRUMD_POOLS__")):
        (shown,) = (row for row in render(config, color=False).splitlines() if line in row)
        assert origin in shown


def test_warnings_are_shown_as_comments(config: Loaded) -> None:
    """Warnings come last, as comments."""
    last = render(config, color=False).splitlines()[-1]
    assert last.startswith("# warning: pools.api.linger = '50s' (drumd.toml:18): ends with grace")


def test_defaults_are_dimmed_in_color(config: Loaded) -> None:
    """In colour, what nobody said is dimmed and what was said is not; without, nothing is."""
    colored = render(config, color=True).splitlines()
    (default,) = (line for line in colored if "journal_size" in line)
    (said,) = (line for line in colored if "log_level" in line)
    assert default.startswith("\x1b[2m")
    assert "\x1b" not in said
    assert "\x1b" not in render(config, color=False)


SECRET = "hunter2-and-more"


def test_secrets_are_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets in the environment and in options are shown as ***; plain values are shown."""
    monkeypatch.chdir(tmp_path)
    names = ("HF_TOKEN", "Client_Secret", "DB_PASSWORD", "API_KEY", "CREDENTIALS", "PGPASSWORD")
    environ = {f"DRUMD_POOLS__WEB__ENVIRONMENT__{name}": SECRET for name in names} | {
        "DRUMD_POOLS__WEB__ENVIRONMENT__DB": f"postgres://me:{SECRET}@host/name",
        "DRUMD_POOLS__WEB__ENVIRONMENT__HF_HOME": "/models",
        "DRUMD_POOLS__WEB__UVICORN__SSL_KEYFILE_PASSWORD": SECRET,
        "DRUMD_POOLS__WEB__UVICORN__HEADERS": f'[["authorization", "{SECRET}"]]',
    }
    config = load({"pools.web.app": "main:app"}, environ, None)
    assert config.settings.pools["web"].environment["HF_TOKEN"] == SECRET
    text = render(config, color=False)
    assert SECRET not in text
    assert SECRET not in repr(config)
    shown = tomllib.loads(text)["pools"]["web"]
    assert shown["environment"] == dict.fromkeys(names, "***") | {
        "DB": "postgres://me:***@host/name",
        "HF_HOME": "/models",
    }
    assert shown["uvicorn"] == {"ssl_keyfile_password": "***", "headers": "***"}


def test_values_are_written_as_toml() -> None:
    """Every kind of value that a config can hold reads back as the same."""
    value = {
        "text": 'a"b\\c\n\t\x00\x7fé😀',
        "list": [1, 2.5, True, ["x"], {"odd key": {}}],
        "": {"a.b": -1, "float": 1e300},
    }
    assert tomllib.loads(f"value = {to_toml(value)}") == {"value": value}


def test_the_document_lists_what_there_is() -> None:
    """docs/configuration.md holds the table of keys that the settings make."""
    document = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    assert reference.markdown() in document
    assert reference.with_reference(document) == document


def test_the_documents_example_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that docs/configuration.md begins with can be used."""
    document = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    example = document.split("```toml\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    Path("drumd.toml").write_text(example.replace("/srv/web/current", str(tmp_path)))
    assert load({}, {}, "drumd.toml").warnings == []
