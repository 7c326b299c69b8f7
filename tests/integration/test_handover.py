"""Idle keep-alive connections go to an heir, whatever serves in it: no client notices a drain."""

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from select import select
from typing import Any, NamedTuple

import pytest

from drumd.wire.handover import Note, make_channel, read_answers, send_connection
from drumd.wire.messages import Drained, Leaving, Ready
from drumd.workers.handover import WINDOW
from tests.integration.http_clients import Connection
from tests.integration.kept_clients import KeptLoad
from tests.integration.worker_host import HostedWorker, Listener, WorkerHost
from tests.waiting import wait_until


class Kind(NamedTuple):
    """A runtime that hands connections over."""

    app: str
    wanted: dict[str, Any]
    """Fields of the spec."""
    unix: Any = None
    """What the app is told of a client without an address and of the server, in place of
    `[None, [path, None]]`."""


KINDS = {
    f"uvicorn-{loop}-{http}": Kind(
        "handover:asgi",
        {"runtime": "uvicorn", "options": {"uvicorn": {"loop": loop, "http": http}}},
    )
    for loop in ("uvloop", "asyncio")
    for http in ("httptools", "h11")
}
KINDS |= {
    f"asgi-{loop}": Kind(
        "handover:asgi", {"runtime": "gunicorn", "options": {"gunicorn": {"asgi_loop": loop}}}
    )
    for loop in ("uvloop", "asyncio")
}
# WSGI wants a server's name and port, so gunicorn takes those of the Host header.
KINDS["gthread"] = Kind("handover:wsgi", {"runtime": "gunicorn"}, unix=[["", 0], ["x", 80]])


@pytest.fixture
def host() -> Iterator[WorkerHost]:
    with WorkerHost(leases=16) as host:
        yield host


SOME = [name for name in KINDS if name not in ("uvicorn-uvloop-h11", "uvicorn-asyncio-httptools")]
"""Each loop and each parser once: enough for what depends on one of them at most."""
EACH = pytest.mark.parametrize("kind", list(KINDS), indirect=True)
"""For what loop and parser do together."""


@pytest.fixture(params=SOME)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def serve(host: WorkerHost, kind: Kind, *listeners: Listener, **wanted: Any) -> HostedWorker:
    return host.serve(kind.app, *listeners, **{**kind.wanted, **wanted})


def get_ready(host: WorkerHost, kind: Kind, **wanted: Any) -> HostedWorker:
    """Return a worker that accepts nothing yet."""
    worker = host.spawn(kind.app, **{**kind.wanted, **wanted})
    assert worker.expect(Ready).handover
    return worker


class Gate:
    """A file that requests wait for."""

    def __init__(self, host: WorkerHost, name: str = "gate") -> None:
        self.path = Path(host.path(name))

    def begun(self) -> None:
        wait_until(Path(f"{self.path}.begun").exists, what="the request in flight")

    def open(self) -> None:
        self.path.touch()


def said_by(worker: HostedWorker, connection: Connection) -> bool:
    """Ask who answers; fail if the connection is to end."""
    answer = connection.ask()
    assert not answer.closes
    return answer.body == str(worker.pid).encode()


def kept(listener: Listener, count: int) -> list[Connection]:
    """Return connections that were answered once."""
    connections = [Connection(listener) for _ in range(count)]
    for connection in connections:
        assert connection.ask().status == 200
    return connections


def close_all(connections: list[Connection]) -> None:
    for connection in connections:
        connection.sock.close()


# --- under load -----------------------------------------------------------------------------------


@EACH
def test_no_client_notices_a_dozen_drains(host: WorkerHost, kind: Kind) -> None:
    """12 times a worker with 32 busy and pausing clients goes, and none sees its connection end."""
    listener = host.listen()
    serving = serve(host, kind, listener)
    with KeptLoad(listener) as load:
        load.all_answered_by(serving.pid)
        for _ in range(12):
            heir = get_ready(host, kind)
            heir.accept(listener)
            serving.drain(heir)
            assert serving.expect(Drained).handed == load.clients
            assert serving.wait() == 0
            assert serving.record.connections == 0
            load.all_answered_by(heir.pid)
            serving = heir
        wait_until(lambda: serving.record.connections == load.clients, what="its connections")
    assert load.failures == []
    finished = sum(worker.record.finished for worker in host.workers)
    assert finished == sum(worker.record.started for worker in host.workers) == load.count


# --- when -----------------------------------------------------------------------------------------


@EACH
def test_idle_connections_go_at_once(host: WorkerHost, kind: Kind) -> None:
    """What is idle, or new and has not asked yet, is the heir's; the leaver ends without linger."""
    listener = host.listen()
    leaver, heir = serve(host, kind, listener), get_ready(host, kind)
    with Connection(listener) as idle, Connection(listener) as new:
        assert said_by(leaver, idle)
        wait_until(lambda: leaver.record.connections == 2, what="both connections")
        leaver.drain(heir, linger=60)
        assert leaver.expect(Drained).handed == 2
        assert leaver.wait() == 0
        assert said_by(heir, idle)
        assert said_by(heir, new)
        wait_until(lambda: heir.record.connections == 2, what="both connections")
    wait_until(lambda: heir.record.connections == 0, what="none")
    wait_until(lambda: heir.record.finished == 2, what="the count")


@pytest.mark.parametrize("path", ["/hold", "/stream"])
def test_a_busy_connection_goes_after_its_answer(host: WorkerHost, kind: Kind, path: str) -> None:
    """A request in flight is answered by the leaver and nothing is said of an end."""
    listener, gate = host.listen(), Gate(host)
    leaver, heir = serve(host, kind, listener), serve(host, kind, host.listen())
    with Connection(listener) as busy, Connection(listener) as idle:
        busy.send(f"{path}?{gate.path}")
        gate.begun()
        assert said_by(leaver, idle)
        leaver.drain(heir)
        wait_until(lambda: said_by(heir, idle), what="the drain")
        gate.open()
        answer = busy.answer()
        assert answer.body.endswith(str(leaver.pid).encode())
        assert not answer.closes
        assert said_by(heir, busy)
    assert leaver.expect(Drained).handed == 2
    assert leaver.wait() == 0


@EACH
def test_a_partial_request_is_the_leavers(host: WorkerHost, kind: Kind) -> None:
    """Who has read a part of a request answers it; the connection goes after that."""
    listener = host.listen()
    leaver, heir = serve(host, kind, listener), serve(host, kind, host.listen())
    with Connection(listener) as partial, Connection(listener) as idle:
        assert said_by(leaver, partial)
        assert said_by(leaver, idle)
        partial.sock.sendall(b"GET / HTT")
        # A later request on another connection is answered after the bytes were read.
        assert said_by(leaver, idle)
        leaver.drain(heir)
        wait_until(lambda: said_by(heir, idle), what="the drain")
        partial.sock.sendall(b"P/1.1\r\nHost: x\r\n\r\n")
        answer = partial.answer()
        assert (answer.body, answer.closes) == (str(leaver.pid).encode(), False)
        assert said_by(heir, partial)
    assert leaver.wait() == 0


def test_an_upload_is_the_leavers(host: WorkerHost, kind: Kind) -> None:
    """A body that is still coming in goes on to its answer."""
    listener = host.listen()
    leaver, heir = serve(host, kind, listener), serve(host, kind, host.listen())
    with Connection(listener) as upload, Connection(listener) as idle:
        upload.sock.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        upload.sock.sendall(b"x" * 50_000)
        wait_until(lambda: leaver.record.in_flight == 1, what="the request")
        assert said_by(leaver, idle)
        leaver.drain(heir)
        wait_until(lambda: said_by(heir, idle), what="the drain")
        upload.sock.sendall(b"x" * 50_000)
        answer = upload.answer()
        assert (answer.body, answer.closes) == (b"100000", False)
        assert said_by(heir, upload)
    assert leaver.wait() == 0


@EACH
def test_pipelined_requests_are_all_the_leavers(host: WorkerHost, kind: Kind) -> None:
    """Requests that were sent behind one in flight are answered in order."""
    listener, gate = host.listen(), Gate(host)
    leaver, heir = serve(host, kind, listener), serve(host, kind, host.listen())
    with Connection(listener) as pipelining, Connection(listener) as idle:
        tail = "".join(f"GET /ask?{n} HTTP/1.1\r\nHost: x\r\n\r\n" for n in range(3))
        pipelining.sock.sendall(
            f"GET /hold?{gate.path} HTTP/1.1\r\nHost: x\r\n\r\n{tail}GET /ask?3 HT".encode()
        )
        gate.begun()
        assert said_by(leaver, idle)
        leaver.drain(heir)
        wait_until(lambda: said_by(heir, idle), what="the drain")
        gate.open()
        pid = str(leaver.pid)
        assert pipelining.answer().body.decode() == pid
        for number in range(3):
            assert pipelining.answer().body.decode() == f"{number} {pid}"
        pipelining.sock.sendall(b"TP/1.1\r\nHost: x\r\n\r\n")
        answer = pipelining.answer()
        assert (answer.body.decode(), answer.closes) == (f"3 {pid}", False)
        assert said_by(heir, pipelining)
    assert leaver.wait() == 0


@EACH
def test_an_answer_that_is_read_slowly_is_complete(host: WorkerHost, kind: Kind) -> None:
    """A connection is not handed over before the last byte of an answer is the kernel's."""
    listener, size = host.listen(), 20_000_000
    leaver, heir = serve(host, kind, listener), serve(host, kind, host.listen())
    with Connection(listener) as slow, Connection(listener) as idle:
        slow.send(f"/big/{size}")
        wait_until(lambda: leaver.record.started == 1, what="the request")
        assert said_by(leaver, idle)
        leaver.drain(heir)
        wait_until(lambda: said_by(heir, idle), what="the drain")
        answer = slow.answer()
        assert (len(answer.body), answer.closes) == (size, False)
        assert said_by(heir, slow)
    assert leaver.wait() == 0


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_last_request_is_the_last(host: WorkerHost, kind: Kind, version: str) -> None:
    """HTTP/1.0 and `Connection: close` end their connection with the answer, as without heirs."""
    listener, gate = host.listen(), Gate(host)
    leaver, heir = serve(host, kind, listener), serve(host, kind, host.listen())
    with Connection(listener) as last:
        close = "Connection: close\r\n" if version == "1.1" else ""
        last.sock.sendall(
            f"GET /hold?{gate.path} HTTP/{version}\r\nHost: x\r\n{close}\r\n".encode()
        )
        gate.begun()
        leaver.drain(heir)
        gate.open()
        assert last.answer().body == str(leaver.pid).encode()
        assert last.is_closed()
    assert leaver.expect(Drained).handed == 0
    assert leaver.wait() == 0


def test_a_client_that_left_is_nobodys_trouble(host: WorkerHost, kind: Kind) -> None:
    """A connection whose client has gone is handed over like any, and ended there."""
    listener = host.listen()
    leaver, heir = serve(host, kind, listener), serve(host, kind, host.listen())
    connections = kept(listener, 4)
    leaver.signal(signal.SIGSTOP)
    close_all(connections)
    leaver.drain(heir)
    leaver.signal(signal.SIGCONT)
    assert leaver.wait() == 0
    wait_until(lambda: heir.record.connections == 0, what="no connection")


# --- to whom --------------------------------------------------------------------------------------


def test_several_heirs_share(host: WorkerHost, kind: Kind) -> None:
    """Connections are dealt to the heirs in turn."""
    listener = host.listen()
    leaver, *heirs = (get_ready(host, kind) for _ in range(4))
    leaver.accept(listener)
    connections = kept(listener, 12)
    leaver.drain(*heirs)
    assert leaver.wait() == 0
    assert Counter(c.ask().body.decode() for c in connections) == {str(h.pid): 4 for h in heirs}
    close_all(connections)


def test_an_heir_that_dies_takes_nothing_along(host: WorkerHost, kind: Kind) -> None:
    """Connections that lie unread in a dead heir's channel go to the next one."""
    listener = host.listen()
    leaver, dying, heir = (get_ready(host, kind) for _ in range(3))
    leaver.accept(listener)
    connections = kept(listener, 10)
    dying.signal(signal.SIGSTOP)
    leaver.drain(dying, heir)
    wait_until(lambda: heir.record.connections == 5, what="the other one's half")
    assert leaver.process.poll() is None
    dying.signal(signal.SIGKILL)
    assert leaver.expect(Drained).handed == 10
    for connection in connections:
        assert said_by(heir, connection)
    close_all(connections)


def test_without_an_heir_left_it_drains_as_ever(host: WorkerHost, kind: Kind) -> None:
    """When the only heir dies, answers say `Connection: close`, within the linger."""
    listener = host.listen()
    leaver, dying = (get_ready(host, kind) for _ in range(2))
    leaver.accept(listener)
    connections = kept(listener, 3)
    wait_until(lambda: leaver.record.connections == 3, what="the connections")
    dying.signal(signal.SIGSTOP)
    leaver.drain(dying, linger=60)
    wait_until(lambda: leaver.record.connections == 0, what="the handover")
    dying.signal(signal.SIGKILL)
    for connection in connections:
        answer = connection.ask()
        assert (answer.body, answer.closes) == (str(leaver.pid).encode(), True)
        assert connection.is_closed()
    assert leaver.expect(Drained).handed == 0
    assert leaver.wait() == 0


def test_a_new_heir_is_taken_up(host: WorkerHost, kind: Kind) -> None:
    """A drain that is ordered again, with an heir, hands over what it still has."""
    listener = host.listen()
    leaver, dead, heir = (get_ready(host, kind) for _ in range(3))
    leaver.accept(listener)
    connections = kept(listener, 3)
    wait_until(lambda: leaver.record.connections == 3, what="the connections")
    dead.signal(signal.SIGSTOP)
    leaver.drain(dead, linger=60)
    wait_until(lambda: leaver.record.connections == 0, what="the handover")
    leaver.drain(heir, linger=60)
    assert leaver.process.poll() is None
    dead.signal(signal.SIGKILL)
    assert leaver.expect(Drained).handed == 3
    for connection in connections:
        assert said_by(heir, connection)
    close_all(connections)


def test_an_heir_may_follow_a_foreign_signal(host: WorkerHost, kind: Kind) -> None:
    """A worker that drains by itself hands over once the supervisor names an heir."""
    listener = host.listen()
    leaver, heir = (get_ready(host, kind, linger=60.0) for _ in range(2))
    leaver.accept(listener)
    with Connection(listener) as connection:
        assert said_by(leaver, connection)
        leaver.signal(signal.SIGTERM)
        leaver.expect(Leaving)
        leaver.drain(heir, linger=60)
        assert leaver.expect(Drained).handed == 1
        assert said_by(heir, connection)


def test_a_stuck_heir_gets_a_few_only(host: WorkerHost, kind: Kind) -> None:
    """What an heir does not take is served on; what lies in its channel waits for it."""
    listener = host.listen()
    leaver, heir = (get_ready(host, kind) for _ in range(2))
    leaver.accept(listener)
    connections = kept(listener, WINDOW + 8)
    heir.signal(signal.SIGSTOP)
    leaver.drain(heir)
    wait_until(lambda: leaver.record.connections == 8, what="the first ones' handover")
    for connection in connections:
        connection.send()
    wait_until(lambda: leaver.record.finished == WINDOW + 8 + 8, what="the other answers")
    heir.signal(signal.SIGCONT)
    by = Counter(connection.answer().body.decode() for connection in connections)
    assert by == {str(heir.pid): WINDOW, str(leaver.pid): 8}
    assert leaver.expect(Drained).handed == WINDOW + 8
    for connection in connections:
        assert said_by(heir, connection)
    close_all(connections)


def test_an_heir_that_drains_hands_on(host: WorkerHost, kind: Kind) -> None:
    """A connection that comes to a draining worker goes on to that one's heir."""
    listener, gate, other = host.listen(), Gate(host), Gate(host, "other")
    first, second, third = (get_ready(host, kind) for _ in range(3))
    first.accept(listener)
    second.accept(listener_of_second := host.listen())
    with Connection(listener) as busy, Connection(listener_of_second) as holding:
        busy.send(f"/hold?{gate.path}")
        holding.send(f"/hold?{other.path}")
        gate.begun()
        other.begun()
        first.drain(second)
        second.drain(third)
        gate.open()
        assert busy.answer().body == str(first.pid).encode()
        assert first.expect(Drained).handed == 1
        wait_until(lambda: said_by(third, busy), what="the third one")
        other.open()
        assert holding.answer().body == str(second.pid).encode()
        assert said_by(third, holding)
        assert second.expect(Drained).handed == 2


# --- how ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["127.0.0.1", "0.0.0.0", "::1", "unix"])
def test_the_app_sees_the_same_addresses(host: WorkerHost, kind: Kind, family: str) -> None:
    """Client, server and scheme are after a handover what they were before."""
    listener = host.listen(unix=True) if family == "unix" else host.listen(host=family)
    leaver, heir = (get_ready(host, kind) for _ in range(2))
    leaver.accept(listener)
    with Connection(listener) as connection:
        before = json.loads(connection.ask("/addresses").body)
        if family == "unix":
            assert before == [*(kind.unix or (None, [listener.address, None])), "http"]
        else:
            client, server = connection.sock.getsockname(), connection.sock.getpeername()
            assert before == [list(client[:2]), list(server[:2]), "http"]
        leaver.drain(heir)
        assert leaver.wait() == 0
        assert json.loads(connection.ask("/addresses").body) == before
        assert heir.record.started == 1


def give(worker: HostedWorker, note: Note) -> tuple[socket.socket, Connection]:
    """Give a worker one end of a stream; return the channel and the other end as a client."""
    mine, its = socket.socketpair()
    channel = worker.take_over()
    assert send_connection(channel, its.fileno(), note)
    its.close()
    connection = Connection.over(mine)
    return channel, connection


def test_a_probe_needs_no_listener(host: WorkerHost, kind: Kind) -> None:
    """A ready worker that accepts nothing yet answers on a stream that it is given."""
    worker = get_ready(host, kind)
    channel, connection = give(worker, Note(idle_since=time.monotonic(), new=True))
    with channel, connection:
        channel.close()
        assert said_by(worker, connection)
        assert said_by(worker, connection)
    wait_until(lambda: worker.record.connections == 0, what="no connection")
    worker.drain()
    assert worker.wait() == 0


def test_the_time_of_keepalive_goes_on(host: WorkerHost, kind: Kind) -> None:
    """A connection that was idle for long enough is closed; one that has not asked yet is not."""
    worker = get_ready(host, kind, keepalive=3600.0)
    past = time.monotonic() - 3600
    channel, idle = give(worker, Note(idle_since=past))
    other_channel, new = give(worker, Note(idle_since=past, new=True))
    with channel, other_channel, idle, new:
        assert idle.is_closed()
        assert said_by(worker, new)


def test_an_adopted_connection_keeps_its_age(host: WorkerHost, kind: Kind) -> None:
    """What a leaver says of a connection is what a client saw, not when it was handed over."""
    worker = get_ready(host, kind, keepalive=3600.0)
    since = time.monotonic() - 1000
    channel, idle = give(worker, Note(idle_since=since))
    leavers_end, heirs_end = make_channel()
    with channel, leavers_end, heirs_end, idle:
        wait_until(lambda: worker.record.connections == 1, what="the connection")
        worker.drain_into(leavers_end)
        packet = wait_until(lambda: _packet(heirs_end), what="the connection")
        assert Note(**json.loads(packet)).idle_since == pytest.approx(since, abs=1)


def _packet(channel: socket.socket) -> bytes:
    try:
        data, fds, _, _ = socket.recv_fds(channel, 65_536, 1)
    except BlockingIOError:
        return b""
    for fd in fds:
        os.close(fd)
    return data


def test_a_note_that_is_not_understood_is_refused(host: WorkerHost, kind: Kind) -> None:
    """A connection whose note says more than the heir knows stays with the leaver."""
    worker = get_ready(host, kind)
    mine, its = socket.socketpair()
    with mine, its, worker.take_over() as channel:
        for packet in (b"{}", b"nonsense", b'{"idle_since": 1, "compressed": true}'):
            socket.send_fds(channel, [packet], [its.fileno()])
        taken: list[bool] = []
        while len(taken) < 3:
            wait_until(lambda: select([channel], [], [], 0)[0], what="an answer")
            taken += read_answers(channel).taken
        assert taken == [False, False, False]


def test_nothing_is_left_of_a_channel(host: WorkerHost, kind: Kind) -> None:
    """After a handover an heir has one fd more for each connection, and no other."""
    listener = host.listen()
    heir = serve(host, kind, host.listen())
    fds = Path(f"/proc/{heir.pid}/fd")
    before = len(list(fds.iterdir()))
    for _ in range(2):
        leaver = serve(host, kind, listener)
        connections = kept(listener, 3)
        leaver.drain(heir)
        assert leaver.wait() == 0
        wait_until(lambda: heir.record.connections == 3, what="the connections")
        wait_until(lambda: len(list(fds.iterdir())) == before + 3, what="3 more fds")
        close_all(connections)
        wait_until(lambda: len(list(fds.iterdir())) == before, what="as many fds as before")
