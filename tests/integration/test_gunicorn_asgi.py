"""gunicorn's asgi class, from request to request of one connection."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from drumd.wire.messages import Leaving
from tests.integration.http_clients import Connection
from tests.integration.worker_host import HostedWorker, Listener, WorkerHost
from tests.waiting import wait_until

APP = "gunicorn_asgi_turns:app"
CALLS_AT_ONCE = 16
"""gunicorn's limit of calls on one connection that go on after their answers."""


@pytest.fixture
def host() -> Iterator[WorkerHost]:
    with WorkerHost() as host:
        yield host


@pytest.fixture
def listener(host: WorkerHost) -> Listener:
    return host.listen()


def serve(host: WorkerHost, listener: Listener, app: str = APP, **wanted: Any) -> HostedWorker:
    options = {"worker_class": "asgi", **wanted.pop("gunicorn", {})}
    return host.serve(app, listener, runtime="gunicorn", options={"gunicorn": options}, **wanted)


def finished(worker: HostedWorker, count: int) -> None:
    wait_until(lambda: worker.record.finished == count, what=f"{count} finished requests")
    assert worker.record.in_flight == 0


def head(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


# --- keep-alive -----------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_keep_alive_ends_when_its_time_is_over(
    host: WorkerHost, listener: Listener, loop: str
) -> None:
    """A connection that waits for longer than keep-alive is closed, however often it asked."""
    serve(host, listener, keepalive=1.0, gunicorn={"asgi_loop": loop})
    with Connection(listener) as one:
        for _ in range(3):
            assert not one.ask("/a").closes
        assert one.is_closed()


def test_keep_alive_spares_who_is_busy_or_new(host: WorkerHost, listener: Listener) -> None:
    """Keep-alive's time ends no connection that is answered, that goes on after, or never asked."""
    worker = serve(host, listener, keepalive=1.0)
    gates = [Path(host.path(name)) for name in ("during", "after")]
    with (
        Connection(listener) as during,
        Connection(listener) as after,
        Connection(listener) as new,
        Connection(listener) as idle,
    ):
        during.ask("/a")
        during.send(f"/before?{gates[0]}")
        assert after.ask(f"/after?{gates[1]}").status == 200
        wait_until(lambda: worker.record.connections == 4, what="four connections")
        idle.ask("/a")
        assert idle.is_closed()
        assert after.ask("/b").body == b"/b"
        assert new.ask("/c").body == b"/c"
        gates[0].touch()
        assert during.answer().body == b"/before"
        gates[1].touch()
        assert after.is_closed()


def test_half_a_head_does_not_prolong_keep_alive(host: WorkerHost, listener: Listener) -> None:
    """Bytes that are no whole head do not keep a connection open."""
    serve(host, listener, keepalive=1.0)
    with Connection(listener) as slow:
        slow.ask("/a")
        slow.sock.sendall(b"GET / HTTP/1.1\r\nHo")
        assert slow.is_closed()


# --- one request after the other ------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(host: WorkerHost, listener: Listener) -> None:
    """Requests that come in one piece, cut anywhere, are answered in their order, each once."""
    worker = serve(host, listener)
    asked = [f"/{number}" for number in range(5)]
    stream = b"".join(map(head, asked))
    with Connection(listener) as client:
        for cut in (0, 20, len(head("/0")), len(stream) - 3):
            client.sock.sendall(stream[:cut])
            client.sock.sendall(stream[cut:])
            assert [client.answer().body.decode() for _ in asked] == asked
    finished(worker, 20)
    assert worker.record.status_2xx == 20


def test_broken_request_after_a_good_one(host: WorkerHost, listener: Listener) -> None:
    """After a good request, a broken one behind it gets 400 and ends the connection."""
    worker = serve(host, listener)
    with Connection(listener) as client:
        client.sock.sendall(head("/a") + b"NOT\x01HTTP\r\n\r\n")
        assert client.answer().body == b"/a"
        assert client.answer().status == 400
        assert client.is_closed()
    finished(worker, 2)
    assert (worker.record.status_2xx, worker.record.status_4xx) == (1, 1)


def test_chunked_both_ways(host: WorkerHost, listener: Listener) -> None:
    """Chunked bodies go in, in pieces, and out, and the connection goes on."""
    worker = serve(host, listener)
    with Connection(listener) as client:
        for _ in range(2):
            client.send("/echo", headers="Transfer-Encoding: chunked\r\n")
            for piece in (b"3\r\nabc\r\n", b"2\r\nd", b"e\r\n0\r\n", b"\r\n"):
                client.sock.sendall(piece)
            assert client.answer().body == b"abcde"
            assert client.ask("/chunks").body == b"onetwo"
    finished(worker, 4)


def test_large_body_is_read_whole(host: WorkerHost, listener: Listener) -> None:
    """A body larger than what is buffered comes whole, and the connection goes on."""
    serve(host, listener)
    body = bytes(range(256)) * 8192
    with Connection(listener) as client:
        for _ in range(2):
            assert client.ask("/echo", body=body).body == body


def test_large_body_that_nobody_takes_stops_nothing(host: WorkerHost, listener: Listener) -> None:
    """A body so large that reading stops, and that the app leaves, does not stop the next one."""
    serve(host, listener)
    gate = Path(host.path("gate"))
    with Connection(listener) as client:
        client.send(f"/before?{gate}", body=b"x" * 400_000)
        wait_until(Path(f"{gate}.begun").exists, what="the request in flight")
        everything_read(client)
        gate.touch()
        answer = client.answer()
        assert (answer.body, answer.closes) == (b"/before", False)
        assert client.ask("/b").body == b"/b"


def test_body_that_is_not_read_is_no_request(host: WorkerHost, listener: Listener) -> None:
    """When an answer comes before the body has, the connection ends: nothing of it is parsed."""
    worker = serve(host, listener)
    with Connection(listener) as client:
        client.send("/a", headers="Content-Length: 1000\r\n")
        assert client.answer().body == b"/a"
        assert client.is_closed()
    finished(worker, 1)


def test_expect_continue(host: WorkerHost, listener: Listener) -> None:
    """A client that waits for 100 gets it when the app asks for the body."""
    serve(host, listener)
    with Connection(listener) as client:
        client.send("/echo", headers="Expect: 100-continue\r\nContent-Length: 2\r\n")
        assert client.answer().status == 100
        client.sock.sendall(b"ok")
        assert client.answer().body == b"ok"
        assert client.ask("/a").body == b"/a"


def test_max_requests_ends_the_connection(host: WorkerHost, listener: Listener) -> None:
    """gunicorn's max_requests makes the last answer say so, and the worker leaves."""
    worker = serve(host, listener, gunicorn={"max_requests": 2})
    with Connection(listener) as client:
        assert [client.ask("/a").closes for _ in range(2)] == [False, True]
        assert client.is_closed()
    assert worker.wait() == 0
    assert not any(isinstance(message, Leaving) for message in worker.messages)


# --- calls that go on after their answer ----------------------------------------------------------


def test_next_request_does_not_wait_for_what_follows_an_answer(
    host: WorkerHost, listener: Listener
) -> None:
    """While the app goes on after its answer, the request counts as done and the next is served."""
    worker = serve(host, listener)
    gate = Path(host.path("gate"))
    with Connection(listener) as client:
        assert client.ask(f"/after?{gate}").status == 200
        finished(worker, 1)
        assert client.ask("/b").body == b"/b"
        finished(worker, 2)
        gate.touch()
        assert client.ask("/c").body == b"/c"


def test_too_many_calls_hold_the_next_request_back(host: WorkerHost, listener: Listener) -> None:
    """With as many calls going on as gunicorn allows, the next request waits until one ends."""
    worker = serve(host, listener)
    gates = [Path(host.path(f"gate-{number}")) for number in range(CALLS_AT_ONCE)]
    with Connection(listener) as client, Connection(listener) as other:
        for gate in gates:
            assert client.ask(f"/after?{gate}").status == 200
        client.send("/late")
        for _ in range(3):
            assert other.ask("/b").status == 200
        finished(worker, CALLS_AT_ONCE + 3)
        gates[7].touch()
        assert client.answer().body == b"/late"
        finished(worker, CALLS_AT_ONCE + 4)


def test_connection_closes_only_after_the_call(host: WorkerHost, listener: Listener) -> None:
    """A connection whose answer says that it ends is closed when the app's call is over."""
    worker = serve(host, listener)
    gate = Path(host.path("gate"))
    with Connection(listener) as client, Connection(listener) as other:
        answer = client.ask(f"/after?{gate}", headers="Connection: close\r\n")
        assert answer.status == 200
        wait_until(lambda: worker.record.connections == 2, what="both connections")
        assert other.ask("/b").status == 200
        client.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.sock.recv(1)
        client.sock.setblocking(True)
        gate.touch()
        assert client.is_closed()


# --- requests without a good end ------------------------------------------------------------------


def test_app_that_says_nothing_is_a_500(host: WorkerHost, listener: Listener) -> None:
    """A call that ends without an answer is answered and counted as 500."""
    worker = serve(host, listener)
    with Connection(listener) as client:
        answer = client.ask("/silent")
        assert (answer.status, answer.closes) == (500, True)
        assert client.is_closed()
    finished(worker, 1)
    assert worker.record.status_5xx == 1


def test_answer_cut_off_has_no_status(host: WorkerHost, listener: Listener) -> None:
    """A call that fails in the midst of its answer ends the connection, and has no status."""
    worker = serve(host, listener)
    with Connection(listener) as client:
        client.send("/half")
        with pytest.raises(ConnectionError):
            client.answer()
    finished(worker, 1)
    assert worker.record.no_status == 1


def test_client_that_goes_away_is_no_status(host: WorkerHost, listener: Listener) -> None:
    """The app is told of a client that went away; its request counts as unanswered."""
    worker = serve(host, listener)
    gate = Path(host.path("gate"))
    with Connection(listener) as client:
        client.ask("/a")
        client.send(f"/gone?{gate}")
        wait_until(Path(f"{gate}.begun").exists, what="the request in flight")
    wait_until(gate.exists, what="the app's http.disconnect")
    finished(worker, 2)
    assert (worker.record.status_2xx, worker.record.no_status) == (1, 1)
    wait_until(lambda: worker.record.connections == 0, what="no connection")


def test_broken_body_counts_once(host: WorkerHost, listener: Listener) -> None:
    """A request whose body turns out to be broken counts once, as the 400 that it gets."""
    worker = serve(host, listener)
    with Connection(listener) as client:
        client.send("/echo", headers="Transfer-Encoding: chunked\r\n")
        wait_until(lambda: worker.record.in_flight == 1, what="the request in flight")
        client.sock.sendall(b"no size\r\n")
        assert client.answer().status == 400
        assert client.is_closed()
    finished(worker, 1)
    assert worker.record.status_4xx == 1


def test_connections_that_ended_leave_no_task(host: WorkerHost, listener: Listener) -> None:
    """The task of an idle connection ends with it, not after gunicorn's grace period."""
    worker = serve(host, listener, gunicorn={"asgi_disconnect_grace_period": 3600})
    for _ in range(20):
        with Connection(listener) as client:
            client.ask("/a")
    wait_until(lambda: worker.record.connections == 0, what="no connection")
    with Connection(listener) as client:
        assert int(client.ask("/tasks").body) < 20


# --- drains ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pipelined", [False, True])
def test_drain_closes_what_waits_and_nothing_else(
    host: WorkerHost, listener: Listener, pipelined: bool
) -> None:
    """In a drain without linger, idle connections end; half a request gets its answer."""
    worker = serve(host, listener)
    late = head("/late")
    with Connection(listener) as idle, Connection(listener) as half:
        assert not idle.ask("/a").closes
        if pipelined:
            half.sock.sendall(head("/a") + late[:20])
            assert not half.answer().closes
        else:
            assert not half.ask("/a").closes
            half.sock.sendall(late[:20])
            everything_read(half)
        worker.drain()
        assert idle.is_closed()
        half.sock.sendall(late[20:])
        answer = half.answer()
        assert (answer.body, answer.closes) == (b"/late", True)
    assert worker.wait() == 0


def test_drain_keeps_a_promise_that_gunicorn_looks_at_twice(
    host: WorkerHost, listener: Listener
) -> None:
    """An answer begun before a drain keeps its connection, when its request's headers were read."""
    worker = serve(host, listener)
    gate = Path(host.path("gate"))
    with Connection(listener) as client:
        # It is no websocket's, but to see that gunicorn reads the headers, and then asks again.
        client.send(f"/amid?{gate}", headers="Upgrade: other\r\n")
        wait_until(Path(f"{gate}.begun").exists, what="the answer begun")
        with Connection(listener) as idle:
            worker.drain(linger=30)
            wait_until(lambda: idle.ask("/b").closes, what="the drain")
        gate.touch()
        assert not client.answer().closes
        assert client.ask("/c").closes
    assert worker.wait() == 0


def everything_read(client: Connection) -> None:
    """Wait until what `client` has sent was read on the other side."""
    local, peer = client.sock.getsockname(), client.sock.getpeername()

    def unread() -> int:
        count = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, ours, theirs, _, queues, *_ = line.split()
            sent, received = (int(each, 16) for each in queues.split(":"))  # proc_net_tcp(5)
            if (port(ours), port(theirs)) == (local[1], peer[1]):
                count += sent
            if (port(ours), port(theirs)) == (peer[1], local[1]):
                count += received
        return count

    wait_until(lambda: unread() == 0, what="the bytes to be read")


def port(address: str) -> int:
    return int(address.split(":")[1], 16)


def test_drain_waits_for_calls_that_go_on(host: WorkerHost, listener: Listener) -> None:
    """A drain does not close a connection whose last call still goes on after its answer."""
    worker = serve(host, listener)
    gate = Path(host.path("gate"))
    with Connection(listener) as busy, Connection(listener) as idle:
        assert busy.ask(f"/after?{gate}").status == 200
        idle.ask("/a")
        worker.drain()
        assert idle.is_closed()
        answer = busy.ask("/b")
        assert (answer.body, answer.closes) == (b"/b", True)
        gate.touch()
        assert busy.is_closed()
    assert worker.wait() == 0


# --- other protocols ------------------------------------------------------------------------------


def test_uwsgi_is_counted(host: WorkerHost, listener: Listener) -> None:
    """Requests by the uwsgi protocol are served and counted."""
    worker = serve(host, listener, gunicorn={"protocol": "uwsgi", "uwsgi_allow_ips": "*"})
    with Connection(listener) as client:
        for path in ("/a", "/b"):
            client.sock.sendall(uwsgi_request(path))
            answer = client.answer()
            assert (answer.status, answer.body) == (200, path.encode())
    finished(worker, 2)
    assert worker.record.status_2xx == 2


def uwsgi_request(path: str) -> bytes:
    fields = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "REQUEST_URI": path, "QUERY_STRING": ""}
    text = b"".join(
        struct.pack("<H", len(item)) + item.encode() for pair in fields.items() for item in pair
    )
    return struct.pack("<BHB", 0, len(text), 0) + text


def test_websocket_after_a_request(host: WorkerHost, listener: Listener) -> None:
    """A websocket opens beside requests, and counts as none."""
    worker = serve(host, listener, app="gunicorn_asgi_app:app")
    name, number = listener.address
    with Connection(listener) as client, connect(f"ws://{name}:{number}/"):
        assert client.ask("/").status == 200
        finished(worker, 1)
        with contextlib.suppress(OSError):
            client.sock.shutdown(socket.SHUT_RDWR)


# --- the collector --------------------------------------------------------------------------------


@pytest.mark.parametrize(("env", "threshold"), [({}, b"2000"), ({"GC_THRESHOLD": "123"}, b"123")])
def test_collector_is_calm_unless_the_app_has_set_it(
    host: WorkerHost, listener: Listener, env: dict[str, str], threshold: bytes
) -> None:
    """The garbage collector starts as seldom as in CPython 3.13, or as the app wants it to."""
    serve(host, listener, env=env)
    with Connection(listener) as client:
        assert client.ask("/collector").body == threshold
