"""The messages on a worker's control socket: one JSON document a packet.

The socket is a `SOCK_SEQPACKET` pair. Listeners travel with `Accept` as fds (SCM_RIGHTS), in the
order of its `listeners`, so a worker holds no listening socket before it is told to accept.
A peer that died shows as end-of-file or, with unread data, as ECONNRESET: both mean gone.
"""

import json
from typing import Any, Literal

from drumd.wire.document import Document

MAX_PACKET = 65_536
"""Bytes of the largest packet; tracebacks are cut to fit."""
MAX_TRACEBACK = 32_768
"""Characters of a traceback that are kept, its end."""
MAX_LISTENERS = 250
"""Fds that fit one packet: the kernel's SCM_MAX_FD is 253."""

Interface = Literal["asgi", "wsgi"]


class MessageError(Exception):
    """cannot read a control message."""


# --- what a worker says -------------------------------------------------------------------------


class Loaded(Document):
    """The app is imported; `runtime` is what will serve it (never `auto`)."""

    interface: Interface
    runtime: Literal["uvicorn", "gunicorn", "flask"]
    event_loop: bool
    """True where one loop serves many connections at once, so that connections may be pushed."""


class Ready(Document):
    """The runtime could serve now; it accepts nothing before it is told to.

    Of a template: the app is imported, and it could fork now.
    """

    handover: bool = False
    """True where idle connections can be given to another worker, and taken from one."""


class Accepting(Document):
    """The worker accepts from exactly these listeners: the answer to `Accept` of that epoch."""

    epoch: int
    listeners: tuple[int, ...]


class Leaving(Document):
    """The worker got a signal that drumd did not send, and drains by itself."""

    signal: int


class Drained(Document):
    """No connection is left; the worker is about to exit with 0."""

    handed: int = 0
    """Idle connections that its heirs have got."""


class Forked(Document):
    """A template has forked the worker of `attempt`: the supervisor's own child by now."""

    attempt: int
    pid: int
    threads: tuple[str, ...] = ()
    """Names of the template's threads besides the one that forks: the fork has none of them."""


class ForkFailed(Document):
    """A template could not fork the worker of `attempt`."""

    attempt: int
    error: str


class Failed(Document):
    """The worker cannot go on and is about to exit; `error` is one line for people."""

    error: str
    traceback: str = ""
    final: bool = False
    """Another try would end in the same way."""


# --- what the supervisor says -------------------------------------------------------------------


class Accept(Document):
    """Accept from exactly these listeners: the whole wanted set, never a delta.

    The packet carries one fd for each, in order; those that the worker has already it closes.
    An empty set means: release all.
    """

    epoch: int
    listeners: tuple[int, ...]


class Drain(Document):
    """Stop accepting, finish what is in flight, then exit with 0.

    May be said again, with heirs that were not there before; the last one counts. The packet
    carries a socket for each heir (`drumd.wire.handover`): idle connections go there, in turn,
    and answers do not say `Connection: close` as long as there is an heir.
    """

    deadline: float
    """Monotonic seconds (CLOCK_MONOTONIC, the same for all processes) when patience ends."""
    linger: float
    """Seconds that idle keep-alive connections stay open for one more request, without heirs."""
    heirs: int = 0


class TakeOver(Document):
    """Take idle connections from a draining worker.

    They come on the socket that the packet carries, until its end (`drumd.wire.handover`).
    """

    attempt: int
    """Whose connections they are."""


class Fork(Document):
    """To a template: fork a worker.

    The packet carries its fds, in this order: control, scoreboard, stacks, stdout, stderr; the
    numbers of the first three go into the spec in the worker.
    """

    spec: str
    """The worker's spec, as `WorkerSpec.encode` writes it; its `fds` mean nothing yet."""


class Stop(Document):
    """Exit at once; requests in flight are lost."""


WorkerMessage = Loaded | Ready | Accepting | Leaving | Drained | Failed | Forked | ForkFailed
SupervisorMessage = Accept | Drain | TakeOver | Fork | Stop
Message = WorkerMessage | SupervisorMessage

_KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(Loaded, Ready, Accepting, Leaving, Drained, Failed, Forked, ForkFailed),
        *(Accept, Drain, TakeOver, Fork, Stop),
    )
}


def encode(message: Message) -> bytes:
    """Return `message` as one packet of at most `MAX_PACKET` bytes."""
    fields = message.fields()
    if isinstance(message, Failed):
        fields["error"] = message.error[:2000]
        fields["traceback"] = message.traceback[-MAX_TRACEBACK:]
    packet = json.dumps({"kind": type(message).__name__.lower(), **fields}).encode()
    if len(packet) > MAX_PACKET and isinstance(message, Failed):
        # Escapes can make JSON six times as long as the text; the error line alone always fits.
        return encode(Failed(error=message.error))
    return packet


def decode(packet: bytes) -> Message:
    """Read one packet; raise `MessageError` when it is no message of ours."""
    try:
        fields: dict[str, Any] = json.loads(packet)
        kind = _KINDS[fields.pop("kind")]
        for name in ("listeners", "threads"):
            if name in fields:
                fields[name] = tuple(fields[name])
        return kind(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MessageError(
            f"cannot read a control message of {len(packet)} bytes: {error!r}"
        ) from error
