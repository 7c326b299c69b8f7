"""The commands of `drumctl` that change something, and wait for what becomes of it."""

import json
from collections.abc import Sequence
from typing import Any

from drumd.exitcodes import ControlExit
from drumd.supervisor.cli.arguments import UsageError, meant
from drumd.supervisor.cli.call import Call
from drumd.supervisor.cli.client import ControlError
from drumd.supervisor.cli.ending import stop_daemon
from drumd.supervisor.cli.outcome import (
    INTERRUPTED,
    Document,
    Waiting,
    show_document,
    show_outcome,
    succeeded,
    title,
)
from drumd.supervisor.observe.console import escape

_Wanted = tuple[str, dict[str, Any] | None, str]
"""A pool, the request's body, the verb."""


def restart(call: Call) -> int:
    """Replace workers of the same generation."""
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


def reload(call: Call) -> int:
    """Have the config read again, and see through what that begins."""
    body = {"pool": call.given.pool} if call.given.pool else None
    begun = call.client.post("/reload", body)
    if call.given.json:
        if call.given.no_wait:
            print(json.dumps(begun, indent=2))
            return ControlExit.OK
        operations, code = _wait_for(call, begun["operations"])
        print(json.dumps({**begun, "operations": operations}, indent=2))
        return code
    for note in begun["notes"]:
        call.progress.line(escape(note))
    if not begun["operations"]:
        print("reloaded: no worker had to be replaced")
    return _see_through(call, begun["operations"], [])


def stop(call: Call) -> int:
    """Stop a pool, or the daemon."""
    if not call.given.pool:
        return stop_daemon(call)
    if call.given.all:
        raise UsageError(
            f"cannot stop both pool {call.given.pool} and drumd itself: leave out one of them"
        )
    return _operate(call, [(call.given.pool, None, "stop")])


def start(call: Call) -> int:
    """Start a stopped pool."""
    return _operate(call, [(call.given.pool, None, "start")])


def scale(call: Call) -> int:
    """Change a pool's size."""
    return _operate(call, [(call.given.pool, {"size": call.given.size}, "scale")])


def re_exec(call: Call) -> int:
    """Have the daemon replace its own program."""
    return _see_through(call, [call.client.post("/re-exec")], [])


def wait(call: Call) -> int:
    """Wait for operations that were begun before."""
    found = [call.client.get(f"/operations/{identity}") for identity in call.given.id]
    call.given.no_wait = False
    return _see_through(call, found, [])


def cancel(call: Call) -> int:
    """Take operations back."""
    return max(_cancel(call, identity) for identity in call.given.id)


def _cancel(call: Call, identity: str) -> int:
    operation = call.client.delete(f"/operations/{identity}")
    if not operation["final"]:
        operation = call.client.get(
            f"/operations/{identity}", patience=10, wait=10, seen=operation["reading"]
        )
    if call.given.json:
        print(json.dumps(operation, indent=2))
    else:
        print(f"{title(operation)}: {operation['state']}, {escape(operation['reason'])}")
    cancelled = operation["state"] == "cancelled"
    return ControlExit.OK if cancelled else ControlExit.DEGRADED


# --- names --------------------------------------------------------------------------------------


def _pool_and_slot(target: str) -> tuple[str, dict[str, Any] | None]:
    pool, slash, slot = target.partition("/")
    if not slash:
        return pool, None
    if not (slot.isascii() and slot.isdigit()):
        raise UsageError(
            f"cannot read {target!r}: write POOL, or POOL/SLOT with the slot's number, as {pool}/0"
        )
    return pool, {"slot": int(slot)}


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


# --- operations ---------------------------------------------------------------------------------


def _operate(call: Call, wanted: Sequence[_Wanted]) -> int:
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


def _submit(call: Call, pool: str, body: dict[str, Any] | None, verb: str) -> Document:
    try:
        operation: Document = call.client.post(f"/pools/{pool}/{verb}", body)
    except ControlError as error:
        if not error.known:
            raise
        slot = (body or {}).get("slot")
        word = pool if slot is None else f"{pool}/{slot}"
        hint = "" if "did you mean" in str(error) else meant(word, error.known)
        raise ControlError(f"{error}{hint}", error.code, error.known) from error
    return operation


def _see_through(
    call: Call, operations: Sequence[Document], refusals: Sequence[ControlExit]
) -> int:
    """Wait for operations, unless told not to; return the worst outcome."""
    if call.given.no_wait:
        for operation in operations:
            text = f"{title(operation)}: {operation['id']}, {operation['state']}"
            print(json.dumps(operation, indent=2) if call.given.json else text)
        return max(refusals, default=ControlExit.OK)
    _, code = _wait_for(call, operations, show=True)
    return code if code == INTERRUPTED else max([*refusals, code])


def _wait_for(
    call: Call, operations: Sequence[Document], *, show: bool = False
) -> tuple[list[Document], int]:
    """Wait for operations and, if wanted, show each one's outcome; return them, and the worst."""
    ended: list[Document] = []

    def note(operation: Document) -> None:
        ended.append(operation)
        if show:
            (show_document if call.given.json else show_outcome)(operation, call.out)

    waiting = Waiting(call.client, call.progress, silent=call.given.json)
    try:
        waiting.wait(operations, note)
    except KeyboardInterrupt:
        return ended, INTERRUPTED
    good = all(map(succeeded, ended))
    return ended, ControlExit.OK if good else ControlExit.DEGRADED
