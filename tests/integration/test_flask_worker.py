"""Werkzeug's development server as a worker."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from drumd.wire.messages import Drained, Failed, Leaving, Loaded, Ready
from tests.integration.worker_clients import Client, Gate, Load, backlog, get, queued, wakeups
from tests.integration.worker_host import HostedWorker, Listener, WorkerHost
from tests.waiting import wait_until

APP = "gunicorn_wsgi_app:app"


@pytest.fixture
def host() -> Iterator[WorkerHost]:
    with WorkerHost() as host:
        yield host


def serve(host: WorkerHost, *listeners: Listener, app: str = APP, **spec: Any) -> HostedWorker:
    return host.serve(app, *listeners, runtime="flask", **spec)


def beats(worker: HostedWorker, count: int) -> None:
    for _ in range(count):
        last = worker.record.beat_ns
        wait_until(lambda last=last: worker.record.beat_ns > last, what="a beat")  # type: ignore[misc]


def test_serves_what_it_is_told_to(host: WorkerHost) -> None:
    """It accepts from exactly the listeners that it is told to, TCP and Unix, and not before."""
    tcp, unix = host.listen(backlog=321), host.listen(unix=True)
    worker = host.spawn(APP, runtime="flask", backlog=321)
    assert not worker.expect(Loaded).event_loop
    worker.expect(Ready)
    with Client(tcp) as early:
        early.send("/")
        beats(worker, 2)
        assert queued(tcp) == 1
        worker.accept(tcp, unix)
        assert early.answer().body == get(unix).body == str(worker.pid)
    assert backlog(tcp) == 321
    worker.accept(unix)
    with Client(tcp) as late:
        late.send("/")
        beats(worker, 2)
        assert queued(tcp) == 1
        assert get(unix).body == str(worker.pid)


def test_logs_nothing_by_itself(host: WorkerHost) -> None:
    """It logs no request unless told to; what a development server is for, the supervisor says."""
    listener = host.listen()
    worker = serve(host, listener)
    assert [get(listener).status for _ in range(3)] == [200, 200, 200]
    assert worker.output == ""


def test_access_log(host: WorkerHost) -> None:
    """Requests are logged when the spec asks for it."""
    listener = host.listen()
    worker = serve(host, listener, access_log=True)
    assert get(listener).status == 200
    wait_until(lambda: "GET / HTTP/1.1" in worker.output, what="an access log line")


def test_counts_requests_by_status(host: WorkerHost) -> None:
    """Each request is counted once, by the status that the client got, refused ones too."""
    listener = host.listen()
    worker = serve(host, listener)
    assert [get(listener, path).status for path in ("/", "/missing", "/raise")] == [200, 404, 500]
    with listener.connect() as client:
        client.sendall(b"NOT HTTP AT ALL\r\n\r\n")
        assert b"400" in client.recv(4096)
    wait_until(lambda: worker.record.finished == 4, what="four requests")
    record = worker.record
    assert (record.status_2xx, record.status_4xx, record.status_5xx) == (1, 2, 1)
    assert record.capacity == 4


def test_beats_and_sleeps_when_idle(host: WorkerHost) -> None:
    """An idle worker beats each 250 ms and wakes about as often; a stuck thread changes nothing."""
    listener = host.listen()
    worker = serve(host, listener)
    with Client(listener) as client:
        client.send("/hang")
        wait_until(lambda: worker.record.in_flight == 1, what="a request in flight")
        beats(worker, 2)
        before, begun = wakeups(worker.pid), worker.record.beat_ns
        beats(worker, 8)
        passed = (worker.record.beat_ns - begun) / 1e9
        assert (wakeups(worker.pid) - before) / passed < 6


def test_serves_so_many_requests_at_once(host: WorkerHost) -> None:
    """One more waits for its turn; a connection without a request takes nobody's."""
    listener = host.listen()
    worker = serve(host, listener, threads=1)
    gate = Gate(host.path("gate"))
    with Client(listener), Client(listener) as first, Client(listener) as second:
        first.send(gate.path)
        gate.begun()
        second.send("/")
        wait_until(lambda: worker.record.connections == 3, what="all connections")
        beats(worker, 2)
        assert (worker.record.started, worker.record.finished) == (1, 0)
        gate.open()
        assert first.answer().status == 200
        assert second.answer().status == 200


def test_handovers_lose_nobody(host: WorkerHost) -> None:
    """Two workers hand a listener to and fro twenty times under load, and no client sees it."""
    listener = host.listen()
    workers = [serve(host, listener), serve(host, listener)]
    workers[1].accept()
    with Load(listener) as load:
        for turn in range(20):
            old, new = workers[turn % 2], workers[(turn + 1) % 2]
            new.accept(listener)
            old.accept()
            load.answered(5)
    assert load.failures == []
    assert set(load.answers) == {str(worker.pid) for worker in workers}


@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGINT])
def test_drain_finishes_what_is_in_flight(host: WorkerHost, number: int | None) -> None:
    """Told to drain, or to end by somebody else, it finishes its request, not silent clients."""
    listener = host.listen()
    worker = serve(host, listener)
    gate = Gate(host.path("gate"))
    with contextlib.ExitStack() as stack:
        silent, busy = (stack.enter_context(Client(listener)) for _ in range(2))
        busy.send(gate.path)
        gate.begun()
        wait_until(lambda: worker.record.connections == 2, what="both connections")
        if number is None:
            worker.drain(linger=0.2)
        else:
            worker.signal(number)
            assert worker.expect(Leaving).signal == number
        assert silent.ended()
        late = stack.enter_context(Client(listener))
        late.send("/")
        gate.open()
        answer = busy.answer()
        assert (answer.status, answer.closes) == (200, True)
        worker.expect(Drained)
        assert worker.wait() == 0
        successor = serve(host, listener)
        assert late.answer().body == str(successor.pid)


def test_stuck_request_delays_no_end(host: WorkerHost) -> None:
    """Stop ends it at once, a stuck request or not; so does a second signal, or the deadline."""
    for end in ("stop", "signals", "deadline"):
        listener = host.listen()
        worker = serve(host, listener)
        with Client(listener) as client:
            client.send("/hang")
            wait_until(lambda worker=worker: worker.record.in_flight == 1, what="in flight")  # type: ignore[misc]
            if end == "stop":
                worker.stop()
            elif end == "deadline":
                worker.drain(patience=0.2)
            else:
                worker.signal(signal.SIGTERM)
                worker.expect(Leaving)
                worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
        assert not any(isinstance(message, Drained) for message in worker.messages)


def test_other_signals_are_harmless(host: WorkerHost) -> None:
    """HUP, USR1, USR2 and WINCH kill no worker."""
    listener = host.listen()
    worker = serve(host, listener)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        worker.signal(number)
        beats(worker, 1)
        assert get(listener).body == str(worker.pid)


def test_import_failure_is_told_once(host: WorkerHost) -> None:
    """An app that raises at import ends the worker with its own error, told once."""
    worker = host.spawn("gunicorn_raises:app", runtime="flask")
    assert "asked to fail at import" in worker.expect(Failed).error
    assert worker.wait() == 1
    assert worker.finished_output().count("Traceback") == 1


def test_refuses_an_asgi_app(host: WorkerHost) -> None:
    """An ASGI app is refused with what to use instead."""
    error = host.spawn("gunicorn_asgi_app:app", runtime="flask").expect(Failed).error
    assert error.startswith("cannot serve gunicorn_asgi_app:app: the app speaks ASGI")
    assert "uvicorn" in error


def test_full_log_pipe_hangs_no_request(host: WorkerHost) -> None:
    """With the log pipe full, requests go on; the lines are dropped and counted."""
    listener = host.listen()
    read_end, write_end = os.pipe()
    try:
        worker = serve(host, listener, access_log=True, output=write_end)
        own = os.open(f"/proc/self/fd/{write_end}", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(own, b"x")
        os.close(own)
        for _ in range(5):
            assert get(listener).status == 200
        wait_until(lambda: worker.record.log_dropped >= 5, what="dropped lines")
    finally:
        os.close(read_end)
        os.close(write_end)
