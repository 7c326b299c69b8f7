"""The command line of `drumd serve`: one app, and how its pool is run."""

import argparse

from drumd.supervisor.cli.arguments import Parser

POOL = "web"
"""The name of the one pool."""

_POOL_FLAGS = (
    "runtime",
    "workers",
    "bind",
    "app_dir",
    "threads",
    "preload",
    "spares",
    "reload",
    "balance",
    "access_log",
    "start_timeout",
    "health.startup_probe",
    "grace_period",
    "stop_timeout",
    "keepalive",
    "backlog",
)
"""Keys of the pool; the last part of each is the flag's name."""


def flags(given: argparse.Namespace) -> dict[str, object]:
    """Return what was given on the command line, by the config's keys."""
    said = {key: getattr(given, key.split(".")[-1]) for key in _POOL_FLAGS}
    return {f"pools.{POOL}.{key}": value for key, value in {"app": given.app, **said}.items()}


def arguments(parser: Parser) -> None:
    """Add the app, and the flags of its pool."""
    add = parser.add_argument
    add("app", metavar="APP", help="the app, as module:attribute")
    add("--runtime", metavar="R", help="auto, uvicorn, gunicorn or flask (default: by the app)")
    add(
        "--workers",
        metavar="N",
        help="how many; 2-8: by the load; auto: by the CPUs there are (default: 1)",
    )
    add(
        "--bind",
        metavar="ADDR",
        action="append",
        help="host:port, [v6]:port, unix:PATH or fd://N; may be repeated (default: 127.0.0.1:8000)",
    )
    add("--app-dir", metavar="DIR", help="where the app is imported from (default: here)")
    add("--threads", metavar="N", help="requests a WSGI worker serves at once (default: 4)")
    add("--preload", action="store_true", default=None, help="import once, and fork the workers")
    add("--spares", metavar="N", help="ready workers that wait to replace others (default: 0)")
    add(
        "--reload",
        action="store_true",
        default=None,
        help="development: watch the code, and roll out each change",
    )
    add("--balance", metavar="B", help="auto, shared or per-slot (default: by the runtime)")
    add("--access-log", action="store_true", default=None, help="log each request")
    add("--keepalive", metavar="T", help="how long idle connections stay open (default: 75s)")
    add("--backlog", metavar="N", help="connections that may wait to be accepted (default: 2048)")
    add("--start-timeout", metavar="T", help="how long a worker may load (default: 60s)")
    add(
        "--startup-probe",
        metavar="PATH",
        help="a GET of it must be answered with 2xx or 3xx before a worker is ready",
    )
    add("--grace-period", metavar="T", help="how long a worker may drain (default: 25s)")
    add("--stop-timeout", metavar="T", help="time between SIGTERM and SIGKILL (default: 3s)")
