import os
import re
import select
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from drumd.wire.handover import Note, read_answers, send_connection
from drumd.wire.messages import Accept, Drained, Failed, Leaving, Loaded, Ready
from drumd.wire.records import Record
from tests.integration.http_clients import Connection, Load
from tests.integration.worker_host import HostedWorker, Listener, WorkerHost
from tests.waiting import wait_until

VARIANTS = [
    pytest.param({"loop": loop, "http": http}, id=f"{loop}-{http}")
    for loop in ("uvloop", "asyncio")
    for http in ("httptools", "h11")
]
LOOPS = [
    pytest.param({"loop": loop, "http": "httptools"}, id=loop) for loop in ("uvloop", "asyncio")
]
PARSERS = [pytest.param({"loop": "uvloop", "http": http}, id=http) for http in ("httptools", "h11")]
APP = "asgi_app:app"

Options = dict[str, object]


@pytest.fixture
def host() -> Iterator[WorkerHost]:
    with WorkerHost() as host:
        yield host


def serve(
    host: WorkerHost, listener: Listener, options: Options | None = None, **wanted: object
) -> HostedWorker:
    return host.serve(
        APP, listener, runtime="uvicorn", options={"uvicorn": options or {}}, **wanted
    )


def finished(worker: HostedWorker, count: int) -> Record:
    """Return the record once `count` requests ended: an answer leaves just before it is counted."""
    wait_until(lambda: worker.record.finished >= count, what=f"{count} requests")
    record = worker.record
    assert (record.started, record.finished) == (count, count)
    return record


# --- keeping --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", PARSERS)
def test_an_idle_connection_is_closed_in_time(host: WorkerHost, options: Options) -> None:
    """A kept connection is closed once it was idle for keepalive seconds, a busy one is not."""
    listener = host.listen()
    worker = serve(host, listener, options, keepalive=1.0)
    with Connection(listener) as idle, Connection(listener) as busy:
        assert idle.ask().body == busy.ask().body
        busy.send("/wait")
        wait_until(lambda: worker.record.in_flight == 1, what="the request")
        wait_until(idle.is_closed, what="the end of the idle connection")
        assert worker.record.in_flight == 1  # its end would have ended the request


@pytest.mark.parametrize("options", PARSERS)
def test_a_connection_that_goes_on_asking_stays(host: WorkerHost, options: Options) -> None:
    """Each request begins the time of keepalive anew."""
    listener = host.listen()
    serve(host, listener, options, keepalive=1.0)
    began = time.monotonic()
    with Connection(listener) as connection:
        asked = 0
        while time.monotonic() < began + 2.5:
            assert connection.ask().body
            asked += 1
    assert asked > 2


# --- accepting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", VARIANTS)
def test_tcp_and_unix_listeners_are_served_at_once(host: WorkerHost, options: Options) -> None:
    """A worker accepts from all the listeners that it is told, and tells who it is."""
    tcp, unix = host.listen(), host.listen(unix=True)
    worker = host.serve(APP, tcp, unix, options={"uvicorn": options})
    assert Loaded(interface="asgi", runtime="uvicorn", event_loop=True) in worker.messages
    for listener in (tcp, unix):
        with Connection(listener) as connection:
            assert connection.ask().body == str(worker.pid).encode()
            assert connection.ask("/upload", body=b"x" * 300_000).body == b"300000"


def test_nothing_is_accepted_before_it_is_told(host: WorkerHost) -> None:
    """A ready worker leaves connections in the queue until the supervisor says accept."""
    listener = host.listen()
    worker = host.spawn(APP, runtime="uvicorn")
    worker.expect(Ready)
    with Connection(listener) as connection:
        connection.send()
        worker.accept()  # an empty set: it has answered, and still accepts nothing
        assert worker.record.started == 0
        worker.accept(listener)
        assert connection.answer().status == 200


@pytest.mark.parametrize("options", VARIANTS)
def test_handovers_lose_no_connection(host: WorkerHost, options: Options) -> None:
    """Two workers hand a listener to and fro 20 times under load; every connection is answered."""
    listener = host.listen()
    first, second = serve(host, listener, options), serve(host, host.listen(), options)
    with Load(listener) as load:
        for _ in range(10):
            for taker, giver in ((second, first), (first, second)):
                taker.accept(listener)
                giver.accept()
                goal = load.count + 10
                wait_until(lambda goal=goal: load.count >= goal, what="answers")  # type: ignore[misc]
    assert load.failed == []
    assert set(load.answered) == {str(first.pid), str(second.pid)}


def test_a_held_listener_is_not_opened_twice(host: WorkerHost) -> None:
    """Fds of listeners that a worker holds already are closed, so that repeating costs nothing."""
    listener = host.listen()
    worker = serve(host, listener)
    fds = Path(f"/proc/{worker.pid}/fd")
    before = len(list(fds.iterdir()))
    for _ in range(5):
        worker.accept(listener)
    assert len(list(fds.iterdir())) == before


def test_the_backlog_stays_what_the_spec_says(host: WorkerHost) -> None:
    """A worker that listens again says the pool's backlog, not its server's default."""
    listener = host.listen(backlog=77)
    serve(host, listener, backlog=77)
    # tcpi_sacked of a listening socket is its backlog: tcp_get_info() in net/ipv4/tcp.c.
    info = listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    assert int.from_bytes(info[28:32], "little") == 77


def tls_options(host: WorkerHost) -> Options:
    key, certificate = host.path("key.pem"), host.path("cert.pem")
    request = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    files = ("-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost")
    subprocess.run([*request, *files], check=True, capture_output=True)
    return {"ssl_keyfile": key, "ssl_certfile": certificate}


def connect_by_tls(listener: Listener, options: Options) -> Connection:
    context = ssl.create_default_context(cafile=str(options["ssl_certfile"]))
    connection = Connection(listener)
    connection.sock = context.wrap_socket(connection.sock, server_hostname="localhost")
    return connection


def test_tls_is_uvicorns_own(host: WorkerHost) -> None:
    """A certificate in the uvicorn options makes the worker speak TLS on each listener."""
    listener, options = host.listen(), tls_options(host)
    worker = serve(host, listener, options)
    with connect_by_tls(listener, options) as connection:
        assert connection.ask().status == 200
        worker.drain(linger=60)
        wait_until(lambda: connection.ask().closes, what="Connection: close")
    assert worker.wait() == 0


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", PARSERS)
def test_requests_are_metered(host: WorkerHost, options: Options) -> None:
    """Each request counts once, under the class of the status that was sent."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection:
        for code in (200, 204, 301, 404, 404, 500, 503):
            assert connection.ask(f"/status/{code}").status == code
        assert connection.ask("/stream/0.05").body.endswith(b"end")
    with Connection(listener) as connection:
        assert connection.ask("/raise").status == 500
    record = finished(worker, 9)
    assert (record.status_2xx, record.status_3xx) == (3, 1)
    assert (record.status_4xx, record.status_5xx, record.no_status) == (2, 3, 0)
    assert record.durations[0] < 9 == sum(record.durations)


@pytest.mark.parametrize("options", PARSERS)
def test_counts_are_right_under_load(host: WorkerHost, options: Options) -> None:
    """As many requests are counted as clients got answers."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Load(listener) as load:
        wait_until(lambda: load.count > 300, what="answers")
    assert load.failed == []
    record = finished(worker, load.count)
    assert record.status_2xx == load.count


@pytest.mark.parametrize("options", VARIANTS)
def test_a_client_that_leaves_ends_its_request(host: WorkerHost, options: Options) -> None:
    """Without an answer a request counts as one without status, and is in flight no more."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection:
        connection.send("/wait")
        wait_until(lambda: worker.record.in_flight == 1, what="the request")
        wait_until(lambda: worker.record.connections == 1, what="the connection")
        assert worker.record.oldest_ns > 0
    wait_until(lambda: worker.record.finished == 1, what="its end")
    assert (worker.record.no_status, worker.record.oldest_ns) == (1, 0)
    wait_until(lambda: "the client went away" in worker.output, what="the app's word")
    wait_until(lambda: worker.record.connections == 0, what="no connection")


@pytest.mark.parametrize("options", PARSERS)
def test_pipelined_requests_are_metered(host: WorkerHost, options: Options) -> None:
    """Requests that were sent at once are answered and counted one by one."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection:
        for code in (200, 404, 500):
            connection.send(f"/status/{code}")
        assert [connection.answer().status for _ in range(3)] == [200, 404, 500]
    record = finished(worker, 3)
    assert (record.status_2xx, record.status_4xx, record.status_5xx) == (1, 1, 1)


def test_a_forked_child_does_not_write_in_the_scoreboard(host: WorkerHost) -> None:
    """What a child of the app counts stays its own."""
    listener = host.listen()
    worker = serve(host, listener)
    with Connection(listener) as connection:
        assert connection.ask("/fork").status == 200
    assert finished(worker, 1).pid == worker.pid
    wait_until(lambda: worker.record.connections == 0, what="no connection")


def test_a_blocked_loop_stops_beating_and_shows_its_lag(host: WorkerHost) -> None:
    """The beat comes from the loop that must make progress."""
    listener = host.listen()
    worker = serve(host, listener)
    wait_until(lambda: worker.record.beat_ns, what="a beat")
    with Connection(listener) as connection:
        assert connection.ask("/block/1").status == 200
    wait_until(lambda: worker.record.lag_ns > 500_000_000, what="the lag")


def test_an_idle_worker_hardly_wakes(host: WorkerHost) -> None:
    """Over 12 beats an idle worker sleeps and wakes about once a beat, not ten times a second."""
    worker = serve(host, host.listen())
    beats: list[int] = []

    def beat() -> bool:
        if not beats or worker.record.beat_ns != beats[-1]:
            beats.append(worker.record.beat_ns)
        return len(beats) == 2

    wait_until(beat, what="two beats")
    start, first = _switches(worker.pid), len(beats)
    wait_until(lambda: beat() or len(beats) >= first + 12, what="twelve beats")
    assert _switches(worker.pid) - start <= 12 * 1.25 + 3


def _switches(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(each) for each in re.findall(r"voluntary_ctxt_switches:\s+(\d+)", status))


# --- draining -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", VARIANTS)
def test_a_drain_finishes_what_is_in_flight(host: WorkerHost, options: Options) -> None:
    """A request in flight is answered with `Connection: close`; then the worker ends with 0."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection:
        connection.send("/slow/1")
        wait_until(lambda: "slow" in worker.output, what="the request")
        worker.drain()
        answer = connection.answer()
        assert (answer.body, answer.closes) == (b"slow", True)
        assert connection.is_closed()
    assert worker.wait() == 0
    assert worker.messages[-1] == Drained()
    assert "shutting down" in worker.finished_output()
    assert worker.record.in_flight == worker.record.connections == 0


@pytest.mark.parametrize("options", VARIANTS)
def test_an_idle_connection_lingers_for_one_more_request(
    host: WorkerHost, options: Options
) -> None:
    """Within the linger a keep-alive connection is answered, with the word that it ends."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection:
        assert not connection.ask().closes
        worker.drain(linger=60)
        wait_until(lambda: connection.ask().closes, what="Connection: close")
        assert connection.is_closed()
    assert worker.wait() == 0


def test_a_linger_ends(host: WorkerHost) -> None:
    """An idle keep-alive connection is closed when the linger is over."""
    listener = host.listen()
    worker = serve(host, listener)
    with Connection(listener) as connection:
        connection.ask()
        worker.drain(linger=0.2)
        assert connection.is_closed()
    assert worker.wait() == 0


def test_a_new_connection_gets_its_first_request_answered(host: WorkerHost) -> None:
    """A connection that was accepted just before a drain is not closed before it could ask."""
    listener = host.listen()
    worker = serve(host, listener)
    with Connection(listener) as other, Connection(listener) as connection:
        other.ask()  # both connections were accepted by now
        worker.drain(linger=0)
        assert other.is_closed()
        assert connection.ask().closes
    assert worker.wait() == 0


@pytest.mark.parametrize("handing", [False, True])
def test_a_drain_tells_websockets_to_come_back(host: WorkerHost, handing: bool) -> None:
    """A websocket is closed with 1012 (service restart), whether there is an heir or not."""
    listener = host.listen()
    worker = serve(host, listener)
    heirs = [host.serve(APP)] if handing else []
    address, port = listener.address
    with websockets.sync.client.connect(f"ws://{address}:{port}/") as client:
        client.send("hello")
        assert client.recv() == "hello"
        wait_until(lambda: worker.record.connections == 1, what="the connection")
        worker.drain(*heirs)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert worker.wait() == 0


@pytest.mark.parametrize("options", PARSERS)
def test_a_drain_answers_what_was_pipelined(host: WorkerHost, options: Options) -> None:
    """Requests behind one in flight are all answered, the last one with the end."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection:
        connection.sock.sendall(
            b"GET /slow/0.5 HTTP/1.1\r\nHost: x\r\n\r\n" + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2
        )
        wait_until(lambda: "slow" in worker.output, what="the request")
        worker.drain()
        assert not (first := connection.answer()).closes
        assert first.body == b"slow"
        assert not connection.answer().closes
        assert connection.answer().closes
        assert connection.is_closed()
    assert worker.wait() == 0
    assert worker.messages[-1] == Drained()


@pytest.mark.parametrize("options", PARSERS)
def test_a_lingering_client_may_pipeline(host: WorkerHost, options: Options) -> None:
    """Requests that come together in a drain are all answered, the last one with the end."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection, Connection(listener) as other:
        connection.ask()
        other.ask()
        worker.drain(linger=60)
        wait_until(lambda: other.ask().closes, what="the drain")
        connection.sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        assert [connection.answer().closes for _ in range(3)] == [False, False, True]
        assert connection.is_closed()
    assert worker.wait() == 0


@pytest.mark.parametrize("options", VARIANTS)
def test_a_drain_lets_a_stream_end(host: WorkerHost, options: Options) -> None:
    """An answer in chunks that began before the drain is complete before its connection ends."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection:
        connection.send("/stream/0.5")
        wait_until(lambda: worker.record.in_flight == 1, what="the request")
        worker.drain()
        assert connection.answer().body.endswith(b"xend")
        assert connection.is_closed()
    assert worker.wait() == 0


@pytest.mark.parametrize("options", PARSERS)
def test_a_drain_takes_a_slow_upload(host: WorkerHost, options: Options) -> None:
    """A request whose body comes in during the drain is answered; others have ended by then."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection, Connection(listener) as idle:
        idle.ask()
        connection.sock.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n0")
        wait_until(lambda: worker.record.in_flight == 1, what="the request")
        worker.drain()
        assert idle.is_closed()
        connection.sock.sendall(b"1" * 19)
        answer = connection.answer()
        assert (answer.body, answer.closes) == (b"20", True)
    assert worker.wait() == 0


@pytest.mark.parametrize("options", PARSERS)
def test_a_drain_takes_a_request_that_is_coming_in(host: WorkerHost, options: Options) -> None:
    """A connection on which a part of a request was read is not closed before the rest came."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection, Connection(listener) as idle:
        connection.ask()
        connection.sock.sendall(b"GET / HTT")
        assert idle.ask().status == 200
        worker.drain()
        assert idle.is_closed()
        connection.sock.sendall(b"P/1.1\r\nHost: x\r\n\r\n")
        assert connection.answer().closes
    assert worker.wait() == 0


@pytest.mark.parametrize("options", PARSERS)
def test_a_drain_asks_for_an_expected_body(host: WorkerHost, options: Options) -> None:
    """`Expect: 100-continue` on a lingering connection gets its 100 and its answer."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection, Connection(listener) as other:
        connection.ask()
        other.ask()
        worker.drain(linger=60)
        wait_until(lambda: other.ask().closes, what="the drain")
        connection.sock.sendall(
            b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.answer().status == 100
        connection.sock.sendall(b"12345")
        answer = connection.answer()
        assert (answer.body, answer.closes) == (b"5", True)
    assert worker.wait() == 0


@pytest.mark.parametrize("options", VARIANTS)
def test_a_slow_client_is_left_at_the_deadline(host: WorkerHost, options: Options) -> None:
    """One that never reads, and one that never sends the rest, keep a worker no longer."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as reading, Connection(listener) as sending:
        reading.send("/stream/3600")
        sending.sock.sendall(b"GET / HTTP/1.1\r\nHo")
        wait_until(lambda: worker.record.in_flight == 1, what="the request")
        worker.drain(patience=0.5)
        assert worker.wait() == 0
    assert Drained() not in worker.messages


def test_an_endless_stream_is_left_to_the_deadline(host: WorkerHost) -> None:
    """While a stream goes on, the drain waits; a SIGTERM then ends the worker at once."""
    listener = host.listen()
    worker = serve(host, listener)
    with Connection(listener) as connection, Connection(listener) as idle:
        connection.send("/stream/3600")
        idle.ask()
        worker.drain()
        assert idle.is_closed()  # the drain is under way
        assert worker.process.poll() is None
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert Drained() not in worker.messages


def test_a_shutdown_that_hangs_ends_at_the_deadline(host: WorkerHost) -> None:
    """The app's lifespan has until the drain's deadline to shut down."""
    worker = serve(host, host.listen(), env={"SHUTDOWN_SECONDS": "3600"})
    worker.drain(patience=0.5)
    assert worker.wait() == 0
    assert "did not end within the grace period" in worker.finished_output()


@pytest.mark.parametrize("options", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_foreign_signal_drains(host: WorkerHost, options: Options, number: int) -> None:
    """A SIGTERM that drumd did not send is told of, and drains as an order would."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection:
        connection.send("/slow/0.5")
        wait_until(lambda: "slow" in worker.output, what="the request")
        worker.signal(number)
        worker.expect(Leaving)
        assert connection.answer().closes
    assert worker.wait() == 0
    assert Leaving(signal=number) in worker.messages
    assert worker.messages[-1] == Drained()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH])
def test_a_daemons_signal_does_not_end_a_worker(host: WorkerHost, number: int) -> None:
    """Signals that are meant for the daemon, sent to a whole group, leave the worker serving."""
    listener = host.listen()
    worker = serve(host, listener)
    worker.signal(number)
    with Connection(listener) as connection:
        assert connection.ask().status == 200
    worker.drain()
    assert worker.wait() == 0


@pytest.mark.parametrize("options", LOOPS)
def test_a_stop_is_immediate(host: WorkerHost, options: Options) -> None:
    """Told to stop, a worker ends with requests in flight and without the app's shutdown."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection:
        connection.send("/slow/3600")
        wait_until(lambda: "slow" in worker.output, what="the request")
        worker.stop()
        assert worker.wait() == 0
    assert "shutting down" not in worker.finished_output()


def test_a_stop_interrupts_a_drain(host: WorkerHost) -> None:
    """The operator's second word counts."""
    listener = host.listen()
    worker = serve(host, listener)
    with Connection(listener) as connection:
        connection.send("/slow/3600")
        wait_until(lambda: "slow" in worker.output, what="the request")
        worker.drain()
        worker.stop()
        assert worker.wait() == 0


@pytest.mark.parametrize("options", LOOPS)
def test_a_closed_control_socket_ends_the_worker(host: WorkerHost, options: Options) -> None:
    """A worker without a supervisor leaves, and says why."""
    worker = serve(host, host.listen(), options)
    worker.control.close()
    assert worker.process.wait(30) == 1
    assert "cannot reach the supervisor" in worker.finished_output()


# --- handing over, where uvicorn is special (the rest: test_handover.py) --------------------------


def test_tls_connections_are_not_handed_over(host: WorkerHost) -> None:
    """The keys are in the process: the worker says so, and drains as if it had no heir."""
    listener, options = host.listen(), tls_options(host)
    worker, heir = serve(host, listener, options), serve(host, host.listen(), options)
    assert Ready(handover=False) in worker.messages
    with connect_by_tls(listener, options) as connection:
        assert connection.ask().status == 200
        worker.drain(heir, linger=60)
        wait_until(lambda: connection.ask().closes, what="Connection: close")
        assert connection.is_closed()
    assert worker.wait() == 0
    assert worker.messages[-1] == Drained(handed=0)


@pytest.mark.parametrize("options", PARSERS)
def test_a_body_that_nobody_wanted_is_read_to_its_end(host: WorkerHost, options: Options) -> None:
    """After an answer that came before its request was complete, the rest of that is no request."""
    listener = host.listen()
    worker, heir = serve(host, listener, options), serve(host, host.listen(), options)
    with Connection(listener) as early, Connection(listener) as idle:
        early.sock.sendall(b"POST /status/403 HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n0")
        assert early.answer().status == 403
        assert idle.ask().status == 200
        worker.drain(heir)
        wait_until(lambda: idle.ask().body == str(heir.pid).encode(), what="the drain")
        early.sock.sendall(b"G" * 19)
        assert early.ask().body == str(heir.pid).encode()
    assert worker.expect(Drained).handed == 2
    assert worker.wait() == 0


@pytest.mark.parametrize("options", PARSERS)
def test_an_upgrade_that_is_not_taken_changes_nothing(host: WorkerHost, options: Options) -> None:
    """A client that offers HTTP/2 with its first request goes on with HTTP/1.1, at the heir too."""
    listener = host.listen()
    worker, heir = serve(host, listener, options), serve(host, host.listen(), options)
    with Connection(listener) as connection:
        offer = (
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        )
        assert connection.ask(headers=offer).body == str(worker.pid).encode()
        worker.drain(heir)
        assert worker.expect(Drained).handed == 1
        assert connection.ask().body == str(heir.pid).encode()
    assert worker.wait() == 0


@pytest.mark.parametrize("options", PARSERS)
def test_trailers_are_no_headers(host: WorkerHost, options: Options) -> None:
    """What comes after a chunked body is not among the headers, which others may have checked."""
    listener = host.listen()
    serve(host, listener, options)
    chunked = b"POST /headers HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Connection(listener) as connection:
        for _ in range(2):
            connection.sock.sendall(chunked + b"1\r\nx\r\n0\r\nX-User: root\r\n\r\n")
            assert connection.answer().body == b"host transfer-encoding"


def test_a_proxied_connection_is_refused(host: WorkerHost) -> None:
    """uvicorn has no PROXY protocol, so the app would see the wrong client."""
    worker = serve(host, host.listen())
    mine, its = socket.socketpair()
    with mine, its, worker.take_over() as channel:
        note = Note(idle_since=time.monotonic(), proxy={"client_addr": "192.0.2.1"})
        assert send_connection(channel, its.fileno(), note)
        wait_until(lambda: select.select([channel], [], [], 0)[0], what="the answer")
        assert read_answers(channel).taken == [False]


# --- starting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", LOOPS)
def test_a_failed_lifespan_is_a_failed_start(host: WorkerHost, options: Options) -> None:
    """What the app says of its failed startup reaches the supervisor."""
    worker = host.spawn(
        APP, options={"uvicorn": options}, env={"STARTUP_FAILS": "the model is missing"}
    )
    assert worker.wait() == 1
    failure = worker.messages[-1]
    assert isinstance(failure, Failed)
    assert failure.error == (
        "cannot start asgi_app:app: its lifespan's startup failed: the model is missing"
    )
    assert Ready() not in worker.messages


def test_a_lifespan_that_raises_is_told_with_its_traceback(host: WorkerHost) -> None:
    """With `lifespan = "on"` an exception in the startup fails the start."""
    worker = host.spawn(
        APP, options={"uvicorn": {"lifespan": "on"}}, env={"STARTUP_RAISES": "no such table"}
    )
    assert worker.wait() == 1
    failure = worker.messages[-1]
    assert isinstance(failure, Failed)
    assert failure.error.endswith("failed: RuntimeError: no such table")
    assert 'raise RuntimeError(os.environ["STARTUP_RAISES"])' in failure.traceback


@pytest.mark.parametrize("options", LOOPS)
def test_a_signal_during_the_lifespans_startup_is_immediate(
    host: WorkerHost, options: Options
) -> None:
    """A worker that is not ready has no requests to finish."""
    worker = host.spawn(APP, options={"uvicorn": options}, env={"STARTUP_SECONDS": "3600"})
    wait_until(lambda: "starting" in worker.output, what="the startup")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == -signal.SIGTERM


def test_uvicorn_refuses_a_wsgi_app_with_the_way_out(host: WorkerHost) -> None:
    """A WSGI app under an explicit uvicorn fails at the start, not at each request."""
    worker = host.spawn("wsgi_app:app", runtime="uvicorn")
    assert worker.wait() == 1
    failure = worker.messages[-1]
    assert isinstance(failure, Failed)
    assert 'use runtime "gunicorn"' in failure.error


def test_uvicorns_own_bridge_serves_a_wsgi_app(host: WorkerHost) -> None:
    """With `interface = "wsgi"` the user has chosen it."""
    listener = host.listen()
    options = {"uvicorn": {"interface": "wsgi"}}
    worker = host.serve("wsgi_app:create_app", listener, runtime="uvicorn", options=options)
    with Connection(listener) as connection:
        assert connection.ask().body == str(worker.pid).encode()


# --- logs and stacks ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", PARSERS)
def test_a_full_log_pipe_hangs_no_request(host: WorkerHost, options: Options) -> None:
    """Access lines that nobody reads are dropped and counted; requests go on."""
    read_end, write_end = os.pipe()
    listener = host.listen()
    worker = serve(host, listener, options, access_log=True, output=write_end)
    try:
        with Connection(listener) as connection:
            wait_until(
                lambda: connection.ask().status == 200 and worker.record.log_dropped,
                every=0,
                what="a dropped line",
            )
            assert connection.ask().status == 200
        assert b'"GET / HTTP/1.1" 200 OK' in os.read(read_end, 65_536)
    finally:
        os.close(read_end)
        os.close(write_end)


@pytest.mark.parametrize(
    ("path", "word", "where"),
    [("/block/3600", "blocking", "block_loop"), ("/gil", "GIL", "hold_gil")],
)
@pytest.mark.parametrize("options", LOOPS)
def test_stacks_show_where_a_worker_is_stuck(
    host: WorkerHost, options: Options, path: str, word: str, where: str
) -> None:
    """The stacks come while the loop is blocked, and while the GIL is held in C."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection:
        connection.send(path)
        wait_until(lambda: word in worker.output, what="the request")
        assert f"in {where}" in worker.dump_stacks()
        assert worker.process.poll() is None


@pytest.mark.parametrize("options", LOOPS)
def test_a_worker_whose_app_closed_all_fds_ends(host: WorkerHost, options: Options) -> None:
    """Without its fds a worker cannot serve; it is not left alive and deaf."""
    listener = host.listen()
    worker = serve(host, listener, options)
    with Connection(listener) as connection:
        connection.send("/closefds")
        assert worker.wait() != 0


def test_programs_of_the_app_do_not_inherit_the_workers_fds(host: WorkerHost) -> None:
    """The control socket, the scoreboard and the stacks pipe end with the worker."""
    listener = host.listen()
    serve(host, listener)
    with Connection(listener) as connection:
        fds = connection.ask("/fds").body.decode()
    assert "socket:" not in fds
    assert "scoreboard" not in fds


def test_an_accept_that_comes_too_late_is_let_go(host: WorkerHost) -> None:
    """A draining worker that is told to accept does not, and drains."""
    listener = host.listen()
    worker = serve(host, listener)
    with Connection(listener) as connection:
        connection.send("/slow/0.3")
        wait_until(lambda: "slow" in worker.output, what="the request")
        worker.drain()
        worker.tell(Accept(epoch=99, listeners=(listener.id,)), listener)
        assert connection.answer().closes
    began = time.monotonic()
    assert worker.wait() == 0
    assert time.monotonic() - began < 30
