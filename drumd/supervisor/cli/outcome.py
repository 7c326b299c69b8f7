"""Waiting for what was asked for: progress while it goes on, then its outcome as an exit code."""

import contextlib
import json
import os
import select
import time
from collections.abc import Iterator
from typing import Any

from drumd.exitcodes import ControlExit
from drumd.supervisor.cli.client import Client, ControlError
from drumd.supervisor.cli.terminal import GREEN, RED, Terminal
from drumd.supervisor.observe.console import escape

_POLL = 20.0
"""Seconds of one long poll; the daemon answers as soon as something changes."""
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def await_operation(
    client: Client, operation: dict[str, Any], out: Terminal, progress: Terminal, *, as_json: bool
) -> int:
    """Show how an operation goes on until it has ended, then its outcome; return the exit code.

    Ctrl-C ends the waiting, not the operation.
    """
    identity = operation["id"]
    try:
        while not operation["final"]:
            if not as_json:
                progress.progress(_progress(operation, progress))
            operation = client.get(
                f"/operations/{identity}", patience=_POLL, wait=_POLL, seen=operation["reading"]
            )
    except KeyboardInterrupt:
        progress.line(
            f"{identity} goes on without you; `drumctl wait {identity}` waits for it, "
            f"`drumctl cancel {identity}` cancels it"
        )
        return INTERRUPTED
    except ControlError as error:
        if error.code is not ControlExit.NOT_RUNNING:
            raise
        raise ControlError(
            f"cannot learn how {identity} ended: the daemon on {client.path} is gone",
            ControlExit.UNKNOWN,
        ) from error
    progress.clear()
    done = operation["state"] == "done"
    if as_json:
        out.line(json.dumps(operation, indent=2))
    else:
        state = out.paint(str(operation["state"]), GREEN if done else RED)
        out.line(f"{title(operation)}: {state}, {escape(operation['reason'])}")
    return ControlExit.OK if done else ControlExit.DEGRADED


def await_daemons_end(client: Client, out: Terminal, progress: Terminal) -> int:
    """Ask the daemon to stop and show its events until its process has ended."""
    # All is had before the request: afterwards the daemon may be gone at any moment.
    pid = client.daemon_pid()
    newest = list(client.lines("/events", last=1))
    events = client.lines("/events", since=newest[-1]["seq"] if newest else 0, follow="true")
    with _exit_of(pid) as gone:
        client.post("/stop")
        try:
            for entry in events:
                if "reason" in entry:
                    progress.progress(escape(_told(entry)))
            _wait_for_exit(gone, client)
        except KeyboardInterrupt:
            progress.line("the daemon goes on stopping; `drumctl status` shows how far it is")
            return INTERRUPTED
    progress.clear()
    out.line(f"drumd pid {pid} has stopped" if pid else "drumd has stopped")
    return ControlExit.OK


def _told(entry: dict[str, Any]) -> str:
    where = "/".join(str(entry[key]) for key in ("pool", "slot") if key in entry)
    first, *_ = entry["reason"].splitlines() or [""]
    return f"{' '.join(filter(None, [entry['event'], where]))}: {first}"


def title(operation: dict[str, Any]) -> str:
    """Return what an operation is, in a few words."""
    where = operation["pool"]
    if operation.get("slot") is not None:
        where += f"/{operation['slot']}"
    to = f" to {operation['size']}" if operation.get("size") is not None else ""
    return f"{operation['kind']} {where}{to}".rstrip()


def _progress(operation: dict[str, Any], terminal: Terminal) -> str:
    done, total = operation["progress"]
    count = f"{done}/{total} " if total else ""
    head = f"{title(operation)} {terminal.bar(done, total)}{count}"
    state, reason = operation["state"], operation["reason"]
    if reason == state:  # it waits, and there is no more to say
        return f"{head.rstrip()}: {state}"
    return f"{head}{state}: {escape(reason)}"


@contextlib.contextmanager
def _exit_of(pid: int) -> Iterator[int | None]:
    """Give an fd that is readable once process `pid` has exited; None where it cannot be seen."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _wait_for_exit(gone: int | None, client: Client) -> None:
    if gone is not None:
        select.select([gone], [], [])
        return
    # A daemon in another pid namespace: its socket is what can be seen of it.
    with contextlib.suppress(ControlError):
        while True:
            client.daemon_pid()
            time.sleep(0.1)
