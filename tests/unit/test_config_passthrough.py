import inspect
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from gunicorn.config import make_settings

from drumd.config import refusals
from drumd.config.passthrough import check_options
from drumd.config.rules import Finding
from drumd.config.settings import PoolSettings


def pool(**tables: dict[str, Any]) -> PoolSettings:
    return PoolSettings.model_validate({"app": "main:app", **tables})


def finding(**tables: dict[str, Any]) -> Finding:
    _, findings = check_options("web", pool(**tables))
    (only,) = findings
    return only


def test_good_options_pass() -> None:
    """Options that the servers accept are passed through, as the servers read them."""
    uvicorn_options = {
        "ws_max_size": "7",
        "log_level": "INFO",
        "headers": [["x", "y"]],
        "http": "h11",
        "loop": "mine:loop",
        "limit_concurrency": 5,
        "proxy_headers": "false",
    }
    gunicorn_options = {
        "worker_class": "gthread",
        "limit_request_line": "100",
        "proc_name": "mine",
        "secure_scheme_headers": {"A": "b"},
    }
    options, findings = check_options(
        "web", pool(uvicorn=uvicorn_options, gunicorn=gunicorn_options)
    )
    assert findings == []
    assert options["uvicorn"] == uvicorn_options | {"ws_max_size": 7, "proxy_headers": False}
    assert options["gunicorn"] == gunicorn_options


@pytest.mark.parametrize(
    ("key", "value", "message", "suggestion"),
    [
        ("ws_max_siz", 7, "is no option of uvicorn", "did you mean ws_max_size?"),
        ("ws_max_size", "abc", "must be a whole number", ""),
        ("proxy_headers", 5, "must be true or false", ""),
        ("interface", "asgi4", "must be auto, asgi3, asgi2 or wsgi", "asgi3?"),
        ("http", "h12", "must be auto, h11", "h11?"),
        ("log_level", "inf", "must be critical", "info?"),
        ("limit_concurrency", 1.5, "must be a whole number", ""),
        ("headers", [["x"]], "must be list[tuple[str, str]] | None", ""),
        ("ssl_certfile", "gone.pem", "there is no such file", "app_dir"),
        ("host", "::", "cannot be passed to uvicorn", "`bind`"),
        ("workers", 3, "cannot be passed to uvicorn", "`workers`"),
        ("reload", True, "cannot be passed to uvicorn", "`reload`"),
        ("reload_dirs", ["x"], "cannot be passed to uvicorn", "`app_dir` is watched"),
        ("timeout_keep_alive", 3, "cannot be passed to uvicorn", "`keepalive`"),
        ("timeout_graceful_shutdown", 3, "cannot be passed to uvicorn", "`grace_period`"),
        ("limit_max_requests", 3, "cannot be passed to uvicorn", "`recycle.max_requests`"),
        ("limit_max_requests_jitter", 3, "cannot be", "`recycle.max_requests_jitter`"),
    ],
)
def test_wrong_options_of_uvicorn(key: str, value: Any, message: str, suggestion: str) -> None:
    """What uvicorn would refuse, or what would fight drumd, is found before the start."""
    found = finding(uvicorn={key: value})
    assert (found.path, found.value) == (("pools", "web", "uvicorn", key), value)
    assert message in found.message
    assert suggestion in found.suggestion


@pytest.mark.parametrize(
    ("key", "value", "message", "suggestion"),
    [
        ("worker_clas", "sync", "is no option of gunicorn", "did you mean worker_class?"),
        ("limit_request_line", "abc", "gunicorn refuses it", ""),
        ("http_protocols", "h9", "gunicorn refuses it", ""),
        ("certfile", "gone.pem", "there is no such file", "app_dir"),
        ("worker_class", "gthred", "must be sync, gthread, gevent or asgi", "gthread?"),
        ("worker_class", "uvicorn_worker.UvicornWorker", "runtime of its own", 'runtime = "uvi'),
        ("worker_class", ["sync"], "must be sync", ""),
        ("workers", 3, "cannot be passed to gunicorn", "`workers`"),
        ("bind", ":1", "cannot be passed to gunicorn", "`bind`"),
        ("threads", 3, "cannot be passed to gunicorn", "`threads`"),
        ("timeout", 3, "cannot be passed to gunicorn", "`health.request_timeout`"),
        ("graceful_timeout", 3, "cannot be passed to gunicorn", "`grace_period`"),
        ("keepalive", 3, "cannot be passed to gunicorn", "`keepalive`"),
        ("preload_app", True, "cannot be passed to gunicorn", "`preload`"),
        ("reload", True, "cannot be passed to gunicorn", "`reload`"),
        ("reload_engine", "poll", "cannot be passed to gunicorn", "`app_dir` is watched"),
        ("daemon", True, "cannot be passed to gunicorn", "foreground"),
        ("user", "nobody", "cannot be passed to gunicorn", "User="),
        ("raw_env", ["A=b"], "cannot be passed to gunicorn", "`environment`"),
        ("control_socket", "/x", "cannot be passed to gunicorn", "socket of its own"),
        ("max_requests", 100, "cannot be passed to gunicorn", "`recycle.max_requests`"),
        ("max_requests_jitter", 9, "cannot be", "`recycle.max_requests_jitter`"),
    ],
)
def test_wrong_options_of_gunicorn(key: str, value: Any, message: str, suggestion: str) -> None:
    """What gunicorn would refuse, or what would fight drumd, is found before the start."""
    found = finding(gunicorn={key: value})
    assert (found.path, found.value) == (("pools", "web", "gunicorn", key), value)
    assert message in found.message
    assert suggestion in found.suggestion


def test_hooks_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook of the worker's passes, one of the master's does not, and neither is imported here."""
    (tmp_path / "user_hooks.py").write_text("def hook(server, worker): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    options, findings = check_options("web", pool(gunicorn={"pre_request": "user_hooks.hook"}))
    assert (options["gunicorn"], findings) == ({"pre_request": "user_hooks.hook"}, [])
    assert "master" in finding(gunicorn={"post_fork": "user_hooks.hook"}).suggestion
    assert "module.function" in finding(gunicorn={"pre_request": "hook"}).message
    assert "user_hooks" not in sys.modules


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_what_is_no_json_cannot_travel(server: str) -> None:
    """A value that JSON cannot hold is refused, since a worker gets its options as JSON."""
    assert "cannot travel" in finding(**{server: {"proc_name": float("nan")}}).message


def test_every_refused_key_is_one_that_the_server_has() -> None:
    """The refusals name parameters and settings that exist, so that none is a typing error."""
    parameters = set(inspect.signature(uvicorn.Config.__init__).parameters)
    assert set(refusals.REFUSED_BY_UVICORN) - {"app_dir"} <= parameters
    assert set(refusals.REFUSED_BY_GUNICORN) | refusals.WORKERS_HOOKS <= set(make_settings())


def test_checking_leaves_logging_alone() -> None:
    """The check of uvicorn's options does not change the loggers of the process that checks."""
    logger = logging.getLogger("uvicorn.error")
    before = (logger.level, list(logger.handlers), logger.propagate)
    check_options("web", pool(uvicorn={"log_level": "critical"}))
    assert (logger.level, list(logger.handlers), logger.propagate) == before


HEAVY = ("fastapi", "uvicorn", "gunicorn", "flask", "starlette", "gevent", "prometheus_client")


def _imported_by(statements: str) -> set[str]:
    listing = f"import sys\n{statements}\nprint(*(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_servers_are_imported_only_when_their_table_is_there() -> None:
    """Loading a config imports a server only where a pool has options for it."""
    load = "from drumd.config.check import render\nfrom drumd.config.loading import load\n"
    flags = '{"pools.web.app": "main:app"}'
    assert _imported_by(f"{load}render(load({flags}, {{}}, None), color=False)") == set()
    environ = '{"DRUMD_POOLS__WEB__UVICORN__ROOT_PATH": "/x"}'
    assert _imported_by(f"{load}load({flags}, {environ}, None)") == {"uvicorn"}
    environ = '{"DRUMD_POOLS__WEB__GUNICORN__PROC_NAME": "x"}'
    assert _imported_by(f"{load}load({flags}, {environ}, None)") == {"gunicorn"}
