"""The command line of `drumd server`: the model directory, its target, and how it is served."""

import argparse
from typing import TYPE_CHECKING

from drumd.supervisor.cli.arguments import Parser
from drumd.supervisor.cli.modelflags import add_model_flags, said_of_model

if TYPE_CHECKING:
    from drumd.config.modelserver.command import ModelServer

POOL_FLAGS = ("workers", "preload", "start_timeout")
"""Keys of the pool; each is the name of its flag, too."""


def arguments(parser: Parser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add(
        "--address",
        metavar="HOST:PORT",
        help="where to serve (or ADDRESS; default: 127.0.0.1:8000)",
    )
    add_model_flags(parser, or_here=False)
    add("--url-prefix", metavar="PATH", help="what all paths begin with, such as /models/diabetes")
    add("--workers", metavar="N", help="how many, as with `drumd serve` (or CUSTOM_MODEL_WORKERS)")
    add("--preload", action="store_true", default=None, help="load the model once, and fork")
    add("--start-timeout", metavar="T", help="how long a worker may load (default: 10m)")


def model_server(given: argparse.Namespace) -> "ModelServer":
    """Return what was said of the model."""
    # Imported when needed: `--help` and a typing error are to be answered at once.
    from drumd.config.modelserver.command import ModelServer  # noqa: PLC0415

    flags = said_of_model(given)
    if given.url_prefix is not None:
        flags["URL_PREFIX"] = given.url_prefix
    return ModelServer(code_dir=given.code_dir, address=given.address, flags=flags)


def pool_flags(given: argparse.Namespace) -> dict[str, object]:
    """Return what was said of the pool, by the config's keys."""
    from drumd.config.modelserver.command import POOL  # noqa: PLC0415 - as above

    return {f"pools.{POOL}.{key}": getattr(given, key) for key in POOL_FLAGS}
