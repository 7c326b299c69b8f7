"""Options of uvicorn and gunicorn that would fight the supervisor, and what to do instead.

Written against uvicorn 0.54 and gunicorn 27.0.
"""

_ROOT = "leave the user to what starts drumd, such as User= and Group= of systemd"
_OWN_CHANNEL = "drumd talks to its workers over a socket of its own, and needs no file"
MASTERS_HOOK = (
    "gunicorn's master would call it, and drumd takes its place; see post_worker_init, "
    "and with preload `before_fork` and `after_fork` of the pool"
)

WORKERS_HOOKS = frozenset(
    {
        "post_worker_init",
        "pre_request",
        "post_request",
        "worker_int",
        "worker_abort",
        "ssl_context",
    }
)
"""Hooks of gunicorn's that a worker calls, given as `module.function`."""
_LOGGING = "set up logging in the app; drumd collects what it writes"


def _use(key: str) -> str:
    return f"set `{key}` of the pool"


_RELOAD = f"{_use('reload')} or serve with --reload; in production see `drumctl reload`"
_RELOAD_FILES = f"{_use('reload')}: the code in `app_dir` is watched"

REFUSED_BY_UVICORN = {
    "app": _use("app"),
    "app_dir": _use("app_dir"),
    "host": _use("bind"),
    "port": _use("bind"),
    "uds": _use("bind"),
    "fd": _use("bind"),
    "workers": _use("workers"),
    "backlog": _use("backlog"),
    "env_file": _use("environment"),
    "access_log": _use("access_log"),
    "timeout_keep_alive": _use("keepalive"),
    "timeout_graceful_shutdown": _use("grace_period"),
    "timeout_worker_healthcheck": _use("health.hang_timeout"),
    "callback_notify": "drumd's workers beat by themselves, see [pools.NAME.health]",
    "timeout_notify": "drumd's workers beat by themselves, see [pools.NAME.health]",
    "limit_max_requests": _use("recycle.max_requests"),
    "limit_max_requests_jitter": _use("recycle.max_requests_jitter"),
    "log_config": _LOGGING,
    "reload": _RELOAD,
    "reload_dirs": _RELOAD_FILES,
    "reload_delay": _RELOAD_FILES,
    "reload_includes": _RELOAD_FILES,
    "reload_excludes": _RELOAD_FILES,
    "ssl_context_factory": "name files by ssl_certfile and ssl_keyfile",
}

REFUSED_BY_GUNICORN = {
    "bind": _use("bind"),
    "reuse_port": _use("balance"),
    "workers": _use("workers"),
    "threads": _use("threads"),
    "backlog": _use("backlog"),
    "keepalive": _use("keepalive"),
    "timeout": _use("health.request_timeout"),
    "graceful_timeout": _use("grace_period"),
    "chdir": _use("app_dir"),
    "pythonpath": _use("app_dir"),
    "wsgi_app": _use("app"),
    "raw_env": _use("environment"),
    "preload_app": _use("preload"),
    "max_requests": _use("recycle.max_requests"),
    "max_requests_jitter": _use("recycle.max_requests_jitter"),
    "reload": _RELOAD,
    "reload_engine": _RELOAD_FILES,
    "reload_extra_files": _RELOAD_FILES,
    "daemon": "drumd stays in the foreground; let systemd or the container run it",
    "pidfile": "drumd writes none; systemd and `drumctl status` know the pid",
    "worker_tmp_dir": _OWN_CHANNEL,
    "control_socket": _OWN_CHANNEL,
    "control_socket_mode": _OWN_CHANNEL,
    "control_socket_disable": _OWN_CHANNEL,
    "user": _ROOT,
    "group": _ROOT,
    "initgroups": _ROOT,
    "umask": "leave it to what starts drumd, such as UMask= of systemd",
    "config": "write its settings into this table",
    "check_config": "run `drumd check`",
    "print_config": "run `drumd check`",
    "paste": _use("app"),
    "raw_paste_global_conf": _use("app"),
    "spew": "trace the app from within",
    "logconfig": _LOGGING,
    "logconfig_dict": _LOGGING,
    "logconfig_json": _LOGGING,
    "capture_output": "drumd collects what workers write in any case",
    "enable_stdio_inheritance": "drumd collects what workers write in any case",
}
