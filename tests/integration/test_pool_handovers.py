"""Whom a draining worker of one pool gives its idle connections to, with real workers."""

import asyncio
import os
import signal
from pathlib import Path

from drumd.supervisor.core.model import OperationKind, OperationState, WorkerState
from tests.integration.pool_host import PoolHost

APP = """
    import asyncio, os, pathlib
    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("only http")
        while scope["path"] == "/hold" and not pathlib.Path("go").exists():
            await asyncio.sleep(0.02)
        body = str(os.getpid()).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""


async def test_a_worker_that_leaves_by_itself_has_heirs(tmp_path: Path) -> None:
    """A worker that somebody else's SIGTERM ends gives its idle connections to its siblings."""
    async with PoolHost(tmp_path, APP, workers=2) as host:
        await host.ready()
        client = await host.connect()
        _, pid = await client.get()
        os.kill(int(pid), signal.SIGTERM)
        await host.until(
            lambda: int(pid) not in {h.pid for h in host.hands.crew.handles.values()}, "its end"
        )
        assert host.hands.crew.tally.handed == 1
        assert (await client.get())[1] != pid


async def test_an_heir_that_dies_is_followed_by_another(tmp_path: Path) -> None:
    """When its heir is gone a draining worker gets the next one, for what is still to come."""
    async with PoolHost(tmp_path, APP, workers=1) as host:
        await host.ready()
        client = await host.connect()
        old = (await client.get())[1]
        held = asyncio.create_task(client.get("/hold"))
        await host.until(lambda: _in_flight(host), "a request in flight")
        operation = host.submit(OperationKind.RESTART)
        await host.until(lambda: host.workers(state=WorkerState.DRAINING), "it drains")
        await host.until(host.workers, "its successor")
        first = host.workers()[0]
        await host.get()
        os.kill(host.pid(first), signal.SIGKILL)
        await host.until(
            lambda: host.workers() and host.workers()[0].attempt != first.attempt, "the next one"
        )
        (leaver,) = host.workers(state=WorkerState.DRAINING)
        assert host.hands._handovers._told[leaver.attempt] == {host.workers()[0].attempt}
        (tmp_path / "go").touch()
        assert (await held)[1] == old
        assert (await host.end_of(operation)).state is OperationState.DONE


async def test_a_stop_has_no_heirs(tmp_path: Path) -> None:
    """At a stop nobody is there to take connections: they are closed, and all ends soon."""
    async with PoolHost(tmp_path, APP, workers=2, linger=0) as host:
        await host.ready()
        client = await host.connect()
        await client.get()
        operation = await host.end_of(host.submit(OperationKind.STOP))
        assert operation.state is OperationState.DONE
        assert host.hands.crew.tally.handed == 0


async def test_a_scale_down_hands_over_to_those_who_stay(tmp_path: Path) -> None:
    """Idle connections of a slot that goes live on with the workers that stay."""
    async with PoolHost(tmp_path, APP, workers=3) as host:
        await host.ready()
        clients = [await host.connect() for _ in range(9)]
        for client in clients:
            await client.get()
        operation = await host.end_of(host.submit(OperationKind.SCALE, size=1))
        assert operation.state is OperationState.DONE
        (stays,) = host.workers()
        assert {(await client.get())[1] for client in clients} == {str(host.pid(stays))}


def _in_flight(host: PoolHost) -> bool:
    leases = [h.lease for h in host.hands.crew.handles.values() if h.lease is not None]
    values = [host.board.values(lease) for lease in leases]
    return any(each[2] > each[3] for each in values)  # started, finished
