"""What becomes of the connections of a gthread worker."""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from drumd.wire.messages import Failed
from tests.integration.worker_clients import Client, get, queued
from tests.integration.worker_host import APPS, HostedWorker, Listener, WorkerHost
from tests.waiting import wait_until

CERTIFICATE = APPS / "gunicorn_tls.pem"


@pytest.fixture
def host() -> Iterator[WorkerHost]:
    with WorkerHost() as host:
        yield host


def serve(
    host: WorkerHost,
    listener: Listener,
    *,
    threads: int = 1,
    keepalive: float = 75.0,
    **options: Any,
) -> HostedWorker:
    return host.serve(
        "gunicorn_wsgi_app:app",
        listener,
        runtime="gunicorn",
        options={"gunicorn": {"worker_class": "gthread", **options}},
        threads=threads,
        keepalive=keepalive,
    )


def connections(worker: HostedWorker, count: int) -> None:
    wait_until(lambda: worker.record.connections == count, what=f"{count} connections")


def test_idle_connections_end_with_their_keep_alive_time(host: WorkerHost) -> None:
    """A kept connection and a silent one are closed after the keep-alive time, and not counted."""
    listener = host.listen()
    worker = serve(host, listener, keepalive=1.0)
    with Client(listener) as kept, Client(listener) as silent:
        assert not kept.get().closes
        connections(worker, 2)
        assert kept.ended()
        assert silent.ended()
        connections(worker, 0)
        assert get(listener).status == 200


def test_takes_no_more_connections_than_it_may(host: WorkerHost) -> None:
    """Beyond `worker_connections` new ones wait in the queue, until one that is there ends."""
    listener = host.listen()
    worker = serve(host, listener, worker_connections=3)
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(Client(listener)) for _ in range(2)]
        assert [client.get().closes for client in kept] == [False, False]
        silent = stack.enter_context(Client(listener))
        connections(worker, 3)
        late = stack.enter_context(Client(listener))
        late.send("/", close=True)
        assert kept[0].get().status == 200  # a turn of the only thread
        assert queued(listener) == 1
        silent.sock.close()
        assert late.answer().status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 11\r\n\r\nGET / HTTP/",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
def test_body_that_the_app_leaves_is_no_request(host: WorkerHost, body: bytes) -> None:
    """What the app did not read of a body is not taken for the next request."""
    listener = host.listen()
    serve(host, listener)
    with Client(listener) as client:
        for _ in range(2):
            client.sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + body)
            answer = client.answer()
            assert (answer.status, answer.closes) == (200, False)
        assert client.get("/missing").status == 404


def test_large_body_that_the_app_leaves_ends_the_connection(host: WorkerHost) -> None:
    """A body that is too large to be thrown away ends the connection after the answer."""
    listener = host.listen()
    serve(host, listener)
    with Client(listener) as client:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"
        client.sock.sendall(head + b"x" * 200_000)
        assert client.answer().status == 200
        assert client.ended()


def test_requests_in_one_tls_record_are_all_answered(host: WorkerHost) -> None:
    """What TLS has decrypted and gunicorn not read yet is no longer seen by the kernel."""
    listener = host.listen()
    serve(host, listener, certfile=str(CERTIFICATE))
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    trusting.check_hostname = False
    with Client(listener) as client:
        client.sock = trusting.wrap_socket(client.sock)
        # A record holds 16 KiB, gunicorn reads 8 at a time: two whole requests.
        one = b"GET / HTTP/1.1\r\nHost: x\r\nPadding: ".ljust(4092, b"x") + b"\r\n\r\n"
        client.sock.sendall(one * 4)
        answered = b""
        while answered.count(b"HTTP/1.1 200 OK") < 4:
            received = client.sock.recv(65_536)
            assert received
            answered += received


@pytest.mark.parametrize("before", [0, 1], ids=["new", "kept"])
def test_socket_that_the_app_closes_is_let_go(host: WorkerHost, before: int) -> None:
    """An app that closes its client's socket takes no connection's place for ever."""
    listener = host.listen()
    worker = serve(host, listener, worker_connections=2)
    for _ in range(4):
        with Client(listener) as client:
            for _ in range(before):
                assert client.get().status == 200
            assert client.get("/hang-up").status == 200
            assert client.ended()
    assert get(listener).status == 200
    connections(worker, 0)


def test_app_that_exits_ends_the_worker(host: WorkerHost) -> None:
    """SystemExit in a request ends the worker, as it does under gunicorn, and is told."""
    listener = host.listen()
    worker = serve(host, listener)
    with Client(listener) as client:
        client.send("/exit")
        assert "asked to exit" in worker.expect(Failed).error
    assert worker.wait() == 1
