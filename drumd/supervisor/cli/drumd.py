"""`drumd`: serve an app or a model, run the pools of a config, or check that config."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from drumd import __version__
from drumd.exitcodes import DaemonExit
from drumd.supervisor.cli import scoring, serve, server, validating
from drumd.supervisor.cli.arguments import Parser, UsageError, meant
from drumd.supervisor.reexec.order import VARIABLE
from drumd.supervisor.reexec.stub import enter

if TYPE_CHECKING:
    from drumd.config.loading import Loaded
    from drumd.config.modelserver.command import ModelServer

DEFAULT_CONFIG = "drumd.toml"
"""What `run` and `check` read when it is there and nothing else is named."""

_SUPERVISOR_FLAGS = ("admin_socket", "admin_group", "admin_bind", "log_level", "log_format")


def main(argv: Sequence[str] | None = None) -> int:
    """Run `drumd`; return its exit code (`drumd.exitcodes.DaemonExit`)."""
    if VARIABLE in os.environ:
        return enter()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except UsageError as error:
        print(f"drumd: {error}", file=sys.stderr)
        return DaemonExit.USAGE
    except BrokenPipeError:
        # Whoever read has read enough (`drumd check | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DaemonExit.STOPPED


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        _top_parser().read(arguments)
        raise UsageError("cannot read the command line: no command; see `drumd --help`")
    name, *rest = arguments
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(
            f"cannot read the command line: unknown command {name!r}{meant(name, COMMANDS)}; "
            f"there are {', '.join(COMMANDS)}"
        )
    parser = Parser(f"drumd {name}", command.description, command.example)
    command.arguments(parser)
    given = parser.read(rest)
    if not sys.platform.startswith("linux"):
        raise UsageError(
            f"cannot run on {sys.platform}: drumd needs Linux (pidfd, memfd, reuseport groups); "
            "run it in a container or a virtual machine"
        )
    return command.run(given)


# --- commands -----------------------------------------------------------------------------------


def _serve(given: argparse.Namespace) -> int:
    flags = {**serve.flags(given), **_supervisor_flags(given)}
    return _with_config(flags, _config_path(given), _daemon)


def _serve_model(given: argparse.Namespace) -> int:
    flags = {**server.pool_flags(given), **_supervisor_flags(given)}
    path = None if given.config is None else Path(given.config)
    return _with_config(flags, path, _daemon, server.model_server(given))


def _run_pools(given: argparse.Namespace) -> int:
    return _with_config(_supervisor_flags(given), _config_path(given), _daemon)


def _check(given: argparse.Namespace) -> int:
    flags = {
        **_supervisor_flags(given),
        **({f"pools.{serve.POOL}.app": given.app} if given.app else {}),
    }

    def show(loaded: "Loaded") -> int:
        from drumd.config.check import render  # noqa: PLC0415 - as in _with_config
        from drumd.config.versions import too_old  # noqa: PLC0415 - as in _with_config

        loaded = replace(loaded, warnings=[*loaded.warnings, *too_old()])
        sys.stdout.write(render(loaded, color=_colours(sys.stdout.isatty())))
        sys.stdout.flush()
        return DaemonExit.STOPPED

    return _with_config(flags, _config_path(given), show)


def _daemon(loaded: "Loaded") -> int:
    from drumd.supervisor.running import run_daemon  # noqa: PLC0415 - as in _with_config

    return run_daemon(loaded)


def _with_config(
    flags: Mapping[str, object],
    path: Path | None,
    use: Callable[["Loaded"], int],
    model_server: "ModelServer | None" = None,
) -> int:
    """Load the config and hand it to `use`; an invalid one is told about, with exit code 78."""
    # Imported when needed: `--help` and a typing error are to be answered at once.
    from drumd.config.check import render_problems  # noqa: PLC0415
    from drumd.config.loading import Sources  # noqa: PLC0415
    from drumd.config.problems import ConfigInvalid  # noqa: PLC0415

    try:
        loaded = Sources(
            flags=flags, environ=dict(os.environ), config=path, model_server=model_server
        ).load()
    except ConfigInvalid as error:
        sys.stderr.write(render_problems(error, color=_colours(sys.stderr.isatty())))
        return DaemonExit.CONFIG
    return use(loaded)


def _config_path(given: argparse.Namespace) -> Path | None:
    """Return the file to read: the named one; else the default one, where no app was named."""
    if given.config is not None:
        return Path(given.config)
    # A drumd.toml that happens to be here may have pools beside the app that was asked for.
    default = Path(DEFAULT_CONFIG)
    return default if getattr(given, "app", None) is None and default.exists() else None


def _supervisor_flags(given: argparse.Namespace) -> dict[str, object]:
    return {f"supervisor.{name}": getattr(given, name) for name in _SUPERVISOR_FLAGS}


def _colours(terminal: bool) -> bool:  # noqa: FBT001 - one value in, one out
    return terminal and not os.environ.get("NO_COLOR")


# --- command lines ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """One command of `drumd`."""

    summary: str
    description: str
    example: str
    arguments: Callable[[Parser], None]
    run: Callable[[argparse.Namespace], int]


def _top_parser() -> Parser:
    listed = "\n".join(f"  {name:<8} {command.summary}" for name, command in COMMANDS.items())
    parser = Parser(
        "drumd",
        "Keep pools of Gunicorn or Uvicorn workers serving.\n\n"
        f"commands:\n{listed}\n\n"
        "`drumd COMMAND --help` tells more. A running drumd is operated with `drumctl`.",
        "drumd serve app:app --workers 4 --bind 0.0.0.0:8000",
        usage="drumd COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=f"drumd {__version__}")
    return parser


def _serve_arguments(parser: Parser) -> None:
    serve.arguments(parser)
    _add_supervisor(parser)
    _add_further_config(parser)


def _server_arguments(parser: Parser) -> None:
    server.arguments(parser)
    _add_supervisor(parser)
    _add_further_config(parser)


def _run_arguments(parser: Parser) -> None:
    _add_config(parser)
    _add_supervisor(parser)


def _check_arguments(parser: Parser) -> None:
    parser.add_argument("app", metavar="APP", nargs="?", help="as `drumd serve APP` would have it")
    _add_config(parser)
    _add_supervisor(parser)


def _add_config(parser: Parser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help=f"the config (default: {DEFAULT_CONFIG}, if there)"
    )


def _add_further_config(parser: Parser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="further settings, under flags and environment"
    )


def _add_supervisor(parser: Parser) -> None:
    add = parser.add_argument
    add("--admin-socket", metavar="PATH", help="for drumctl (default: a directory of this user's)")
    add("--admin-group", metavar="G", help="a group whose members may use drumctl")
    add("--admin-bind", metavar="ADDR", help="host:port for /metrics, /livez and /readyz")
    add("--log-level", metavar="L", help="debug, info, warning or error (default: info)")
    add("--log-format", metavar="F", help="auto, console or json (default: by the terminal)")


COMMANDS = {
    "serve": Command(
        "serve one app with a pool of workers",
        "Serve APP with one pool, named `web`. Values are checked as in a config file; durations\n"
        "are written as 30s or 2m.",
        "drumd serve app:app --workers 4 --bind 0.0.0.0:8000\n"
        "drumd serve shop.wsgi:application --runtime gunicorn --threads 8",
        _serve_arguments,
        _serve,
    ),
    "server": Command(
        "serve a model directory",
        "Serve the model in DIR over HTTP, with the server that its runtime parameter\n"
        "DRUM_SERVER_TYPE names: flask (development), gunicorn or fastapi. Flags are above the\n"
        "environment, that is above the file of runtime parameters.",
        "drumd server --code-dir model --address 0.0.0.0:8000 --target-type regression",
        _server_arguments,
        _serve_model,
    ),
    "run": Command(
        "run the pools of a config file",
        "Run the pools of drumd.toml, or of another file.",
        "drumd run --config /etc/drumd/drumd.toml",
        _run_arguments,
        _run_pools,
    ),
    "check": Command(
        "show the resolved config, or all that is wrong with it",
        "Print the config as drumd would use it, with where each value came from. Exit code: 0\n"
        "valid, 78 invalid, with all problems at once.",
        "drumd check --config drumd.toml\ndrumd check app:app",
        _check_arguments,
        _check,
    ),
    "score": Command(
        "score a file with a model",
        scoring.DESCRIPTION,
        scoring.EXAMPLE,
        scoring.arguments,
        scoring.run,
    ),
    "validate": Command(
        "try a model out, and say what to fix",
        validating.DESCRIPTION,
        validating.EXAMPLE,
        validating.arguments,
        validating.run,
    ),
}

if __name__ == "__main__":
    sys.exit(main())
