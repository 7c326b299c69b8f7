"""The commands of `drumctl`: what each takes, and what it does."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from drumd.exitcodes import ControlExit
from drumd.supervisor.cli.arguments import Parser, UsageError, meant
from drumd.supervisor.cli.client import Client, ControlError
from drumd.supervisor.cli.outcome import await_daemons_end, await_operation, title
from drumd.supervisor.cli.tables import render_status
from drumd.supervisor.cli.terminal import Terminal
from drumd.supervisor.observe.console import ConsoleRenderer, escape


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


_LAST_EVENTS = frozenset({"daemon.stopping", "daemon.stopped"})
"""What a daemon that ends in good order says first: of `Happened`, but `drumctl` imports little."""

# --- what they do -------------------------------------------------------------------------------


def _status(call: Call) -> int:
    document = call.client.get("/status")
    if call.given.json:
        print(json.dumps(document, indent=2))
    else:
        print(render_status(document, call.out))
    return ControlExit.OK if document.get("state") == "ready" else ControlExit.DEGRADED


def _restart(call: Call) -> int:
    targets = [_pool_and_slot(target) for target in call.given.target]
    # The daemon itself refuses a single wrong name; of several, none may be restarted before all
    # are known to be right.
    if len(targets) != 1:
        pools = {pool["name"]: pool for pool in call.client.get("/status")["pools"]}
        wrong = [why for target in targets if (why := _unknown(*target, pools))]
        if wrong:
            raise ControlError(
                f"cannot find {'; nor '.join(wrong)}; nothing was restarted", ControlExit.USAGE
            )
        targets = targets or [(name, None) for name in pools]
    return _operate(call, [(*target, "restart") for target in targets])


def _reload(call: Call) -> int:
    body = {"pool": call.given.pool} if call.given.pool else None
    begun = call.client.post("/reload", body)
    for note in begun["notes"]:
        call.progress.line(escape(note))
    return _see_through(call, begun["operations"], [])


def _unknown(pool: str, body: dict[str, Any] | None, pools: dict[str, dict[str, Any]]) -> str:
    """Return why a target cannot be in `pools`, or nothing.

    A slot that is not there may come with an operation that waits: the daemon then decides.
    """
    if pool not in pools:
        return f"pool {pool!r}: the pools are {', '.join(pools)}{meant(pool, pools)}"
    status = pools[pool]
    size = max(int(status["size"]), len(status["slots"]))
    if body is None or body["slot"] < size or status["operation"]:
        return ""
    there = f"the slots of {pool} are 0 to {size - 1}" if size else f"{pool} has no slots"
    return f"slot {pool}/{body['slot']}: {there}"


def _stop(call: Call) -> int:
    if call.given.pool:
        return _operate(call, [(call.given.pool, None, "stop")])
    if call.given.no_wait:
        call.client.post("/stop")
        print("drumd stops")
        return ControlExit.OK
    return await_daemons_end(call.client, call.out, call.progress)


def _start(call: Call) -> int:
    return _operate(call, [(call.given.pool, None, "start")])


def _scale(call: Call) -> int:
    return _operate(call, [(call.given.pool, {"size": call.given.size}, "scale")])


def _wait(call: Call) -> int:
    operation = call.client.get(f"/operations/{call.given.id}")
    return _outcome(call, operation)


def _cancel(call: Call) -> int:
    operation = call.client.delete(f"/operations/{call.given.id}")
    if not operation["final"]:
        operation = call.client.get(
            f"/operations/{call.given.id}", patience=10, wait=10, seen=operation["reading"]
        )
    cancelled = operation["state"] == "cancelled"
    if call.given.json:
        print(json.dumps(operation, indent=2))
    else:
        print(f"{title(operation)}: {operation['state']}, {escape(operation['reason'])}")
    return ControlExit.OK if cancelled else ControlExit.DEGRADED


def _events(call: Call) -> int:
    render = ConsoleRenderer(colours=call.out.colours, dated=True)
    # One request for both: between two, events could be lost.
    query = {"last": call.given.last, "follow": str(call.given.follow).lower()}
    ending = False
    for entry in _entries(call.client, query):
        if call.given.json:
            print(json.dumps(entry))
        elif "lost" in entry:
            print(f"… {entry['lost']} older events are no longer kept …")
        else:
            print(render(None, "", {"level": "info", **entry}))
        ending |= entry.get("event") in _LAST_EVENTS
        if call.given.follow:
            sys.stdout.flush()
    if call.given.follow and not ending:
        raise ControlError(
            "cannot follow events any more: drumd is gone (killed or crashed); see its service's "
            "log",
            ControlExit.NOT_RUNNING,
        )
    return ControlExit.OK


def _entries(client: Client, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield events until the daemon ends: a re-exec ends the stream, but not the journal."""
    since = client.get("/status")["since"] if query["follow"] == "true" else None
    seq = 0
    while True:
        entry: dict[str, Any] = {}
        for entry in client.lines("/events", **query):
            yield entry
            seq = entry.get("seq", seq)
        if since is None or not seq or entry.get("event") in _LAST_EVENTS:
            return
        with contextlib.suppress(ControlError):
            if client.get("/status")["since"] == since:
                query = {"since": seq, "follow": "true"}
                continue
        return


def _re_exec(call: Call) -> int:
    operation = call.client.post("/re-exec")
    if call.given.no_wait:
        text = f"{title(operation)}: {operation['id']}, {operation['state']}"
        print(json.dumps(operation, indent=2) if call.given.json else text)
        return ControlExit.OK
    return _outcome(call, operation)


def _metrics(call: Call) -> int:
    sys.stdout.buffer.write(call.client.text("/metrics", patience=20.0))
    sys.stdout.buffer.flush()
    return ControlExit.OK


def _operate(call: Call, wanted: list[tuple[str, dict[str, Any] | None, str]]) -> int:
    """Submit operations, all before any is waited for; return the worst outcome.

    One that is refused does not hide what becomes of the others.
    """
    operations, refusals = [], []
    for pool, body, verb in wanted:
        try:
            operations.append(_submit(call, pool, body, verb))
        except ControlError as error:
            if len(wanted) == 1 or error.code is ControlExit.NOT_RUNNING:
                raise
            call.progress.line(f"drumctl: {error}")
            refusals.append(error.code)
    return _see_through(call, operations, refusals)


def _see_through(
    call: Call, operations: list[dict[str, Any]], refusals: Sequence[ControlExit]
) -> int:
    """Wait for operations, unless told not to; return the worst outcome."""
    if call.given.no_wait:
        for operation in operations:
            text = f"{title(operation)}: {operation['id']}, {operation['state']}"
            print(json.dumps(operation, indent=2) if call.given.json else text)
        return max(refusals, default=ControlExit.OK)
    outcomes = [_outcome(call, operation) for operation in operations]
    return max([*refusals, *outcomes], default=ControlExit.OK)


def _submit(call: Call, pool: str, body: dict[str, Any] | None, verb: str) -> dict[str, Any]:
    try:
        operation: dict[str, Any] = call.client.post(f"/pools/{pool}/{verb}", body)
    except ControlError as error:
        if not error.known:
            raise
        slot = (body or {}).get("slot")
        word = pool if slot is None else f"{pool}/{slot}"
        hint = "" if "did you mean" in str(error) else meant(word, error.known)
        raise ControlError(f"{error}{hint}", error.code, error.known) from error
    return operation


def _outcome(call: Call, operation: dict[str, Any]) -> int:
    return await_operation(call.client, operation, call.out, call.progress, as_json=call.given.json)


def _pool_and_slot(target: str) -> tuple[str, dict[str, Any] | None]:
    pool, slash, slot = target.partition("/")
    if not slash:
        return pool, None
    if not (slot.isascii() and slot.isdigit()):
        raise UsageError(
            f"cannot read {target!r}: write POOL, or POOL/SLOT with the slot's number, as {pool}/0"
        )
    return pool, {"slot": int(slot)}


# --- what they take -----------------------------------------------------------------------------


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
    parser.add_argument("pool", metavar="POOL", nargs="?", help="the pool (default: the daemon)")
    _add_no_wait(parser)


def _start_arguments(parser: Parser) -> None:
    parser.add_argument("pool", metavar="POOL", help="the pool")
    _add_no_wait(parser)


def _scale_arguments(parser: Parser) -> None:
    parser.add_argument("pool", metavar="POOL", help="the pool")
    parser.add_argument("size", metavar="N", type=_whole_number, help="how many workers")
    _add_no_wait(parser)


def _id_arguments(parser: Parser) -> None:
    parser.add_argument("id", metavar="ID", help="the operation, as it was shown")


def _events_arguments(parser: Parser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what happens next")
    parser.add_argument(
        "-n", "--last", metavar="N", type=_whole_number, default=50, help="how many (default: 50)"
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
        _status,
    ),
    "restart": Command(
        "replace workers by new ones, without a gap",
        "Replace the workers of a pool, or of one slot: each new one is ready before the old one\n"
        "goes. The exit code is the outcome.",
        "drumctl restart web\ndrumctl restart web/0",
        _restart_arguments,
        _restart,
    ),
    "reload": Command(
        "read the config again, and roll out new code",
        "Read the config again and roll out what it changes; with the same config the code on\n"
        "disk is rolled out to every pool, and with POOL to that pool in any case. New workers\n"
        "are ready before old ones go, and when they fail the old ones stay.",
        "drumctl reload\ndrumctl reload web",
        _reload_arguments,
        _reload,
    ),
    "stop": Command(
        "stop a pool, or the daemon",
        "Stop a pool: its workers finish their requests and go, its sockets stay. Without a pool\n"
        "the daemon itself stops.",
        "drumctl stop web\ndrumctl stop",
        _stop_arguments,
        _stop,
    ),
    "start": Command(
        "start a pool that was stopped",
        "Start a pool that was stopped.",
        "drumctl start web",
        _start_arguments,
        _start,
    ),
    "scale": Command(
        "change how many workers a pool has",
        "Change how many workers a pool has, until the daemon ends: the config stays as it is.",
        "drumctl scale web 4",
        _scale_arguments,
        _scale,
    ),
    "events": Command(
        "show what happened, and why",
        "Show the newest events of the journal, oldest first.",
        "drumctl events -n 100\ndrumctl events -f --json",
        _events_arguments,
        _events,
    ),
    "re-exec": Command(
        "replace drumd's own program, without touching its workers",
        "Have drumd execute its program anew, by the command that it was started with: so another\n"
        "version takes over workers and sockets, under the same pid. It is asked first whether it\n"
        "can; if not, the old one carries on, and the exit code is 1.",
        "drumctl re-exec",
        _add_no_wait,
        _re_exec,
    ),
    "wait": Command(
        "wait for an operation",
        "Wait for an operation that goes on; the exit code is its outcome.",
        "drumctl wait web-3",
        _id_arguments,
        _wait,
    ),
    "cancel": Command(
        "cancel an operation",
        "Cancel an operation; what it has done stays done.",
        "drumctl cancel web-3",
        _id_arguments,
        _cancel,
    ),
    "metrics": Command(
        "print the metrics, as Prometheus reads them",
        "Print the metrics of the daemon and of the apps, in Prometheus's text format.",
        "drumctl metrics | grep drumd_requests_total",
        _nothing,
        _metrics,
    ),
}
