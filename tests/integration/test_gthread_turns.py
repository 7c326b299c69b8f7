"""Whose turn it is when a gthread worker's threads are all busy."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.integration.worker_clients import Client, Gate, queued
from tests.integration.worker_host import HostedWorker, Listener, WorkerHost
from tests.waiting import wait_until


@pytest.fixture
def host() -> Iterator[WorkerHost]:
    with WorkerHost() as host:
        yield host


def turn(worker: HostedWorker, times: int = 2) -> None:
    """Wait until the worker's main loop has turned, by its beats."""
    for _ in range(times):
        last = worker.record.beat_ns
        wait_until(lambda last=last: worker.record.beat_ns > last, what="a beat")  # type: ignore[misc]


def serve(host: WorkerHost, listener: Listener) -> HostedWorker:
    return host.serve(
        "gunicorn_wsgi_app:app",
        listener,
        runtime="gunicorn",
        options={"gunicorn": {"worker_class": "gthread"}},
        threads=1,
    )


def test_a_new_connection_gets_its_turn_among_kept_ones(host: WorkerHost, tmp_path: Path) -> None:
    """Kept connections that always have a request waiting do not shut out a new one."""
    listener = host.listen()
    worker = serve(host, listener)
    first, second, third = (Gate(str(tmp_path / name)) for name in ("first", "second", "third"))
    with Client(listener) as one, Client(listener) as two:
        assert (one.get().status, two.get().status) == (200, 200)
        one.send(first.path)
        first.begun()
        two.send(second.path)  # waits for the only thread
        with Client(listener) as new:
            new.send("/")
            turn(worker)
            assert queued(listener) == 1
            first.open()
            assert one.answer().status == 200
            one.send(third.path)
            second.begun()
            second.open()
            assert new.answer().status == 200
        third.begun()
        third.open()
        assert (one.answer().status, two.answer().status) == (200, 200)


def test_new_connections_get_every_other_turn(host: WorkerHost, tmp_path: Path) -> None:
    """However many kept connections ask, new ones come in one by one between them."""
    listener = host.listen()
    serve(host, listener)
    gates = [Gate(str(tmp_path / name)) for name in ("first", "second", "third")]
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(Client(listener)) for _ in gates]
        assert {client.get().closes for client in kept} == {False}
        kept[0].send(gates[0].path)
        gates[0].begun()
        new = [stack.enter_context(Client(listener)) for _ in range(2)]
        for client in new:
            client.send("/")
        for client, gate in zip(kept[1:], gates[1:], strict=True):
            client.send(gate.path)
        gates[0].open()
        assert new[0].answer().status == 200
        gates[1].open()
        assert new[1].answer().status == 200
        gates[2].open()
        assert {client.answer().status for client in kept} == {200}


def test_pipelined_requests_wait_for_their_turn(host: WorkerHost, tmp_path: Path) -> None:
    """A client that sends its next request along with the first one gets no place before others."""
    listener = host.listen()
    serve(host, listener)
    first, second = Gate(str(tmp_path / "first")), Gate(str(tmp_path / "second"))
    with Client(listener) as greedy, Client(listener) as other:
        assert other.get().status == 200
        greedy.sock.sendall(request(first.path) + request(second.path) + request("/missing"))
        first.begun()
        other.send("/")
        first.open()
        assert other.answer().status == 200
        second.open()
        with greedy.sock.makefile("rb") as answers:
            assert [status(answers) for _ in range(3)] == [200, 200, 404]


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def status(answers: BinaryIO) -> int:
    """Read one answer, and no byte of the next one."""
    number = int(answers.readline().split()[1])
    length = 0
    while line := answers.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    answers.read(length)
    return number
