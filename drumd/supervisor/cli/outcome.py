"""Waiting for what was asked for: progress while it goes on, then its outcome as an exit code."""

import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from drumd.exitcodes import ControlExit
from drumd.supervisor.cli.bars import bar
from drumd.supervisor.cli.client import Client, ControlError
from drumd.supervisor.cli.terminal import GREEN, RED, Terminal
from drumd.supervisor.observe.console import escape

_POLL = 20.0
"""Seconds of one long poll; the daemon answers as soon as something changes."""
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""
_OWN = "drumd: "
"""What a worker's own last line begins with: it says why, as the reason does."""

Document = dict[str, Any]
Show = Callable[[Document], None]


class Waiting:
    """Waits for operations at once, and shows how they go on: a line for each."""

    def __init__(self, client: Client, progress: Terminal, *, silent: bool) -> None:
        self._client = client
        self._progress = progress
        self._silent = silent
        self._told: dict[str, str] = {}

    def wait(self, operations: Sequence[Document], ended: Show) -> None:
        """Call `ended` with each operation once it has ended, in the order that they were given.

        Ctrl-C ends the waiting, not the operations; raise KeyboardInterrupt then, and
        `ControlError` when the daemon is gone.
        """
        latest = {operation["id"]: operation for operation in operations}
        left = [operation["id"] for operation in operations]
        news = self._news(operations)
        try:
            while True:
                while left and latest[left[0]]["final"]:
                    self._progress.clear()
                    ended(latest[left.pop(0)])
                if not left:
                    return
                if self._progress.interactive:
                    self._show([latest[identity] for identity in left])
                operation = next(news)
                if not self._progress.interactive:
                    self._tell(operation)
                latest[operation["id"]] = operation
        except KeyboardInterrupt:
            self._progress.clear()
            going = [identity for identity in left if not latest[identity]["final"]]
            for identity in left:
                if identity not in going:
                    ended(latest[identity])
            names = " ".join(going)
            self._progress.line(
                f"{', '.join(going)} {'goes' if len(going) == 1 else 'go'} on without you; "
                f"`drumctl wait {names}` waits, `drumctl cancel {names}` cancels"
            )
            raise

    def _news(self, operations: Sequence[Document]) -> Iterator[Document]:
        """Yield what there is to show of any of the operations, as it comes."""
        changes: queue.SimpleQueue[Document | ControlError] = queue.SimpleQueue()
        for operation in operations:
            if not operation["final"]:
                # As many polls at once as there are operations; a daemon thread dies with us.
                threading.Thread(
                    target=_follow, args=(self._client, operation, changes), daemon=True
                ).start()
        while True:
            change = changes.get()
            if isinstance(change, ControlError):
                raise change
            yield change

    def _show(self, operations: Sequence[Document]) -> None:
        if not self._silent:
            self._progress.show([_progress(each, self._progress) for each in operations])

    def _tell(self, operation: Document) -> None:
        """Write a line for a step, where none can be written over: what bars show has no words."""
        text = _progress(operation, self._progress)
        if not (self._silent or operation["final"] or self._told.get(operation["id"]) == text):
            self._told[operation["id"]] = text
            self._progress.line(text)


def _follow(
    client: Client, operation: Document, changes: "queue.SimpleQueue[Document | ControlError]"
) -> None:
    """Put what an operation has come to until it has ended, as it stands first."""
    identity = operation["id"]
    try:
        changes.put(operation)
        while not operation["final"]:
            operation = client.get(
                f"/operations/{identity}", patience=_POLL, wait=_POLL, seen=operation["reading"]
            )
            changes.put(operation)
    except ControlError as error:
        if error.code is ControlExit.NOT_RUNNING:
            error = ControlError(
                f"cannot learn how {identity} ended: the daemon on {client.path} is gone",
                ControlExit.UNKNOWN,
            )
        changes.put(error)


def show_outcome(operation: Document, out: Terminal) -> None:
    """Write how an operation ended; of a failed one the worker's last lines, too."""
    state = out.paint(str(operation["state"]), GREEN if succeeded(operation) else RED)
    out.line(f"{title(operation)}: {state}, {escape(operation['reason'])}")
    lines = [line for line in operation["last_lines"] if not line.startswith(_OWN)]
    if lines:
        out.line("  the worker's last lines:")
    for line in lines:
        out.line(f"    {escape(line)}")


def show_document(operation: Document, out: Terminal) -> None:
    """Write an operation for programs."""
    out.line(json.dumps(operation, indent=2))


def succeeded(operation: Document) -> bool:
    """Say whether an operation has done what was asked for."""
    return bool(operation["state"] == "done")


def title(operation: Document) -> str:
    """Return what an operation is, in a few words."""
    where = operation["pool"]
    if operation.get("slot") is not None:
        where += f"/{operation['slot']}"
    to = f" to {operation['size']}" if operation.get("size") is not None else ""
    return f"{operation['kind']} {where}{to}".rstrip()


def _progress(operation: Document, terminal: Terminal) -> str:
    done, total = operation["progress"]
    count = f"{done}/{total} " if total else ""
    head = f"{title(operation)} {bar(operation['slots'], terminal)}"
    state, reason = operation["state"], escape(operation["reason"])
    if reason == state:  # it waits, and there is no more to say
        return f"{head}{count}".rstrip() + f": {state}"
    if terminal.interactive and state == "running" and reason.startswith(f"{done} of {total} "):
        return f"{head}{reason}"  # that says both
    return f"{head}{count}{state}: {reason}"
