import array
import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from drumd.supervisor.processes.control import ControlEnd
from drumd.wire.messages import (
    Accept,
    Drain,
    Failed,
    Fork,
    Loaded,
    Message,
    MessageError,
    Ready,
    Stop,
    TakeOver,
    WorkerMessage,
    decode,
    encode,
)
from tests.processes import count_open_fds
from tests.waiting import until


class Conversation:
    def __init__(self) -> None:
        ours, self.worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.worker.settimeout(30)
        self.said: list[WorkerMessage] = []
        self.malformed: list[MessageError] = []
        self.gone = 0
        self.end = ControlEnd(
            asyncio.get_running_loop(), ours, self.said.append, self._gone, self.malformed.append
        )

    def _gone(self) -> None:
        self.gone += 1

    def receive(self) -> tuple[Message, list[int]]:
        packet, fds, _, _ = socket.recv_fds(self.worker, 65536, 250)
        return decode(packet), list(fds)


@pytest.fixture
async def talk() -> AsyncIterator[Conversation]:
    talk = Conversation()
    yield talk
    talk.end.close()
    talk.worker.close()


async def test_messages_arrive(talk: Conversation) -> None:
    """What a worker says is told in order; its end of the conversation is told once."""
    loaded = Loaded(interface="asgi", runtime="uvicorn", event_loop=True)
    talk.worker.send(encode(loaded))
    talk.worker.send(encode(Ready()))
    talk.worker.close()
    await until(lambda: talk.gone)
    assert talk.said == [loaded, Ready()]
    assert talk.end.closed
    talk.end.send(Stop())
    assert talk.gone == 1


async def test_listeners_travel(talk: Conversation) -> None:
    """An Accept carries its listeners' fds in order, though they are closed right after."""
    files = [os.memfd_create(name) for name in ("a", "b")]
    inodes = [os.fstat(fd).st_ino for fd in files]
    talk.end.send(Accept(epoch=1, listeners=(4, 7)), files)
    for fd in files:
        os.close(fd)
    message, fds = talk.receive()
    assert message == Accept(epoch=1, listeners=(4, 7))
    assert [os.fstat(fd).st_ino for fd in fds] == inodes
    for fd in fds:
        os.close(fd)


async def test_a_worker_that_does_not_read_gets_the_newest(talk: Conversation) -> None:
    """While a worker is stopped only the newest Accept waits for it, and arrives when it reads."""
    file = os.memfd_create("listener")
    before = count_open_fds()
    epoch = 0
    while not talk.end.backlog:
        epoch += 1
        talk.end.send(Accept(epoch=epoch, listeners=(1,)), [file])
    for _ in range(1000):
        epoch += 1
        talk.end.send(Accept(epoch=epoch, listeners=(1,)), [file])
    talk.end.send(Drain(deadline=1.0, linger=1.0))
    assert talk.end.backlog == 2
    assert count_open_fds() == before + 1

    received: list[Message] = []

    def read() -> None:
        message, fds = talk.receive()
        received.append(message)
        for fd in fds:
            os.close(fd)

    asyncio.get_running_loop().add_reader(talk.worker, read)
    await until(lambda: received[-1:] == [Drain(deadline=1.0, linger=1.0)])
    asyncio.get_running_loop().remove_reader(talk.worker)
    assert received[-2] == Accept(epoch=epoch, listeners=(1,))
    assert talk.end.backlog == 0
    os.close(file)
    assert count_open_fds() == before - 1


async def test_what_stands_for_itself_is_never_replaced(talk: Conversation) -> None:
    """While a worker does not read, each TakeOver and each Fork waits for it, in order."""
    file = os.memfd_create("channel")
    epoch = 0
    while not talk.end.backlog:
        epoch += 1
        talk.end.send(Accept(epoch=epoch, listeners=()))
    each: list[Message] = [TakeOver(attempt=1), Fork(spec="a"), TakeOver(attempt=2), Fork(spec="b")]
    for message in each:
        assert isinstance(message, TakeOver | Fork)
        talk.end.send(message, [file])
    os.close(file)
    received: list[Message] = []

    def read() -> None:
        message, fds = talk.receive()
        received.append(message)
        for fd in fds:
            os.close(fd)

    asyncio.get_running_loop().add_reader(talk.worker, read)
    await until(lambda: received[-1:] == each[-1:])
    asyncio.get_running_loop().remove_reader(talk.worker)
    assert received[-4:] == each


async def test_malformed_packets_are_told(talk: Conversation) -> None:
    """A packet that is no message, or not one of a worker's, is reported and the rest goes on."""
    for packet in (b"{", b"[]", b'{"kind": "nonsense"}', encode(Stop()), encode(Ready())):
        talk.worker.send(packet)
    await until(lambda: talk.said)
    assert talk.said == [Ready()]
    assert len(talk.malformed) == 4
    assert all(str(error).startswith("cannot ") for error in talk.malformed)


async def test_fds_from_a_worker_are_not_taken(talk: Conversation) -> None:
    """A worker can't fill the supervisor with fds."""
    before = count_open_fds()
    rights = array.array("i", [talk.worker.fileno()] * 10)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
    talk.worker.sendmsg([encode(Ready())], ancillary)
    await until(lambda: talk.said)
    assert count_open_fds() == before


@pytest.mark.parametrize("speaking", [False, True])
async def test_last_words_are_heard(talk: Conversation, *, speaking: bool) -> None:
    """The reason that a worker gives before it dies with our messages unread is not lost."""
    talk.end.send(Accept(epoch=1, listeners=()))
    failed = Failed(error="no such model")
    talk.worker.send(encode(failed))
    talk.worker.close()
    if speaking:
        talk.end.send(Stop())
    await until(lambda: talk.gone)
    assert talk.said == [failed]
