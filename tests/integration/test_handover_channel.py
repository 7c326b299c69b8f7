"""What both ends of a handover's channel see, with real sockets."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from select import epoll

import pytest

from drumd.wire.handover import (
    ChannelEnded,
    Note,
    make_channel,
    read_answers,
    receive_connections,
    send_connection,
)
from drumd.workers.handover import WINDOW, Heirs, Leavers

NOTE = Note(idle_since=12.5)


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    leavers, heirs = make_channel()
    with leavers, heirs:
        yield leavers, heirs


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: the server's end and the client's."""
    server, client = socket.socketpair()
    client.settimeout(10)
    with server, client:
        yield server, client


Pair = tuple[socket.socket, socket.socket]


class Taker:
    """Takes connections, or refuses them all."""

    def __init__(self, *, refusing: bool = False) -> None:
        self.refusing = refusing
        self.taken: list[tuple[socket.socket, Note]] = []

    def take(self, fd: int, note: Note) -> bool:
        if not self.refusing:
            self.taken.append((socket.socket(fileno=fd), note))
        return not self.refusing


def test_a_connection_arrives_with_its_note(channel: Pair, pair: Pair) -> None:
    """The heir gets the open connection, and what is known of it."""
    note = Note(idle_since=1.5, new=True, proxy={"client_port": 7})
    server, client = pair
    client.sendall(b"GET")
    assert send_connection(channel[0], server.fileno(), note)
    server.close()
    taker = Taker()
    assert receive_connections(channel[1], taker.take)
    ((taken, got),) = taker.taken
    assert got == note
    assert taken.recv(10) == b"GET"
    assert not os.get_inheritable(taken.fileno())
    assert read_answers(channel[0]) == ([True], False)
    taken.close()
    assert client.recv(1) == b""


def test_a_full_channel_says_so(channel: Pair, pair: Pair) -> None:
    """Nobody waits for an heir that does not read; it takes all that fits once it does."""
    sent = 0
    while send_connection(channel[0], pair[0].fileno(), NOTE):
        sent += 1
    assert sent > WINDOW
    taker = Taker(refusing=True)
    while receive_connections(channel[1], taker.take):
        answers = read_answers(channel[0]).taken
        sent -= len(answers)
        if not answers:
            break
    assert sent == 0


def test_a_dead_heir_is_no_full_one(channel: Pair, pair: Pair) -> None:
    """Sending to an heir that is gone is an error of its own."""
    channel[1].close()
    with pytest.raises(ChannelEnded):
        send_connection(channel[0], pair[0].fileno(), NOTE)
    assert read_answers(channel[0]) == ([], True)


def test_a_dead_heirs_last_answers_are_read(channel: Pair, pair: Pair) -> None:
    """What an heir took before it died with packets unread is not taken for lost."""
    taker = Taker()
    assert send_connection(channel[0], pair[0].fileno(), NOTE)
    receive_connections(channel[1], taker.take)
    assert send_connection(channel[0], pair[0].fileno(), NOTE)
    channel[1].close()
    assert read_answers(channel[0]) == ([True], True)


def test_a_dead_leavers_last_connections_are_taken(channel: Pair, pair: Pair) -> None:
    """What a leaver had sent before it died with answers unread arrives; then its end is seen."""
    taker = Taker()
    send_connection(channel[0], pair[0].fileno(), NOTE)
    receive_connections(channel[1], taker.take)
    send_connection(channel[0], pair[0].fileno(), NOTE)
    channel[0].close()
    assert not receive_connections(channel[1], taker.take)
    assert len(taker.taken) == 2


def test_without_a_free_fd_a_connection_is_refused(channel: Pair, pair: Pair) -> None:
    """An heir at its limit of open files leaves the connection to the leaver."""
    send_connection(channel[0], pair[0].fileno(), NOTE)
    with _no_free_fd():
        assert receive_connections(channel[1], Taker().take)
    assert read_answers(channel[0]).taken == [False]
    pair[0].send(b"still open")
    assert pair[1].recv(20) == b"still open"


@contextmanager
def _no_free_fd() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 64, hard))
    try:
        while True:
            held.append(os.dup(held[0]))
    except OSError:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)


def test_what_was_refused_comes_back(channel: Pair, pair: Pair) -> None:
    """Refused connections return to the leaver, which gives that heir nothing more."""
    back = Taker()
    heirs = Heirs(epoll(), back.take)
    heirs.replace([channel[0].detach()])
    assert heirs.give(pair[0].fileno(), NOTE)
    assert (bool(heirs), heirs.unsettled) == (True, 1)
    receive_connections(channel[1], Taker(refusing=True).take)
    heirs.settle()
    assert (bool(heirs), heirs.unsettled, heirs.handed) == (False, 0, 0)
    assert [note for _, note in back.taken] == [NOTE]
    assert not heirs.give(pair[0].fileno(), NOTE)


def test_a_replaced_heir_only_settles(channel: Pair, pair: Pair) -> None:
    """With new heirs the earlier ones get nothing more, and what they have got counts."""
    heirs = Heirs(epoll(), Taker().take)
    heirs.replace([channel[0].detach()])
    assert heirs.give(pair[0].fileno(), NOTE)
    heirs.replace([])
    assert (bool(heirs), heirs.unsettled) == (False, 1)
    taker = Taker()
    receive_connections(channel[1], taker.take)
    heirs.settle()
    assert (heirs.unsettled, heirs.handed) == (0, 1)
    assert channel[1].recv(1) == b""  # the leaver has closed it


def test_an_heir_that_leaves_returns_what_it_has_not_taken(channel: Pair, pair: Pair) -> None:
    """Leavers whose heir takes no more see the channel's end, and keep their connections."""
    leavers = Leavers(epoll(), Taker().take)
    leavers.add(channel[1].detach())
    send_connection(channel[0], pair[0].fileno(), NOTE)
    leavers.close()
    assert read_answers(channel[0]) == ([], True)
    other, its = make_channel()
    with other:
        leavers.add(its.detach())
        assert read_answers(other).ended
