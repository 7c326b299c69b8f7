"""Two values for each key of the settings, both valid, so that tests can go over all keys."""

from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from drumd.config.effects import Effect
from drumd.config.settings import PoolSettings, SupervisorSettings

SUPERVISOR: dict[str, tuple[Any, Any]] = {
    "admin_socket": ("/run/a.sock", "/run/b.sock"),
    "admin_group": (None, "root"),
    "admin_bind": (None, "127.0.0.1:9090"),
    "log_level": ("info", "debug"),
    "log_format": ("console", "json"),
    "journal_size": (1000, 2000),
}

POOL: dict[str, tuple[Any, Any]] = {
    "app": ("main:app", "other:app"),
    "app_dir": ("/", "/usr"),
    "runtime": ("uvicorn", "gunicorn"),
    "workers": (3, {"min": 2, "max": 8}),
    "worker_memory": ("400MB", "1GiB"),
    "threads": (4, 8),
    "preload": (True, False),
    "before_fork": (None, "hooks:close"),
    "after_fork": (None, "hooks:renew"),
    "spares": (0, 1),
    "bind": ("127.0.0.1:8000", [":8001", "unix:/run/x.sock"]),
    "backlog": (2048, 100),
    "balance": ("auto", "shared"),
    "keepalive": ("75s", "1m30s"),
    "essential": (True, False),
    "access_log": (False, True),
    "app_metrics": (True, False),
    "reload": (False, True),
    "start_timeout": ("60s", "5m"),
    "grace_period": ("25s", "30s"),
    "linger": ("2s", "500ms"),
    "stop_timeout": ("3s", "1.5s"),
    "health.stall_after": ("1s", "250ms"),
    "health.hang_timeout": ("30s", "40s"),
    "health.request_timeout": ("2m", "1h30m"),
    "health.startup_probe": (None, "/healthz?deep=1"),
    "restart.intensity": (4, 0),
    "restart.period": ("60s", "2m"),
    "restart.backoff_initial": ("100ms", "50ms"),
    "restart.backoff_max": ("30s", "60s"),
    "restart.stable_after": ("10s", "20s"),
    "restart.retry_after": ("5m", "10m"),
    "restart.on_exhausted": ("degrade", "exit"),
    "rollout.max_surge": (1, 2),
    "rollout.max_unavailable": (0, 1),
    "rollout.min_ready": ("1s", "500ms"),
    "rollout.memory": ("refuse", "no-surge"),
    "recycle.max_requests": (None, 10_000),
    "recycle.max_requests_jitter": (0, 500),
    "recycle.max_age": (None, "1d"),
    "recycle.max_age_jitter": (0, "1h"),
    "recycle.max_memory": (None, "1.5GB"),
    "scale.up_at": (0.8, 0.75),
    "scale.down_at": (0.3, 0),
    "scale.queue": (1, 4),
    "scale.up_after": ("5s", 0),
    "scale.down_after": ("60s", "2m"),
    "scale.cooldown": ("15s", "1s"),
    "environment.LANG": ("C", "de"),
    "environment.API_TOKEN": ("hunter2", "hunter3"),
    "environment.odd name": (None, 'a"b'),
    "uvicorn.root_path": (None, "/api"),
    "uvicorn.headers": (None, [["x", "y"]]),
    "gunicorn.proc_name": ("one", "two"),
    "gunicorn.secure_scheme_headers": ({"A": "b"}, {"A": "c"}),
}
"""None: it is not set. The keys of the last three tables are the operator's own."""

EFFECTS = {
    Effect.RESTART: {f"supervisor.{key}" for key in SUPERVISOR if key != "log_level"},
    Effect.SOCKETS: {"pools.web.bind", "pools.web.balance"},
    Effect.NEW_WORKERS: {
        f"pools.web.{key}"
        for key in POOL
        if key.startswith(("environment.", "uvicorn.", "gunicorn.", "app", "before_", "after_"))
        or key in ("runtime", "threads", "preload", "backlog", "keepalive", "access_log")
    },
}
"""What a change of each key takes; of those that are not named here: nothing."""


def values(choices: dict[str, tuple[Any, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw one of the two values for each key."""
    return st.fixed_dictionaries({key: st.sampled_from(pair) for key, pair in choices.items()})


def settings_of(values: dict[str, Any]) -> dict[str, Any]:
    """Return the nested tables that values by dotted key make, without what is not set."""
    tables: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".", 1) if "." in key else [key]
        table = tables
        for part in path:
            table = table.setdefault(part, {})
        if value is not None:
            table[name] = value
    return tables


def all_keys(model: type[BaseModel]) -> Iterator[str]:
    """Yield the dotted keys of a table and of the tables in it."""
    for name, known in model.model_fields.items():
        if isinstance(known.annotation, type) and issubclass(known.annotation, BaseModel):
            yield from (f"{name}.{key}" for key in all_keys(known.annotation))
        else:
            yield name


def covered(values: dict[str, Any], model: type[BaseModel]) -> bool:
    """Tell whether there are values for each key that the settings have, and for no other."""
    free = ("environment", "uvicorn", "gunicorn")
    named = {key.split(".")[0] if key.startswith(free) else key for key in values}
    return named == set(all_keys(model))


assert covered(POOL, PoolSettings), set(all_keys(PoolSettings)) - set(POOL)
assert covered(SUPERVISOR, SupervisorSettings), set(all_keys(SupervisorSettings)) - set(SUPERVISOR)
