"""The commands of `drumctl` that ask and change nothing."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from drumd.exitcodes import ControlExit
from drumd.supervisor.cli.call import Call
from drumd.supervisor.cli.client import Client, ControlError
from drumd.supervisor.cli.tables import render_status
from drumd.supervisor.observe.console import ConsoleRenderer

_LAST_EVENTS = frozenset({"daemon.stopping", "daemon.stopped"})
"""What a daemon that ends in good order says first: of `Happened`, but `drumctl` imports little."""


def status(call: Call) -> int:
    """Show the daemon, its pools and their workers."""
    document = call.client.get("/status")
    if call.given.json:
        print(json.dumps(document, indent=2))
    else:
        print(render_status(document, call.out))
    return ControlExit.OK if document.get("state") == "ready" else ControlExit.DEGRADED


def events(call: Call) -> int:
    """Show what happened, and with `--follow` what happens next."""
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


def metrics(call: Call) -> int:
    """Print the metrics as they are."""
    sys.stdout.buffer.write(call.client.text("/metrics", patience=20.0))
    sys.stdout.buffer.flush()
    return ControlExit.OK


def config(call: Call) -> int:
    """Print the config in force, or what a reload would change; that has `diff`'s exit code."""
    if call.given.what is None:
        _print_config(call, "/config")
        return ControlExit.OK
    try:
        changed = _print_config(call, "/config/changes")["changed"]
    except ControlError as error:
        if error.code is not ControlExit.DEGRADED:
            raise
        # 1 says that something has changed, and here that cannot be told.
        raise ControlError(str(error), ControlExit.UNKNOWN) from error
    return ControlExit.DEGRADED if changed else ControlExit.OK


def _print_config(call: Call, path: str) -> dict[str, object]:
    # Reading the file again may take some time where it is on a slow disk.
    color = call.out.colours and not call.given.json
    document: dict[str, object] = call.client.get(path, patience=20.0, color=str(color).lower())
    text = document.pop("text")
    print(json.dumps(document, indent=2) if call.given.json else str(text).rstrip("\n"))
    return document
