"""Whose turn it is when a gthread worker's threads are all busy."""

from collections.abc import Iterator
from pathlib import Path

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
    first, second = Gate(str(tmp_path / "first")), Gate(str(tmp_path / "second"))
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
            second.begun()
            wait_until(lambda: queued(listener) == 0, what="the new connection, accepted")
            second.open()
            assert new.answer().status == 200
        assert (one.answer().status, two.answer().status) == (200, 200)
