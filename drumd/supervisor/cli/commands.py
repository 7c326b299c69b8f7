"""The commands of `drumctl`: what each takes, and where it is done."""

import argparse

from drumd.supervisor.cli import asking, operating
from drumd.supervisor.cli.arguments import Parser
from drumd.supervisor.cli.call import Command


def _nothing(_: Parser) -> None:
    pass


def _add_no_wait(parser: Parser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the outcome")


def _restart_arguments(parser: Parser) -> None:
    parser.add_argument(
        "target", metavar="POOL[/SLOT]", nargs="*", help="what to restart (default: every pool)"
    )
    _add_no_wait(parser)


def _reload_arguments(parser: Parser) -> None:
    parser.add_argument(
        "pool", metavar="POOL", nargs="?", help="the pool (default: what the config changes)"
    )
    _add_no_wait(parser)


def _stop_arguments(parser: Parser) -> None:
    parser.add_argument("pool", metavar="POOL", nargs="?", help="the pool")
    parser.add_argument("--all", action="store_true", help="drumd itself, with all its pools")
    _add_no_wait(parser)


def _start_arguments(parser: Parser) -> None:
    parser.add_argument("pool", metavar="POOL", help="the pool")
    _add_no_wait(parser)


def _scale_arguments(parser: Parser) -> None:
    parser.add_argument("pool", metavar="POOL", help="the pool")
    parser.add_argument("size", metavar="N", type=_whole_number, help="how many workers")
    _add_no_wait(parser)


def _id_arguments(parser: Parser) -> None:
    parser.add_argument("id", metavar="ID", nargs="+", help="the operation, as it was shown")


def _events_arguments(parser: Parser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what happens next")
    parser.add_argument(
        "-n", "--last", metavar="N", type=_whole_number, default=50, help="how many (default: 50)"
    )


def _config_arguments(parser: Parser) -> None:
    parser.add_argument(
        "what", metavar="diff", nargs="?", choices=["diff"], help="show what a reload would change"
    )


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


COMMANDS = {
    "status": Command(
        "show pools and workers",
        "Show the daemon, its pools and their workers. Exit code: 0 all ready, 1 degraded,\n"
        "3 not running, 4 unknown.",
        "drumctl status\ndrumctl status --json | jq '.pools[].state'",
        _nothing,
        asking.status,
    ),
    "restart": Command(
        "replace workers by new ones, without a gap",
        "Replace the workers of a pool, or of one slot: each new one is ready before the old one\n"
        "goes. The exit code is the outcome.",
        "drumctl restart web\ndrumctl restart web/0",
        _restart_arguments,
        operating.restart,
    ),
    "reload": Command(
        "read the config again, and roll out new code",
        "Read the config again and roll out what it changes; with the same config the code on\n"
        "disk is rolled out to every pool, and with POOL to that pool in any case. New workers\n"
        "are ready before old ones go, and when they fail the old ones stay: then the exit code\n"
        "is 1. Ctrl-C ends the waiting alone; `drumctl cancel ID` calls it off.",
        "drumctl reload\ndrumctl reload web",
        _reload_arguments,
        operating.reload,
    ),
    "stop": Command(
        "stop a pool, or the daemon",
        "Stop a pool: its workers finish their requests and go, its sockets stay. Without a pool\n"
        "drumd itself stops; on a terminal you are asked first, unless you say --all.",
        "drumctl stop web\ndrumctl stop --all",
        _stop_arguments,
        operating.stop,
    ),
    "start": Command(
        "start a pool that was stopped",
        "Start a pool that was stopped.",
        "drumctl start web",
        _start_arguments,
        operating.start,
    ),
    "scale": Command(
        "change how many workers a pool has",
        "Change how many workers a pool has, until the daemon ends: the config stays as it is.",
        "drumctl scale web 4",
        _scale_arguments,
        operating.scale,
    ),
    "config": Command(
        "show the config in force, or what a reload would change",
        "Print the config as drumd runs with it, and where each value came from; of `drumd\n"
        "server` also the target and the runtime parameters. With `diff`, print what a reload\n"
        "would change, and what each key takes: nothing (live), new workers, sockets, or a\n"
        "restart of drumd. Exit code of `diff`: 0 nothing, 1 something, 4 it cannot be told,\n"
        "such as when the file is invalid.",
        "drumctl config\ndrumctl config diff && echo nothing to reload",
        _config_arguments,
        asking.config,
    ),
    "events": Command(
        "show what happened, and why",
        "Show the newest events of the journal, oldest first.",
        "drumctl events -n 100\ndrumctl events -f --json",
        _events_arguments,
        asking.events,
    ),
    "re-exec": Command(
        "replace drumd's own program, without touching its workers",
        "Have drumd execute its program anew, by the command that it was started with: so another\n"
        "version takes over workers and sockets, under the same pid. It is asked first whether it\n"
        "can; if not, the old one carries on, and the exit code is 1.",
        "drumctl re-exec",
        _add_no_wait,
        operating.re_exec,
    ),
    "wait": Command(
        "wait for an operation",
        "Wait for an operation that goes on; the exit code is its outcome.",
        "drumctl wait web-3",
        _id_arguments,
        operating.wait,
    ),
    "cancel": Command(
        "cancel an operation",
        "Cancel an operation; what it has done stays done.",
        "drumctl cancel web-3",
        _id_arguments,
        operating.cancel,
    ),
    "metrics": Command(
        "print the metrics, as Prometheus reads them",
        "Print the metrics of the daemon and of the apps, in Prometheus's text format.",
        "drumctl metrics | grep drumd_requests_total",
        _nothing,
        asking.metrics,
    ),
}
