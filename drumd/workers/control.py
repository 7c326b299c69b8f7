"""The worker's end of its control socket."""

import os
import socket
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from drumd.wire.messages import (
    MAX_LISTENERS,
    MAX_PACKET,
    Drain,
    MessageError,
    Stop,
    SupervisorMessage,
    WorkerMessage,
    decode,
    encode,
)

_FD_BYTES = array("i").itemsize


class Received(NamedTuple):
    """A message, and the fds that came with it (listeners, in the order of `Accept.listeners`)."""

    message: SupervisorMessage
    fds: list[int]


class Control:
    """Non-blocking ends of a conversation: a runtime polls `fileno` in its own loop.

    Nothing here waits for the supervisor: a message that does not fit its buffer is dropped, which
    takes hundreds of unread ones.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self.gone = False
        """True once the supervisor's end is closed: it died, or let go of this worker."""
        self.dismissed = False
        """True once the supervisor said that the worker is to leave: its end is expected then."""

    def fileno(self) -> int:
        """Return the fd to poll for reading."""
        return self._sock.fileno()

    def send(self, message: WorkerMessage) -> None:
        """Tell the supervisor; never wait, never raise. Safe from any thread."""
        try:
            self._sock.send(encode(message))
        except BlockingIOError:
            return
        except OSError:
            self.gone = True

    def receive(self) -> Iterator[Received]:
        """Yield what is there now; sets `gone` at the end of the conversation."""
        while not self.gone:
            try:
                packet, fds = self._receive_one()
            except BlockingIOError:
                return
            except OSError:  # ECONNRESET: it died with messages of ours unread
                self.gone = True
                return
            if not packet:
                self.gone = True
                return
            message = self._known(packet)
            if message is None:
                for fd in fds:
                    os.close(fd)
            else:
                self.dismissed = self.dismissed or isinstance(message, Drain | Stop)
                yield Received(message, fds)

    def _receive_one(self) -> tuple[bytes, list[int]]:
        # Not socket.recv_fds: it ignores its flags (CPython 3.11 to 3.13), so that every program
        # that the app starts would hold the listeners.
        packet, ancillary, _flags, _peer = self._sock.recvmsg(
            MAX_PACKET, socket.CMSG_LEN(MAX_LISTENERS * _FD_BYTES), socket.MSG_CMSG_CLOEXEC
        )
        fds = array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
        return packet, fds.tolist()

    def _known(self, packet: bytes) -> SupervisorMessage | None:
        """Read `packet`; None for a kind that only a newer supervisor knows (after a re-exec)."""
        try:
            message = decode(packet)
        except MessageError as error:
            import logging  # noqa: PLC0415 - start time, for what does not happen

            logging.getLogger("drumd.worker").warning("%s; ignored", error)
            return None
        return message if isinstance(message, SupervisorMessage) else None
