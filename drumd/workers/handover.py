"""A worker's two sides of a handover: to its heirs, and from those that leave.

For all runtimes. `Orders` tells it of channels, and the runtime's loop polls these along with its
orders: one fd, one `read`. All of it belongs to the thread of that loop.
"""

import os
import socket
from collections import deque
from collections.abc import Sequence
from select import EPOLLIN, epoll

from drumd.wire.handover import (
    ChannelEnded,
    Note,
    TakeConnection,
    read_answers,
    receive_connections,
    send_connection,
)

WINDOW = 32
"""Connections that an heir may have been sent and not answered: one that is stuck gets no more of
them, and their clients wait for it."""


class Handover:
    """What a worker gives away (`heirs`) and takes over (`leavers`).

    `take(fd, note)` begins to serve a connection that comes from a leaver, or comes back because
    the heir that it was given to could not take it. It is called within `Orders.read`.
    """

    def __init__(self, take: TakeConnection) -> None:
        self._poller = epoll()
        self.heirs = Heirs(self._poller, take)
        self.leavers = Leavers(self._poller, take)

    def fileno(self) -> int:
        """Return the fd whose readability calls for a `turn`."""
        return self._poller.fileno()

    def poll_too(self, fd: int) -> None:
        """Make `fileno` readable when `fd` is."""
        self._poller.register(fd, EPOLLIN)

    def turn(self) -> None:
        """Take what leavers have sent and what heirs have answered; never wait."""
        self.leavers.receive()
        self.heirs.settle()


class Heirs:
    """The workers that go on with this one's idle connections, which are dealt to them in turn.

    One that is gone is forgotten, and what it had not confirmed comes back by `take_back`. What one
    refuses comes back too, and nothing more is sent to it.
    """

    def __init__(self, poller: epoll, take_back: TakeConnection) -> None:
        self._poller = poller
        self._take_back = take_back
        self._heirs: deque[_Heir] = deque()
        self.handed = 0
        """Connections that heirs have confirmed."""

    def __bool__(self) -> bool:
        return any(not heir.retired for heir in self._heirs)

    @property
    def have_room(self) -> bool:
        """Return whether one of them could get a connection now."""
        return any(heir.has_room for heir in self._heirs)

    @property
    def unsettled(self) -> int:
        """Return how many connections were given and not confirmed."""
        return sum(len(heir.pending) for heir in self._heirs)

    def replace(self, channels: Sequence[int]) -> None:
        """Give to these from now on; their fds are ours. Earlier ones only settle."""
        for heir in self._heirs:
            heir.retired = True
        for fd in channels:
            self._heirs.append(_Heir(socket.socket(fileno=fd)))
            self._poller.register(fd, EPOLLIN)
        self.settle()

    def give(self, fd: int, note: Note) -> bool:
        """Give a connection to the next heir that has room; return whether there was one.

        After that the caller closes its `fd`, without shutdown and without reading from it.
        """
        for _ in range(len(self._heirs)):
            heir = self._heirs[0]
            self._heirs.rotate(-1)
            if heir.has_room and heir.give(fd, note):
                return True
        return False

    def settle(self) -> None:
        """Take in what the heirs have answered; forget those that are gone."""
        for heir in list(self._heirs):
            answers = read_answers(heir.channel)
            for taken in answers.taken[: len(heir.pending)]:
                fd, note = heir.pending.popleft()
                if taken:
                    os.close(fd)
                    self.handed += 1
                else:
                    heir.retired = True
                    self._return(fd, note)
            if answers.ended or (heir.retired and not heir.pending):
                self._heirs.remove(heir)
                self._poller.unregister(heir.channel)
                heir.channel.close()
                while heir.pending:
                    self._return(*heir.pending.popleft())

    def _return(self, fd: int, note: Note) -> None:
        if not self._take_back(fd, note):
            os.close(fd)


class _Heir:
    """One heir: its channel, and copies of what it was sent and did not answer yet."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.pending: deque[tuple[int, Note]] = deque()
        self.retired = False
        """True when nothing more is to be sent to it."""

    @property
    def has_room(self) -> bool:
        return not self.retired and len(self.pending) < WINDOW

    def give(self, fd: int, note: Note) -> bool:
        try:
            copy = os.dup(fd)
        except OSError:  # no fd left: until the next answer
            return False
        try:
            if send_connection(self.channel, copy, note):
                self.pending.append((copy, note))
                return True
        except ChannelEnded:
            self.retired = True  # its last answers are still to be read: `settle`
        os.close(copy)
        return False


class Leavers:
    """The draining workers whose idle connections this one takes over."""

    def __init__(self, poller: epoll, take: TakeConnection) -> None:
        self._poller = poller
        self._take = take
        self._channels: list[socket.socket] = []
        self._closed = False

    def add(self, fd: int) -> None:
        """Take connections from one more, until it ends; its channel's fd is ours."""
        if self._closed:
            os.close(fd)
            return
        self._channels.append(socket.socket(fileno=fd))
        self._poller.register(fd, EPOLLIN)

    def receive(self) -> None:
        """Take what has come; forget those that have ended."""
        for channel in list(self._channels):
            if not receive_connections(channel, self._take):
                self._forget(channel)

    def close(self) -> None:
        """Take no more: leavers keep what was not taken, or give it to others."""
        self._closed = True
        for channel in list(self._channels):
            self._forget(channel)

    def _forget(self, channel: socket.socket) -> None:
        self._channels.remove(channel)
        self._poller.unregister(channel)
        channel.close()
