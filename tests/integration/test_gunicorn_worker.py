"""gunicorn's worker classes under a parent that is no gunicorn."""

import contextlib
import os
import signal
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from drumd.wire.messages import Drained, Failed, Leaving, Loaded, Ready
from tests.integration.worker_clients import (
    Client,
    Gate,
    Load,
    backlog,
    get,
    now_ns,
    queued,
    wakeups,
)
from tests.integration.worker_host import APPS, HostedWorker, Listener, WorkerHost
from tests.waiting import wait_until

WSGI = ("sync", "gthread", "gevent")
LOOPS = ("gthread", "gevent", "asgi")
ALL = (*WSGI, "asgi")

CERTIFICATE = APPS / "gunicorn_tls.pem"
BEAT_NS = 250_000_000


@pytest.fixture
def host() -> Iterator[WorkerHost]:
    with WorkerHost() as host:
        yield host


def app_for(kind: str) -> str:
    return "gunicorn_asgi_app:app" if kind == "asgi" else "gunicorn_wsgi_app:app"


def wanted(kind: str, **options: Any) -> dict[str, Any]:
    return {"runtime": "gunicorn", "options": {"gunicorn": {"worker_class": kind, **options}}}


def serve(
    host: WorkerHost, kind: str, *listeners: Listener, app: str = "", **spec: Any
) -> HostedWorker:
    return host.serve(app or app_for(kind), *listeners, **{**wanted(kind), **spec})


def in_flight(worker: HostedWorker, count: int) -> None:
    wait_until(lambda: worker.record.in_flight == count, what=f"{count} in flight")


# --- starting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_accepts_nothing_before_it_is_told(host: WorkerHost, kind: str) -> None:
    """A ready worker takes no connection until it is told to accept."""
    listener = host.listen()
    worker = host.spawn(app_for(kind), **wanted(kind))
    loaded = worker.expect(Loaded)
    assert loaded.event_loop == (kind in ("gevent", "asgi"))
    worker.expect(Ready)
    with Client(listener) as client:
        client.send("/", close=True)
        beats(worker, 2)
        assert queued(listener) == 1
        worker.accept(listener)
        assert client.answer().body == str(worker.pid)


def beats(worker: HostedWorker, count: int) -> None:
    for _ in range(count):
        last = worker.record.beat_ns
        wait_until(lambda last=last: worker.record.beat_ns > last, what="a beat")  # type: ignore[misc]


@pytest.mark.parametrize("kind", ALL)
def test_counts_requests_by_status(host: WorkerHost, kind: str) -> None:
    """Each request is counted once, by the status that the client got, refused ones too."""
    listener = host.listen()
    worker = serve(host, kind, listener)
    assert [get(listener, path).status for path in ("/", "/missing", "/raise")] == [200, 404, 500]
    with listener.connect() as client:
        client.sendall(b"NOT\x01HTTP\r\n\r\n")
        assert b" 400 " in client.recv(4096)
    wait_until(lambda: worker.record.finished == 4, what="four requests")
    record = worker.record
    assert (record.status_2xx, record.status_4xx, record.status_5xx, record.no_status) == (
        1,
        2,
        1,
        0,
    )
    assert sum(record.durations) == 4
    assert record.started == 4
    assert record.oldest_ns == 0


@pytest.mark.parametrize("kind", ALL)
def test_writes_no_file_and_no_word(host: WorkerHost, kind: str) -> None:
    """A worker without a home and a temporary directory starts, serves and says nothing of it."""
    listener = host.listen()
    nowhere = host.path("nowhere")
    worker = serve(host, kind, listener, env={"TMPDIR": nowhere, "HOME": nowhere})
    assert get(listener).body == str(worker.pid)
    assert not Path(nowhere).exists()
    assert not deleted_files(worker)
    worker.drain()
    assert worker.wait() == 0
    assert worker.finished_output() in ("", "lifespan ended\n")


def deleted_files(worker: HostedWorker) -> list[str]:
    return [
        name for name in open_files(worker) if name.endswith("(deleted)") and "memfd:" not in name
    ]


def open_files(worker: HostedWorker) -> list[str]:
    """Return what each fd of the worker is."""
    found = []
    for fd in Path(f"/proc/{worker.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.append(str(fd.readlink()))
    return found


@pytest.mark.parametrize("kind", ALL)
def test_import_failure_is_told_once(host: WorkerHost, kind: str) -> None:
    """An app that raises at import ends the worker with its own error, told once."""
    worker = host.spawn("gunicorn_raises:app", **wanted(kind))
    failed = worker.expect(Failed)
    assert "asked to fail at import" in failed.error
    assert worker.wait() == 1
    output = worker.finished_output()
    assert output.count("Traceback") == 1
    assert "worker process" not in output  # gunicorn's own words


@pytest.mark.parametrize("kind", WSGI)
def test_wsgi_classes_refuse_an_asgi_app(host: WorkerHost, kind: str) -> None:
    """A WSGI worker class that is given an ASGI app says so, and what to use."""
    worker = host.spawn(app_for("asgi"), **wanted(kind))
    error = worker.expect(Failed).error
    assert error.startswith("cannot serve gunicorn_asgi_app:app: the app speaks ASGI")
    assert "worker_class asgi" in error


def test_asgi_class_refuses_a_wsgi_app(host: WorkerHost) -> None:
    """The asgi class that is given a WSGI app says so, and what to use."""
    error = host.spawn(app_for("sync"), **wanted("asgi")).expect(Failed).error
    assert error.startswith("cannot serve gunicorn_wsgi_app:app: the app speaks WSGI")
    assert "gthread" in error


def test_unknown_worker_class_is_refused(host: WorkerHost) -> None:
    """A worker class that drumd does not run is refused with those that it does."""
    error = host.spawn(app_for("sync"), **wanted("tornado")).expect(Failed).error
    assert error.startswith("cannot use gunicorn's worker_class 'tornado'")
    assert "sync, gthread, gevent, asgi" in error


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("limit_request_line", "much", "limit_request_line = 'much'"),
        ("limit_request_lines", 1, "did you mean 'limit_request_line'"),
    ],
)
def test_bad_option_is_refused(host: WorkerHost, option: str, value: object, said: str) -> None:
    """An option that gunicorn refuses, or does not know, ends the worker with its name."""
    error = host.spawn(app_for("sync"), **wanted("sync", **{option: value})).expect(Failed).error
    assert error.startswith("cannot use gunicorn's option")
    assert said in error


def test_class_follows_the_app(host: WorkerHost) -> None:
    """Without a worker_class an ASGI app gets the asgi class, a WSGI app gthread."""
    listener = host.listen()
    asgi = host.serve(app_for("asgi"), listener, runtime="gunicorn")
    assert get(listener).body == str(asgi.pid)
    asgi.accept()
    wsgi = host.serve(app_for("sync"), listener, runtime="gunicorn", threads=3)
    assert get(listener).body == str(wsgi.pid)
    assert (asgi.record.capacity, wsgi.record.capacity) == (0, 3)


# --- beating --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_idle_worker_beats_and_sleeps(host: WorkerHost, kind: str) -> None:
    """An idle worker beats each 250 ms, and wakes about as often."""
    worker = serve(host, kind)
    beats(worker, 2)
    before, begun = wakeups(worker.pid), now_ns()
    beats(worker, 8)
    passed = (now_ns() - begun) / 1e9
    assert (wakeups(worker.pid) - before) / passed < 6
    assert passed < 8 * 1.0  # a beat a second is gunicorn's own


def test_sync_beats_late_while_busy_and_not_before(host: WorkerHost) -> None:
    """A sync worker does not beat while it serves a request, and does again after."""
    listener = host.listen()
    worker = serve(host, "sync", listener)
    gate = Gate(host.path("gate"))
    with Client(listener) as client:
        client.send(gate.path)
        gate.begun()
        in_flight(worker, 1)
        last = worker.record.beat_ns
        wait_until(lambda: now_ns() - worker.record.beat_ns > 3 * BEAT_NS, what="a late beat")
        assert worker.record.beat_ns == last
        gate.open()
        assert client.answer().status == 200
    beats(worker, 2)
    assert worker.record.capacity == 1


def test_sync_beats_while_a_client_says_nothing(host: WorkerHost) -> None:
    """A client that connects and says nothing is no reason for a sync worker to look hung."""
    listener = host.listen()
    worker = serve(host, "sync", listener)
    with Client(listener) as client:
        wait_until(lambda: queued(listener) == 0, what="the connection to be taken")
        beats(worker, 4)
        assert client.get().body == str(worker.pid)


def test_stuck_threads_show_while_the_main_loop_beats(host: WorkerHost) -> None:
    """All threads stuck: as many in flight as there is capacity, no progress, and yet beats."""
    listener = host.listen()
    worker = serve(host, "gthread", listener, threads=2)
    with Client(listener) as one, Client(listener) as two:
        one.send("/hang")
        two.send("/hang")
        in_flight(worker, 2)
        beats(worker, 3)
        record = worker.record
    assert record.in_flight >= record.capacity == 2
    assert record.beat_ns - record.progress_ns > BEAT_NS
    assert record.progress_ns >= record.oldest_ns > 0


def test_blocked_event_loop_misses_beats(host: WorkerHost) -> None:
    """An app that blocks the asgi class's loop stops its beats."""
    listener = host.listen()
    worker = serve(host, "asgi", listener)
    with Client(listener) as client:
        client.send("/block")
        in_flight(worker, 1)
        wait_until(lambda: now_ns() - worker.record.beat_ns > 4 * BEAT_NS, what="a late beat")


# --- accepting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_handovers_lose_nobody(host: WorkerHost, kind: str) -> None:
    """Two workers hand a listener to and fro twenty times under load, and no client sees it."""
    listener = host.listen()
    workers = [serve(host, kind, listener), serve(host, kind, listener)]
    workers[1].accept()
    with Load(listener) as load:
        for turn in range(20):
            old, new = workers[turn % 2], workers[(turn + 1) % 2]
            new.accept(listener)
            old.accept()
            load.answered(5)
    assert load.failures == []
    assert set(load.answers) == {str(worker.pid) for worker in workers}


def test_plain_asyncio_loses_nobody_either(host: WorkerHost) -> None:
    """Without uvloop, whose server behaves differently, handovers lose no connection."""
    listener = host.listen()
    plain = wanted("asgi", asgi_loop="asyncio")
    workers = [host.serve(app_for("asgi"), listener, **plain) for _ in range(2)]
    workers[1].accept()
    with Load(listener) as load:
        for turn in range(20):
            old, new = workers[turn % 2], workers[(turn + 1) % 2]
            new.accept(listener)
            old.accept()
            load.answered(5)
    assert load.failures == []


@pytest.mark.parametrize("kind", ALL)
def test_accepts_from_several_listeners(host: WorkerHost, kind: str) -> None:
    """A worker serves TCP and Unix listeners at once, and lets go of the one it is told to."""
    tcp, unix = host.listen(), host.listen(unix=True)
    worker = serve(host, kind, tcp, unix)
    assert get(tcp).body == get(unix).body == str(worker.pid)
    worker.accept(unix)
    assert get(unix).body == str(worker.pid)
    with Client(tcp) as waiting:
        waiting.send("/", close=True)
        beats(worker, 2)
        assert queued(tcp) == 1
        worker.accept(unix, tcp)
        assert waiting.answer().body == str(worker.pid)


@pytest.mark.parametrize("kind", ALL)
def test_clients_that_go_away_do_no_harm(host: WorkerHost, kind: str) -> None:
    """Clients that reset their connection, before or after they ask, end no worker."""
    listener = host.listen()
    worker = serve(host, kind)
    for said in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
        client = listener.connect()
        client.sendall(said)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    worker.accept(listener)
    assert get(listener).body == str(worker.pid)
    worker.drain()
    assert worker.wait() == 0
    assert worker.finished_output() in ("", "lifespan ended\n")


@pytest.mark.parametrize("kind", ALL)
def test_keeps_the_backlog(host: WorkerHost, kind: str) -> None:
    """The listen backlog stays what the spec says, whatever the class's own is."""
    listener = host.listen(backlog=321)
    serve(host, kind, listener, backlog=321)
    assert get(listener).status == 200
    assert backlog(listener) == 321


@pytest.mark.parametrize("kind", ALL)
def test_listener_outlives_its_worker(host: WorkerHost, kind: str) -> None:
    """A worker that is killed leaves the listener intact for the next one."""
    listener = host.listen()
    worker = serve(host, kind, listener)
    assert get(listener).body == str(worker.pid)
    worker.signal(signal.SIGKILL)
    worker.wait()
    with Client(listener) as client:
        client.send("/", close=True)
        successor = serve(host, kind, listener)
        assert client.answer().body == str(successor.pid)


def test_gate_leaves_in_the_queue_what_no_thread_could_serve(host: WorkerHost) -> None:
    """gthread with two threads takes two of five connections, and a sibling the other three."""
    listener = host.listen()
    worker = serve(host, "gthread", listener, threads=2)
    gate = Gate(host.path("gate"))
    clients = [Client(listener) for _ in range(5)]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
            client.send(gate.path)
        in_flight(worker, 2)
        beats(worker, 2)
        assert queued(listener) == 3
        sibling = serve(host, "gthread", listener, threads=3)
        in_flight(sibling, 3)
        assert queued(listener) == 0
        gate.open()
        assert {client.answer().status for client in clients} == {200}


def test_idle_connections_take_no_thread(host: WorkerHost) -> None:
    """Idle keep-alive connections, more than there are threads, keep nobody waiting."""
    listener = host.listen()
    worker = serve(host, "gthread", listener, threads=1)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(Client(listener)) for _ in range(4)]
        assert {client.get().closes for client in idle} == {False}
        assert get(listener).body == str(worker.pid)
        wait_until(lambda: worker.record.connections >= 4, what="open connections")


def test_silent_connections_take_no_thread(host: WorkerHost) -> None:
    """Connections that say nothing, more than there are threads, keep nobody waiting for long."""
    listener = host.listen()
    worker = serve(host, "gthread", listener, threads=1)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(Client(listener)) for _ in range(4)]
        assert get(listener).body == str(worker.pid)
        assert silent[0].get().status == 200


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_main_loop_waits_for_no_client_to_close(host: WorkerHost, kind: str) -> None:
    """A client that keeps its side open after the answer stops nobody else."""
    listener = host.listen()
    worker = serve(host, kind, listener, threads=2)
    with contextlib.ExitStack() as stack:
        for _ in range(8):  # gunicorn's main thread would wait 2 s for each
            assert stack.enter_context(Client(listener)).get(close=True).status == 200
        gap = 0
        for _ in range(4):
            last = worker.record.beat_ns
            beats(worker, 1)
            gap = max(gap, worker.record.beat_ns - last)
        assert gap < 1_900_000_000


# --- leaving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_drain_finishes_what_is_in_flight(host: WorkerHost, kind: str) -> None:
    """A drain lets the request in flight finish, with Connection: close, and accepts no more."""
    listener = host.listen()
    worker = serve(host, kind, listener)
    gate = Gate(host.path("gate"))
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(Client(listener))
        busy.send(gate.path)
        gate.begun()
        worker.drain()
        if kind != "sync":  # it is busy, and has not read it yet
            wait_until(lambda: accepts_nothing(worker), what="the listener released")
        late = stack.enter_context(Client(listener))
        late.send("/", close=True)
        gate.open()
        answer = busy.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert busy.ended()
        worker.expect(Drained)
        assert worker.wait() == 0
        successor = serve(host, kind, listener)
        assert late.answer().body == str(successor.pid)


def accepts_nothing(worker: HostedWorker) -> bool:
    """Return whether the worker holds no listening TCP socket any more."""
    files = open_files(worker)
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return not any(row[3] == "0A" and f"socket:[{row[9]}]" in files for row in rows)


@pytest.mark.parametrize("kind", LOOPS)
def test_idle_connection_lingers_for_one_more_request(host: WorkerHost, kind: str) -> None:
    """In a drain an idle connection gets one more answer, which says Connection: close."""
    listener = host.listen()
    worker = serve(host, kind, listener)
    with Client(listener) as client:
        assert not client.get().closes
        worker.drain(linger=30)
        wait_until(lambda: accepts_nothing(worker), what="the listener released")
        answer = client.get()
        assert (answer.status, answer.closes) == (200, True)
        assert client.ended()
    worker.expect(Drained)
    assert worker.wait() == 0


@pytest.mark.parametrize("kind", LOOPS)
def test_promised_keep_alive_is_kept(host: WorkerHost, kind: str) -> None:
    """A connection whose answer was begun before a drain lingers for one more request."""
    listener = host.listen()
    worker = serve(host, kind, listener)
    gate = Gate(host.path("gate"))
    with Client(listener) as client:
        client.send(gate.stream)
        gate.begun()
        worker.drain(linger=30)
        wait_until(lambda: accepts_nothing(worker), what="the listener released")
        gate.open()
        assert not client.answer().closes
        answer = client.get()
        assert (answer.status, answer.closes) == (200, True)
    assert worker.wait() == 0


@pytest.mark.parametrize("kind", LOOPS)
def test_idle_connection_is_closed_after_its_linger(host: WorkerHost, kind: str) -> None:
    """Idle connections, silent ones too, end a drain's linger, not their keep-alive time."""
    listener = host.listen()
    worker = serve(host, kind, listener)
    with Client(listener) as idle, Client(listener) as silent:
        assert not idle.get().closes
        wait_until(lambda: worker.record.connections == 2, what="both connections")
        worker.drain(linger=0.3)
        assert idle.ended()
        assert silent.ended()
    assert worker.wait() == 0
    worker.expect(Drained)
    assert worker.finished_output() in ("", "lifespan ended\n")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_foreign_signal_drains(host: WorkerHost, kind: str, number: signal.Signals) -> None:
    """A worker that somebody else tells to end says that it leaves, and finishes its request."""
    listener = host.listen()
    worker = serve(host, kind, listener, ignore=(signal.SIGINT,))
    gate = Gate(host.path("gate"))
    with Client(listener) as client:
        client.send(gate.path)
        gate.begun()
        worker.signal(number)
        assert worker.expect(Leaving).signal == number
        gate.open()
        assert client.answer().status == 200
        assert client.ended()
    worker.expect(Drained)
    assert worker.wait() == 0


@pytest.mark.parametrize("kind", ALL)
def test_second_signal_ends_at_once(host: WorkerHost, kind: str) -> None:
    """A second SIGTERM ends a worker whose request would never finish."""
    listener = host.listen()
    worker = serve(host, kind, listener)
    with Client(listener) as client:
        client.send("/hang")
        in_flight(worker, 1)
        worker.signal(signal.SIGTERM)
        worker.expect(Leaving)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert not any(isinstance(message, Drained) for message in worker.messages)


@pytest.mark.parametrize("kind", LOOPS)
def test_stop_ends_at_once_with_requests_stuck(host: WorkerHost, kind: str) -> None:
    """Stop ends a worker at once, stuck requests or not."""
    listener = host.listen()
    worker = serve(host, kind, listener)
    with Client(listener) as one, Client(listener) as two:
        one.send("/hang")
        two.send("/hang")
        in_flight(worker, 2)
        worker.stop()
        assert worker.wait() == 0


@pytest.mark.parametrize("kind", LOOPS)
def test_drain_ends_at_its_deadline(host: WorkerHost, kind: str) -> None:
    """A drain whose requests never finish ends at its deadline, and does not claim to be done."""
    listener = host.listen()
    worker = serve(host, kind, listener)
    with Client(listener) as client:
        client.send("/hang")
        in_flight(worker, 1)
        worker.drain(patience=0.3)
        assert worker.wait() == 0
    assert not any(isinstance(message, Drained) for message in worker.messages)


def test_idle_sync_worker_stops_at_once(host: WorkerHost) -> None:
    """Stop ends an idle sync worker."""
    worker = serve(host, "sync")
    worker.stop()
    assert worker.wait() == 0


@pytest.mark.parametrize("kind", ALL)
def test_ends_when_its_supervisor_lets_go(host: WorkerHost, kind: str) -> None:
    """A worker whose control socket is closed on the other side ends by itself."""
    worker = serve(host, kind)
    worker.control.close()
    worker.control = socket.socketpair()[0]  # what `wait` reads from
    assert worker.wait() == 1


@pytest.mark.parametrize("kind", ALL)
def test_other_signals_are_harmless(host: WorkerHost, kind: str) -> None:
    """HUP, USR1, USR2 and WINCH, which a terminal or a broad kill may send, end no worker."""
    listener = host.listen()
    worker = serve(host, kind, listener)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        worker.signal(number)
        beats(worker, 1)
        assert get(listener).body == str(worker.pid)


def test_gthread_thread_stacks_can_be_had(host: WorkerHost) -> None:
    """The stacks of stuck threads name the line where they hang."""
    listener = host.listen()
    worker = serve(host, "gthread", listener)
    with Client(listener) as client:
        client.send("/hang")
        in_flight(worker, 1)
        assert "gunicorn_wsgi_app.py" in worker.dump_stacks()


# --- the app's lifespan ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_lifespan_is_over_before_it_serves(host: WorkerHost, mode: str) -> None:
    """An app with a lifespan has started before its first request, and ends after its last."""
    listener = host.listen()
    worker = host.serve(app_for("asgi"), listener, **wanted("asgi", asgi_lifespan=mode))
    assert get(listener, "/started").body == f"{worker.pid} started=True"
    worker.drain()
    worker.expect(Drained)
    assert worker.wait() == 0
    assert worker.finished_output() == "lifespan ended\n"


def test_slow_lifespan_has_no_limit_of_gunicorns(host: WorkerHost) -> None:
    """An app whose start outlasts gunicorn's limit starts, and beats meanwhile."""
    listener = host.listen()
    worker = host.spawn(
        "gunicorn_hurried:app",
        env={"APP_START": "slow", "APP_START_SECONDS": "1"},
        **wanted("asgi"),
    )
    worker.expect(Ready)
    worker.accept(listener)
    assert get(listener, "/started").body == f"{worker.pid} started=True"
    assert "limited" not in worker.output


def test_app_without_a_lifespan_is_served(host: WorkerHost) -> None:
    """An app that refuses the lifespan's scope has none, and is served."""
    listener = host.listen()
    app = "gunicorn_asgi_app:without_lifespan"
    worker = host.serve(app, listener, **wanted("asgi"))
    assert get(listener).body == str(worker.pid)
    worker.drain()
    assert worker.wait() == 0
    assert worker.finished_output() == ""


@pytest.mark.parametrize("mode", ["auto", "on"])
@pytest.mark.parametrize(
    ("start", "said"), [("raise", "asked to fail at startup"), ("refuse", "asked to refuse")]
)
def test_failed_lifespan_is_not_served(host: WorkerHost, mode: str, start: str, said: str) -> None:
    """An app that fails in its lifespan is not served; the worker ends with the app's error."""
    worker = host.spawn(
        app_for("asgi"), env={"APP_START": start}, **wanted("asgi", asgi_lifespan=mode)
    )
    assert said in worker.expect(Failed).error
    assert worker.wait() == 1
    assert not any(isinstance(message, Ready) for message in worker.messages)


def test_stop_ends_a_lifespan_that_never_starts(host: WorkerHost) -> None:
    """A worker that is not ready yet stops at once."""
    worker = host.spawn(
        app_for("asgi"), env={"APP_START": "slow", "APP_START_SECONDS": "600"}, **wanted("asgi")
    )
    worker.expect(Loaded)
    beats(worker, 1)
    worker.stop()
    assert worker.wait() == 0


def test_websockets_are_told_of_the_restart(host: WorkerHost) -> None:
    """In a drain a websocket is closed with 1012, service restart."""
    listener = host.listen()
    worker = serve(host, "asgi", listener)
    name, port = listener.address
    with connect(f"ws://{name}:{port}/") as client:
        worker.drain()
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert worker.wait() == 0


# --- logs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_access_log_is_off_unless_wanted(host: WorkerHost, kind: str) -> None:
    """Requests are logged when the spec asks for it, and only then."""
    listener = host.listen()
    quiet = serve(host, kind, listener)
    assert get(listener, "/").status == 200
    quiet.accept()
    loud = serve(host, kind, listener, access_log=True)
    assert get(listener, "/").status == 200
    wait_until(lambda: "GET / HTTP/1.1" in loud.output, what="an access log line")
    assert quiet.output == ""


@pytest.mark.parametrize("kind", ALL)
def test_full_log_pipe_hangs_no_request(host: WorkerHost, kind: str) -> None:
    """With the log pipe full, requests go on; the lines are dropped and counted."""
    listener = host.listen()
    read_end, write_end = os.pipe()
    try:
        worker = serve(host, kind, listener, access_log=True, output=write_end)
        fill(write_end)
        for _ in range(5):
            assert get(listener).status == 200
        wait_until(lambda: worker.record.log_dropped >= 5, what="dropped lines")
    finally:
        os.close(read_end)
        os.close(write_end)


def fill(fd: int) -> None:
    own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(own, b"x")
    os.close(own)


# --- TLS ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_tls_in_the_worker(host: WorkerHost, kind: str) -> None:
    """A worker with a certificate speaks TLS, and a drain ends its idle connections quietly."""
    listener = host.listen()
    worker = host.serve(app_for(kind), listener, **wanted(kind, certfile=str(CERTIFICATE)))
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    trusting.check_hostname = False
    with Client(listener) as client:
        client.sock = trusting.wrap_socket(client.sock)
        assert client.get().body == str(worker.pid)
        worker.drain(linger=0.2)
        assert client.ended()
    assert worker.wait() == 0
    assert worker.finished_output() in ("", "lifespan ended\n")


@pytest.mark.parametrize("kind", ALL)
def test_missing_certificate_is_refused(host: WorkerHost, kind: str) -> None:
    """A certificate that is not there ends the worker before it is ready, with the name."""
    worker = host.spawn(app_for(kind), **wanted(kind, certfile="/nowhere.pem"))
    error = worker.expect(Failed).error
    assert error.startswith("cannot use gunicorn's TLS options: certfile '/nowhere.pem'")


# --- gevent ---------------------------------------------------------------------------------------


def test_gevent_has_patched_before_the_app(host: WorkerHost) -> None:
    """Under gevent the app finds a patched standard library at its import, without a warning."""
    listener = host.listen()
    worker = serve(host, "gevent", listener, app="gunicorn_patched:app")
    assert get(listener).body == "patched=True"
    assert worker.output == ""


def test_gevent_serves_while_requests_wait(host: WorkerHost) -> None:
    """Under gevent a request that sleeps keeps nobody else waiting."""
    listener = host.listen()
    worker = serve(host, "gevent", listener)
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(Client(listener)).send("/hang")
        in_flight(worker, 10)
        assert get(listener).body == str(worker.pid)
        beats(worker, 2)


def test_children_of_the_app_hold_no_listener(host: WorkerHost) -> None:
    """A program that the app starts inherits neither the listener nor the control socket."""
    listener = host.listen()
    serve(host, "gthread", listener, app="gunicorn_patched:spawns")
    names = get(listener).body.split()
    assert not [name for name in names if name.startswith("socket:")]
