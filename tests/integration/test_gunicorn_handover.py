"""What is gunicorn's own about handing connections over."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drumd.wire.messages import Drained, Ready
from tests.integration.http_clients import Connection
from tests.integration.worker_host import APPS, HostedWorker, WorkerHost
from tests.waiting import wait_until

CERTIFICATE = str(APPS / "gunicorn_tls.pem")
APP = {"gthread": "handover:wsgi", "asgi": "handover:asgi"}
BOTH = pytest.mark.parametrize("kind", list(APP))


@pytest.fixture
def host() -> Iterator[WorkerHost]:
    with WorkerHost() as host:
        yield host


def spawn(host: WorkerHost, kind: str, *, threads: int = 4, **options: Any) -> HostedWorker:
    return host.spawn(
        APP[kind],
        runtime="gunicorn",
        options={"gunicorn": {"worker_class": kind, **options}},
        threads=threads,
    )


def get_ready(host: WorkerHost, kind: str, *, threads: int = 4, **options: Any) -> HostedWorker:
    worker = spawn(host, kind, threads=threads, **options)
    assert worker.expect(Ready).handover
    return worker


@pytest.mark.parametrize(
    "options",
    [{"certfile": CERTIFICATE, "keyfile": CERTIFICATE}, {"http2_cleartext": "upgrade"}],
    ids=["tls", "h2c"],
)
@BOTH
def test_what_only_this_process_knows_is_not_handed_over(
    host: WorkerHost, kind: str, options: dict[str, Any]
) -> None:
    """Where TLS or HTTP/2 is spoken, a worker says that it hands nothing over."""
    assert not spawn(host, kind, **options).expect(Ready).handover


@BOTH
def test_the_proxys_word_goes_along(host: WorkerHost, kind: str) -> None:
    """What a PROXY header said of the client holds for all requests, two handovers later too."""
    listener = host.listen()
    workers = [get_ready(host, kind, proxy_protocol="auto") for _ in range(3)]
    workers[0].accept(listener)
    with Connection(listener) as connection:
        connection.sock.sendall(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n")
        for leaver, heir in zip(workers, [*workers[1:], None], strict=True):
            for _ in range(2):
                assert b'["203.0.113.7", 4711]' in connection.ask("/addresses").body
            wait_until(lambda w=leaver: w.record.finished == 2, what="the count")  # type: ignore[misc]
            if heir is not None:
                leaver.drain(heir)
                assert leaver.expect(Drained).handed == 1


@BOTH
def test_a_new_connections_proxy_header_is_read_by_the_heir(host: WorkerHost, kind: str) -> None:
    """A connection that has said nothing yet opens with its PROXY header at the heir."""
    listener = host.listen()
    leaver, heir = (get_ready(host, kind, proxy_protocol="auto") for _ in range(2))
    leaver.accept(listener)
    with Connection(listener) as connection:
        wait_until(lambda: leaver.record.connections == 1, what="the connection")
        leaver.drain(heir)
        assert leaver.expect(Drained).handed == 1
        connection.sock.sendall(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n")
        assert b'["203.0.113.7", 4711]' in connection.ask("/addresses").body


@BOTH
def test_a_proxy_header_in_the_middle_is_refused(host: WorkerHost, kind: str) -> None:
    """A client cannot give itself another address by speaking PROXY after a handover."""
    listener = host.listen()
    leaver, heir = (get_ready(host, kind, proxy_protocol="auto") for _ in range(2))
    leaver.accept(listener)
    with Connection(listener) as connection:
        assert connection.ask().status == 200
        leaver.drain(heir)
        assert leaver.expect(Drained).handed == 1
        connection.sock.sendall(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n")
        connection.send("/addresses")
        assert connection.answer().status == 400


def test_an_heir_takes_no_more_connections_than_it_may(host: WorkerHost) -> None:
    """Beyond `worker_connections` an heir refuses, and the leaver serves on until the linger."""
    listener = host.listen()
    leaver = get_ready(host, "gthread", threads=1, worker_connections=10)
    heir = get_ready(host, "gthread", threads=1, worker_connections=6)
    leaver.accept(listener)
    connections = [Connection(listener) for _ in range(8)]
    assert {connection.ask().closes for connection in connections} == {False}
    leaver.drain(heir, linger=60)
    wait_until(lambda: heir.record.connections == 6, what="as many as it may have")
    wait_until(lambda: leaver.record.connections == 2, what="the others")
    said = [connection.ask() for connection in connections]
    by_leaver = [answer for answer in said if answer.body == str(leaver.pid).encode()]
    assert [answer.closes for answer in by_leaver] == [True, True]
    assert leaver.expect(Drained).handed == 6
    assert leaver.wait() == 0
    for connection in connections:
        connection.sock.close()
    wait_until(lambda: heir.record.connections == 0, what="none")


def test_idle_connections_go_though_all_threads_are_busy(host: WorkerHost) -> None:
    """A handover needs no thread, neither of the leaver nor of the heir."""
    listener, of_heir = host.listen(), host.listen()
    leaver, heir = (get_ready(host, "gthread", threads=1) for _ in range(2))
    leaver.accept(listener)
    heir.accept(of_heir)
    gates = [Path(host.path(name)) for name in ("one", "other")]
    with Connection(listener) as idle, Connection(listener) as busy, Connection(of_heir) as theirs:
        assert idle.ask().status == 200
        busy.send(f"/hold?{gates[0]}")
        theirs.send(f"/hold?{gates[1]}")
        wait_until(lambda: leaver.record.in_flight == 1, what="the request")
        wait_until(lambda: heir.record.in_flight == 1, what="the other request")
        leaver.drain(heir)
        wait_until(lambda: heir.record.connections == 2, what="the idle one")
        for gate in gates:
            gate.touch()
        assert theirs.answer().status == busy.answer().status == 200
        assert idle.ask().body == busy.ask().body == str(heir.pid).encode()
    assert leaver.expect(Drained).handed == 2
    assert leaver.wait() == 0
