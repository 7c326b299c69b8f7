"""What each command of `drumctl` is, and what one run of it is given."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from drumd.supervisor.cli.arguments import Parser
from drumd.supervisor.cli.client import Client
from drumd.supervisor.cli.terminal import Terminal


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a command: whom to ask, what for, and where to show it."""

    client: Client
    given: argparse.Namespace
    out: Terminal
    progress: Terminal
    """For how far something is: stderr, so that stdout has outcomes alone."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of `drumctl`."""

    summary: str
    description: str
    example: str
    arguments: Callable[[Parser], None]
    run: Callable[[Call], int]
