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
    """The runtime could serve now; it accepts nothing before it is told to."""


class Accepting(Document):
    """The worker accepts from exactly these listeners: the answer to `Accept` of that epoch."""

    epoch: int
    listeners: tuple[int, ...]


class Leaving(Document):
    """The worker got a signal that drumd did not send, and drains by itself."""

    signal: int


class Drained(Document):
    """No connection is left; the worker is about to exit with 0."""


class Failed(Document):
    """The worker cannot go on and is about to exit; `error` is one line for people."""

    error: str
    traceback: str = ""


# --- what the supervisor says -------------------------------------------------------------------


class Accept(Document):
    """Accept from exactly these listeners: the whole wanted set, never a delta.

    The packet carries one fd for each, in order; those that the worker has already it closes.
    An empty set means: release all.
    """

    epoch: int
    listeners: tuple[int, ...]


class Drain(Document):
    """Stop accepting, finish what is in flight, then exit with 0."""

    deadline: float
    """Monotonic seconds (CLOCK_MONOTONIC, the same for all processes) when patience ends."""
    linger: float
    """Seconds that idle keep-alive connections stay open for one more request."""


class Stop(Document):
    """Exit at once; requests in flight are lost."""


WorkerMessage = Loaded | Ready | Accepting | Leaving | Drained | Failed
SupervisorMessage = Accept | Drain | Stop
Message = WorkerMessage | SupervisorMessage

_KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind
    for kind in (Loaded, Ready, Accepting, Leaving, Drained, Failed, Accept, Drain, Stop)
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
        if "listeners" in fields:
            fields["listeners"] = tuple(fields["listeners"])
        return kind(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MessageError(
            f"cannot read a control message of {len(packet)} bytes: {error!r}"
        ) from error
