"""The handover of idle connections from a draining worker (the leaver) to a serving one (the heir).

Each pair of them has a channel: a `SOCK_SEQPACKET` pair that the supervisor makes and passes on
with `Drain` and `TakeOver`. Each packet to the heir is a note in JSON and one connection's fd
(SCM_RIGHTS, unix(7)); what the client has sent and nobody has read yet stays in the kernel and
goes along. The heir answers each packet, in order, by one byte. Until then the leaver keeps a copy
of the fd, so that an heir which dies before it has read a packet loses no connection.
"""

import contextlib
import errno
import json
import os
import socket
from array import array
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from drumd.wire.document import Document

_MAX_PACKET = 65_536
_AT_ONCE = 64
"""Packets taken before other things in a loop get their turn."""

_TAKEN, _REFUSED = b"+-"
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)
"""The heir has not read, or the kernel has no room for more fds in flight: both pass."""
_FD_BYTES = array("i").itemsize


class ChannelEnded(Exception):  # noqa: N818 - what happened, and no error of anybody's
    """cannot hand over a connection: the heir is gone."""


class Note(Document):
    """What the kernel does not know of a connection that is handed over."""

    idle_since: float
    """Monotonic seconds (the same for all processes): its last answer, or its beginning."""
    new: bool = False
    """True while nothing was asked on it yet."""
    proxy: Mapping[str, Any] | None = None
    """What a PROXY protocol header said of the client, as gunicorn keeps it."""


TakeConnection = Callable[[int, Note], bool]
"""Takes a connection's fd and note; False, or OSError: it cannot, and the fd stays the caller's."""


class Answers(NamedTuple):
    """What an heir said since the last time."""

    taken: list[bool]
    """Of the connections that were sent, in order."""
    ended: bool
    """True when it is gone, and takes none of the others."""


def make_channel() -> tuple[socket.socket, socket.socket]:
    """Return a leaver's and an heir's end; which is whose makes no difference."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)


def send_connection(channel: socket.socket, fd: int, note: Note) -> bool:
    """Send a connection to the heir, without waiting; return False when there is no room just now.

    The caller keeps `fd` until the heir's answer. Raises `ChannelEnded` when the heir is gone.
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))]
    try:
        channel.sendmsg([json.dumps(note.fields()).encode()], ancillary, socket.MSG_DONTWAIT)
    except OSError as error:
        if error.errno in _FULL:
            return False
        if isinstance(error, ConnectionError):
            raise ChannelEnded("cannot hand over a connection: the heir is gone") from error
        raise
    return True


def read_answers(channel: socket.socket) -> Answers:
    """Return what the heir has said of the connections that were sent to it; never wait."""
    taken: list[bool] = []
    while True:
        try:
            packet = channel.recv(_MAX_PACKET, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return Answers(taken, ended=False)
        except ConnectionResetError:
            continue  # it died with packets unread; said once, before its last answers
        except OSError:
            packet = b""
        if not packet:
            return Answers(taken, ended=True)
        taken += [each == _TAKEN for each in packet]


def receive_connections(channel: socket.socket, take: TakeConnection) -> bool:
    """Offer the connections that have come to `take`, and answer the leaver; never wait.

    Returns False once the leaver is gone and all that it had sent was read.
    """
    answers = bytearray()
    going_on = True
    for _ in range(_AT_ONCE):
        try:
            packet, fds = _receive(channel)
        except BlockingIOError:
            break
        except ConnectionResetError:
            continue  # it died with answers unread; said once, before the last it had sent
        except OSError:
            packet, fds = b"", []
        if not packet:
            going_on = False
            break
        answers.append(_TAKEN if _was_taken(packet, fds, take) else _REFUSED)
    if answers:
        with contextlib.suppress(OSError):  # a leaver that is gone needs no answer
            channel.send(answers, socket.MSG_DONTWAIT)
    return going_on


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    # Not socket.recv_fds: it ignores its flags (CPython 3.11 to 3.13), so that every program that
    # the app starts would hold the connection.
    flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    packet, ancillary, _flags, _peer = channel.recvmsg(
        _MAX_PACKET, socket.CMSG_SPACE(_FD_BYTES), flags
    )
    fds = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
    return packet, fds.tolist()


def _was_taken(packet: bytes, fds: list[int], take: TakeConnection) -> bool:
    try:
        # Fields that only a newer leaver knows may matter (they may be part of a request), so such
        # a note is none. No fd: this process has no number left for one (recvmsg(2), MSG_CTRUNC).
        note = Note(**json.loads(packet))
        (fd,) = fds
        taken = take(fd, note)
    except (ValueError, TypeError, OSError):
        taken = False
    if not taken:
        for each in fds:
            os.close(each)
    return taken
