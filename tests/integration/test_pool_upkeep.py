"""What is done for running workers of one pool: probes, recycling, memory, load, sockets."""

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from drumd.supervisor.core.events import Exited, ProbeFailed
from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import OperationKind, OperationState, WorkerState
from drumd.supervisor.pool import memory
from drumd.supervisor.sockets.errors import ListenError
from drumd.wire.address import TcpAddress, UnixAddress
from tests.integration.pool_host import NAME, PoolHost

APP = """
    import os, time
    asked = 0
    kept = []
    async def app(scope, receive, send):
        global asked
        if scope["type"] != "http":
            raise RuntimeError("only http")
        path, status = scope["path"], 200
        if path == "/healthz":
            asked += 1
            good = asked > int(os.environ.get("BAD_PROBES", "0"))
            status = 204 if good else 503
        if path == "/eat":
            kept.append(bytearray(os.urandom(1) * (40 << 20)))
        if path == "/burn":
            end = time.monotonic() + 3
            while time.monotonic() < end:
                pass
        body = b"" if status == 204 else f"{os.getpid()} {asked}".encode()
        length = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": length})
        await send({"type": "http.response.body", "body": body})
"""
WSGI = """
    import os
    def app(environ, start_response):
        bad = environ["PATH_INFO"] == "/healthz" and os.path.exists("bad")
        start_response("503 Sick" if bad else "200 OK", [("Content-Length", "2")])
        return [b"ok"]
"""
CERTIFICATE = Path(__file__).parents[1] / "apps" / "gunicorn_tls.pem"


def posted(host: PoolHost, kind: type[Any]) -> list[Any]:
    """Return the list that all events of `kind` go to from here on."""
    events: list[Any] = []
    post = host.owner.post

    def note(pool: str, event: Any) -> None:
        if isinstance(event, kind):
            events.append(event)
        post(pool, event)

    host.owner.post = note  # type: ignore[method-assign] # listening in, no double
    return events


# --- probes -------------------------------------------------------------------------------------


async def test_a_worker_is_ready_when_its_probe_is_answered_well(tmp_path: Path) -> None:
    """A probe is asked until it gets 2xx or 3xx; only then the worker is ready and accepts."""
    wanted = {"health": {"startup_probe": "/healthz"}, "environment": {"BAD_PROBES": "2"}}
    async with PoolHost(tmp_path, APP, **wanted) as host:
        failures = posted(host, ProbeFailed)
        waiting = asyncio.create_task(host.get())
        await host.until(lambda: len(failures) >= 1, "a failed probe")
        assert not host.workers()
        assert failures[0].answer == "GET /healthz: 503 Service Unavailable"
        await host.ready()
        status, said = await waiting
        assert (status, said.split()[1]) == (200, "3")
        assert len(failures) == 2


@pytest.mark.parametrize(
    ("runtime", "options"),
    [
        ("gunicorn", {}),
        ("gunicorn", {"gunicorn": {"worker_class": "sync"}}),
        ("flask", {}),
        ("uvicorn", {"uvicorn": {"interface": "wsgi"}}),
        ("gunicorn", {"gunicorn": {"certfile": str(CERTIFICATE), "keyfile": str(CERTIFICATE)}}),
    ],
    ids=["gthread", "sync", "flask", "uvicorn", "tls"],
)
async def test_every_runtime_is_probed(
    tmp_path: Path, runtime: str, options: dict[str, Any]
) -> None:
    """A probe reaches workers of all runtimes, and what it fails with is why a start took long."""
    (tmp_path / "bad").touch()
    wanted = {"health": {"startup_probe": "/healthz"}, "runtime": runtime, **options}
    async with PoolHost(tmp_path, WSGI, **wanted) as host:
        failures = posted(host, ProbeFailed)
        await host.until(lambda: failures, "a failed probe")
        assert failures[0].answer.startswith("GET /healthz: 503")
        (tmp_path / "bad").unlink()
        await host.ready()
        if "gunicorn" in options and "certfile" in options["gunicorn"]:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            _, writer = await asyncio.open_connection("127.0.0.1", host.port, ssl=context)
            writer.close()
        else:
            assert await host.get() == (200, "ok")


async def test_a_probe_is_no_answered_request(tmp_path: Path) -> None:
    """A worker that has answered nothing but its probe has not answered, when it crashes."""
    async with PoolHost(tmp_path, APP, health={"startup_probe": "/healthz"}) as host:
        exits = posted(host, Exited)
        await host.ready()
        os.kill(host.pid(host.workers()[0]), 6)
        await host.until(lambda: exits, "its exit")
        assert not exits[0].answered
        await host.ready()
        await host.get()
        os.kill(host.pid(host.workers()[0]), 6)
        await host.until(lambda: len(exits) == 2, "its exit")
        assert exits[1].answered


async def test_a_release_that_fails_its_probe_is_not_rolled_out(tmp_path: Path) -> None:
    """A rollout whose first worker never answers its probe well is aborted, and says so."""
    probed = {"health": {"startup_probe": "/healthz"}, "start_timeout": 2.0}
    async with PoolHost(tmp_path, APP, **probed) as host:
        await host.ready()
        before = host.workers()
        operation = await host.reload(**probed, environment={"BAD_PROBES": "100"})
        assert operation.state is OperationState.FAILED
        assert "503" in operation.reason
        assert host.workers() == before
        assert (await host.get())[0] == 200


# --- recycling ----------------------------------------------------------------------------------


async def test_a_worker_is_recycled_after_its_requests(tmp_path: Path) -> None:
    """A worker that has answered max_requests is replaced, and its idle connection lives on."""
    async with PoolHost(tmp_path, APP, recycle={"max_requests": 3}) as host:
        await host.ready()
        client = await host.connect()
        pids = [(await client.get())[1].split()[0] for _ in range(3)]
        assert len(set(pids)) == 1
        await host.until(
            lambda: [str(host.pid(w)) for w in host.workers()] not in ([], pids[:1]),
            "its replacement",
        )
        await host.until(lambda: len(host.pool.workers) == 1, "it is gone")
        assert (await client.get())[1].split()[0] not in pids
        assert any("max_requests" in text for text in host.told(Happened.WORKER_DRAINING))


async def test_a_worker_is_recycled_for_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with more private memory than max_memory is replaced; the config may say so live."""
    monkeypatch.setattr(memory, "WORKERS_EVERY", 0.1)
    async with PoolHost(tmp_path, APP) as host:
        await host.ready()
        (before,) = host.workers()
        for _ in range(3):
            await host.get("/eat")
        host.hands.reconfigure(host.make_settings(recycle={"max_memory": 100_000_000}))
        await host.until(
            lambda: host.workers() and host.workers()[0].attempt != before.attempt, "replaced"
        )
        assert any("recycle.max_memory 100 MB" in x for x in host.told(Happened.WORKER_DRAINING))


# --- memory and load ----------------------------------------------------------------------------


async def test_the_room_follows_the_workers(tmp_path: Path) -> None:
    """Once a worker is ready the owner knows how many more fit, and in figures why."""
    async with PoolHost(tmp_path, APP) as host:
        await host.ready()
        await host.until(lambda: host.pool.room, "the room is measured")
        before = host.pool.room
        assert before is not None
        assert before.workers > 0
        assert "a worker takes" in before.why
        await host.get("/eat")
        await host.hands.measure()
        await host.until(lambda: host.pool.room != before, "the room is measured again")
        after = host.pool.room
        assert after is not None
        assert after.workers < before.workers
        await host.hands.measure(template=True)
        await host.until(lambda: "a template takes" in host.pool.room.why, "with a template")  # type: ignore[union-attr] # known by now


async def test_a_busy_pool_grows(tmp_path: Path) -> None:
    """A pool with a range of workers grows when its workers are busy, and says why."""
    scale = {"up_at": 0.5, "up_after": 0, "cooldown": 0}
    async with PoolHost(tmp_path, APP, workers="1-2", scale=scale, size=1) as host:
        await host.ready()
        client = await host.connect()
        burning = asyncio.create_task(client.get("/burn"))
        await host.until(lambda: host.pool.size == 2, "it grows")
        await burning
        await host.until(lambda: len(host.workers()) == 2, "a second worker")
        assert any("busy" in text for text in host.told(Happened.POOL_SCALED))


# --- sockets ------------------------------------------------------------------------------------


async def test_a_pool_is_bound_anew_without_new_workers(tmp_path: Path) -> None:
    """A changed bind opens and closes sockets, while the workers and other addresses go on."""
    path = tmp_path / "app.sock"
    async with PoolHost(tmp_path, APP, bind=["127.0.0.1:0", f"unix:{path}"], workers=2) as host:
        await host.ready()
        before = {host.pid(worker) for worker in host.workers()}
        old, client = host.port, await host.connect()
        host.hands.rebind((UnixAddress(str(path)), TcpAddress("127.0.0.2", 0)), backlog=100)
        host.hands.project(host.pool)
        port = int(host.listeners.addresses[1].rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.2", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        await host.until(lambda: _refused(host, old), "the old address is closed")
        assert (await client.get())[0] == 200  # accepted connections are nobody's to close
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert {host.pid(worker) for worker in host.workers()} == before


def _refused(host: PoolHost, port: int) -> bool:
    """Say whether no listener of the pool's is left on the port."""
    names = [host.listeners.socket(id_).getsockname() for id_ in host.listeners.ids()]
    return ("127.0.0.1", port) not in names and not host.listeners.removable


async def test_an_address_that_is_taken_changes_nothing(tmp_path: Path) -> None:
    """A bind that cannot be had is refused, and the pool serves as before."""
    async with PoolHost(tmp_path, APP) as host:
        await host.ready()
        before = host.listeners.addresses
        with pytest.raises(ListenError):
            host.hands.rebind((TcpAddress("192.0.2.1", 9),), backlog=100)
        assert host.listeners.addresses == before
        assert (await host.get())[0] == 200


async def test_the_balance_follows_the_config(tmp_path: Path) -> None:
    """A changed balance takes no new workers: they accept from what is there then."""
    async with PoolHost(tmp_path, APP, workers=2) as host:
        await host.ready()
        assert len(host.listeners.slots) == 2
        before = {host.pid(worker) for worker in host.workers()}
        host.hands.reconfigure(host.make_settings(balance="shared"))
        host.hands.project(host.pool)
        assert host.listeners.slots == frozenset()
        for _ in range(4):
            assert (await host.get())[0] == 200
        assert {host.pid(worker) for worker in host.workers()} == before
        assert host.owner.pools[NAME].generation == 1


async def test_a_stopped_pool_leaves_nothing_behind(tmp_path: Path) -> None:
    """After a stop no process, lease or probe of the pool is left."""
    async with PoolHost(tmp_path, APP, workers=2, spares=1, preload=True) as host:
        await host.ready()
        operation = await host.end_of(host.submit(OperationKind.STOP))
        assert operation.state is OperationState.DONE
        assert not host.pool.workers
        assert not host.workers(state=WorkerState.DRAINING)
        await host.until(lambda: len(host.leases._free) == 32, "all leases are free")
