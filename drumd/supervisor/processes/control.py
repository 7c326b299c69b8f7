"""The supervisor's end of a worker's control socket."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drumd.supervisor.fds import Fd
from drumd.wire.messages import (
    MAX_LISTENERS,
    MAX_PACKET,
    Fork,
    MessageError,
    Stop,
    SupervisorMessage,
    TakeOver,
    WorkerMessage,
    decode,
    encode,
)

_PER_WAKE_UP = 64
"""Messages read before other things in the loop get their turn."""
_RETRY_AFTER = 0.1
"""Seconds until another try when the kernel has no room for more fds in flight."""
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message that the worker has not read yet, as it is sent."""

    packet: str
    fds: tuple[Fd, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptControl:
    """The supervisor's end of a control socket over a re-exec; what is unread stays in it."""

    fd: Fd
    queue: tuple[KeptMessage, ...] = ()


@dataclass(frozen=True, slots=True)
class _Queued:
    message: SupervisorMessage
    fds: list[int]
    """Copies of our own: the listener may be closed before its turn."""

    def drop(self) -> None:
        for fd in self.fds:
            os.close(fd)


class ControlEnd:
    """A conversation with one worker that never waits for it.

    What a worker doesn't read (it is stopped, or stuck in the GIL) is kept: the newest message of
    each kind, which is all that counts, since an `Accept` is always the whole set. Only what each
    stands for something of its own (`TakeOver`, `Fork`) is kept in full.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[[WorkerMessage], None],
        on_gone: Callable[[], None],
        on_malformed: Callable[[MessageError], None] = lambda _error: None,
    ) -> None:
        """Take over `sock`. `on_gone` is called once when the worker's end is closed."""
        self._loop = loop
        self._sock = sock
        self._on_message = on_message
        self._on_gone = on_gone
        self._on_malformed = on_malformed
        self._queue: list[_Queued] = []
        self._retry: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        loop.add_reader(sock, self._read)

    def keep(self) -> KeptControl | None:
        """Return what a new program needs to go on with the conversation; None when it is over."""
        if self.closed:
            return None
        return KeptControl(
            Fd(self._sock.fileno()),
            tuple(
                KeptMessage(encode(queued.message).decode(), tuple(map(Fd, queued.fds)))
                for queued in self._queue
            ),
        )

    def resume(self, queue: Sequence[KeptMessage]) -> None:
        """Send what had waited before a re-exec, once the loop runs; its fds are ours now."""
        for kept in queue:
            message = decode(kept.packet.encode())
            if isinstance(message, SupervisorMessage):
                self._queue.append(_Queued(message, [int(fd) for fd in kept.fds]))
        if self._queue:
            self._loop.call_soon(self._flush)

    @property
    def closed(self) -> bool:
        """Whether the conversation is over."""
        return self._sock.fileno() < 0

    @property
    def backlog(self) -> int:
        """Messages that wait for the worker to read earlier ones."""
        return len(self._queue)

    def send(self, message: SupervisorMessage, fds: Sequence[int] = ()) -> None:
        """Send, now or when the worker reads again; nothing happens when it is gone.

        `fds` go with the message, in its order; they may be closed after the call.
        """
        if self.closed:
            return
        if len(fds) > MAX_LISTENERS:
            raise ValueError(f"cannot send {len(fds)} fds: {MAX_LISTENERS} fit one packet")
        replaced = [q for q in self._queue if type(q.message) is type(message)]
        if isinstance(message, TakeOver | Fork):
            replaced = []
        elif isinstance(message, Stop):
            replaced = self._queue
        for old in replaced:
            old.drop()
        self._queue = [q for q in self._queue if q not in replaced]
        self._queue.append(_Queued(message, [os.dup(fd) for fd in fds]))
        self._flush()

    def drain(self) -> None:
        """Read what is there now: what an exited worker had said last."""
        if not self.closed:
            self._read()

    def close(self) -> None:
        """End the conversation: the worker takes that for the supervisor's end and exits."""
        if self.closed:
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        if self._retry is not None:
            self._retry.cancel()
        self._forget_queue()

    def _forget_queue(self) -> None:
        for queued in self._queue:
            queued.drop()
        self._queue.clear()

    def _flush(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        while self._queue and not self.closed:
            head = self._queue[0]
            try:
                socket.send_fds(self._sock, [encode(head.message)], head.fds)
            except OSError as error:
                if error.errno not in _FULL:
                    # It is gone, but what it said last is still to be read: `_read` finds the end.
                    self._forget_queue()
                    break
                if error.errno == errno.EAGAIN:
                    self._loop.add_writer(self._sock, self._flush)
                else:
                    self._retry = self._loop.call_later(_RETRY_AFTER, self._flush)
                return
            self._queue.pop(0).drop()
        if not self.closed:
            self._loop.remove_writer(self._sock)

    def _read(self) -> None:
        for _ in range(_PER_WAKE_UP):
            if self.closed:  # a callback may have closed it
                return
            try:
                packet = self._sock.recv(MAX_PACKET)
            except BlockingIOError:
                return
            except ConnectionResetError:
                # It died with messages of ours unread. The kernel says so once, and before it
                # hands out what the worker had said last: its reason.
                continue
            except OSError:
                packet = b""
            if not packet:
                self._gone()
                return
            self._dispatch(packet)

    def _dispatch(self, packet: bytes) -> None:
        try:
            message = decode(packet)
        except MessageError as error:
            self._on_malformed(error)
            return
        if isinstance(message, WorkerMessage):
            self._on_message(message)
        else:
            kind = type(message).__name__
            self._on_malformed(MessageError(f"cannot take a {kind} from a worker"))

    def _gone(self) -> None:
        if not self.closed:
            self.close()
            self._on_gone()
