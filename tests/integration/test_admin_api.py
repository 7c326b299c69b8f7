"""The admin API over a real server on a real socket."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from drumd.supervisor.admin.app import MAX_BODY
from drumd.supervisor.admin.operator import FINAL
from drumd.supervisor.admin.server import AdminServer, bind_public
from drumd.supervisor.admin.socket import AdminSocket
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.observe.appmetrics import AppMetrics
from tests.integration.admin_daemon import MemoryOperator
from tests.waiting import until, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def operator() -> MemoryOperator:
    return MemoryOperator()


@pytest.fixture
async def client(operator: MemoryOperator, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that runs in this very loop, as it does in the daemon."""
    admin_socket = AdminSocket.claim(tmp_path / "admin.sock")
    server = AdminServer(operator, AppMetrics(), admin_socket=admin_socket)
    await server.start()
    transport = httpx.AsyncHTTPTransport(uds=str(admin_socket.path))
    async with httpx.AsyncClient(transport=transport, base_url="http://drumd") as connected:
        yield connected
    await server.stop()
    assert not admin_socket.path.exists()


async def _finished(client: httpx.AsyncClient, operation: dict[str, Any]) -> dict[str, Any]:
    """Poll as drumctl does until the operation has ended."""
    while not operation["final"]:
        answer = await client.get(
            f"/operations/{operation['id']}",
            params={"wait": 30, "seen": operation["reading"]},
            timeout=60,
        )
        operation = answer.json()
    return operation


async def test_status_is_the_owners_document(
    client: httpx.AsyncClient, operator: MemoryOperator
) -> None:
    """The status is the operator's document, unchanged."""
    answer = await client.get("/status")
    assert answer.status_code == 200
    assert answer.json() == json.loads(json.dumps(operator.status()))
    assert "date" not in answer.headers
    assert "server" not in answer.headers


async def test_an_operation_is_accepted_waited_for_and_done(client: httpx.AsyncClient) -> None:
    """A restart is accepted with an id at once, and its outcome can be waited for."""
    answer = await client.post("/pools/web/restart")
    assert answer.status_code == 202
    accepted = answer.json()
    assert (accepted["kind"], accepted["pool"], accepted["final"]) == ("restart", "web", False)
    assert f"uid {os.geteuid()}" in accepted["requested_by"]
    done = await _finished(client, accepted)
    assert (done["state"], done["progress"]) == ("done", [2, 2])


async def test_a_slot_can_be_restarted_alone(client: httpx.AsyncClient) -> None:
    """A restart with a slot is for that slot."""
    answer = await client.post("/pools/web/restart", json={"slot": 1})
    assert (answer.json()["slot"], answer.json()["progress"]) == (1, [0, 1])


async def test_scale_stop_and_start(client: httpx.AsyncClient, operator: MemoryOperator) -> None:
    """Scaling, stopping and starting reach the pool that they name."""
    scaled = await client.post("/pools/web/scale", json={"size": 5})
    assert (await _finished(client, scaled.json()))["state"] == "done"
    assert operator.pools["web"].size == 5
    await _finished(client, (await client.post("/pools/web/stop")).json())
    assert operator.pools["web"].state == "stopped"
    await _finished(client, (await client.post("/pools/web/start")).json())
    assert operator.pools["web"].state == "ready"


async def test_a_failed_operation_says_why(client: httpx.AsyncClient) -> None:
    """The outcome of an operation that failed is its reason."""
    answer = await client.post("/pools/broken/restart")
    failed = await _finished(client, answer.json())
    assert failed["state"] == "failed"
    assert "SyntaxError" in failed["reason"]


async def test_a_failed_operation_has_the_workers_last_lines(client: httpx.AsyncClient) -> None:
    """What the worker that it failed by had written goes with the outcome; others have none."""
    failed = await _finished(client, (await client.post("/pools/broken/restart")).json())
    assert "SyntaxError: invalid syntax" in failed["last_lines"]
    done = await _finished(client, (await client.post("/pools/web/restart")).json())
    assert (done["last_lines"], done["slots"]) == ([], ["new", "new"])


async def test_the_config_is_told_without_secrets(client: httpx.AsyncClient) -> None:
    """The config in force is had as keys with origins and as text; neither shows a secret."""
    answer = await client.get("/config")
    document = answer.json()
    assert "hush" not in answer.text
    [workers] = [each for each in document["keys"] if each["key"] == "pools.web.workers"]
    assert workers == {"key": "pools.web.workers", "value": 2, "origin": "flag --workers"}
    assert "\x1b" not in document["text"]
    coloured = (await client.get("/config", params={"color": "true"})).json()
    assert "\x1b" in coloured["text"]


async def test_what_a_reload_would_change_is_told(
    client: httpx.AsyncClient, operator: MemoryOperator
) -> None:
    """Changes are had by key, and so is where a link leads by now; without any there are none."""
    assert (await client.get("/config/changes")).json()["changed"] is False
    operator.pools["web"].size = 3
    changes = (await client.get("/config/changes")).json()
    assert changes["changed"] is True
    assert changes["moved"] == {"web": "/srv/releases/2"}
    assert [each["key"] for each in changes["pools"][0]["changes"]] == [
        "pools.web.workers",
        "pools.web.environment.API_TOKEN",
    ]


async def test_a_running_operation_can_be_cancelled(client: httpx.AsyncClient) -> None:
    """An operation that runs is cancelled by its id; one that has ended is refused."""
    accepted = (await client.post("/pools/slow/restart")).json()
    answer = await client.delete(f"/operations/{accepted['id']}")
    assert answer.status_code == 200
    assert (await _finished(client, accepted))["state"] == "cancelled"
    again = await client.delete(f"/operations/{accepted['id']}")
    assert again.status_code == 409
    assert again.json()["error"].startswith("cannot cancel")


async def test_a_poll_answers_at_once_when_something_changed_before(
    client: httpx.AsyncClient, operator: MemoryOperator
) -> None:
    """A long poll with an old reading is answered at once, so no change falls between two polls."""
    accepted = (await client.post("/pools/slow/restart")).json()
    await until(lambda: operator.operation(accepted["id"]).state == "running")
    # An operation on this pool never changes again: a poll that waited would time out here.
    answer = await client.get(
        f"/operations/{accepted['id']}",
        params={"wait": 60, "seen": accepted["reading"]},
        timeout=30,
    )
    assert answer.json()["state"] == "running"
    assert operator.operation(accepted["id"]).state not in FINAL


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error", "known"),
    [
        ("POST", "/pools/wbe/restart", None, 404, "wbe", ["web", "model", "slow", "broken"]),
        ("POST", "/pools/web/restart", {"slot": 7}, 404, "slots 0 to 1", ["web/0", "web/1"]),
        ("POST", "/pools/web/start", None, 409, "runs already", []),
        ("POST", "/pools/web/scale", {}, 400, "size: Field required", []),
        ("POST", "/pools/web/scale", {"size": -1}, 400, "size: ", []),
        ("POST", "/pools/web/scale", {"size": 1, "sise": 2}, 400, "sise: ", []),
        ("GET", "/operations/nope", None, 404, "operation 'nope'", []),
        ("GET", "/events?since=x", None, 400, "since: ", []),
        ("GET", "/nothing", None, 404, "not found", []),
        ("GET", "/pools/web/stop", None, 405, "method not allowed", []),
    ],
)
async def test_errors_are_documents(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    body: Any,
    status: int,
    error: str,
    known: list[str],
) -> None:
    """Every error is a document that begins with "cannot" and lists the names that there are."""
    answer = await client.request(method, path, json=body)
    document = answer.json()
    assert answer.status_code == status
    assert set(document) == {"error", "known"}
    assert document["error"].startswith("cannot ")
    assert error in document["error"]
    assert document["known"] == known


async def test_a_bug_is_a_document_too(
    client: httpx.AsyncClient, operator: MemoryOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in the daemon is answered with a document, and the server goes on."""

    def bug() -> dict[str, Any]:
        raise ZeroDivisionError("oops")

    with monkeypatch.context() as patched:
        patched.setattr(operator, "status", bug)
        answer = await client.get("/status")
    assert answer.status_code == 500
    assert "ZeroDivisionError" in answer.json()["error"]
    assert (await client.get("/status")).status_code == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_bodies_are_bounded(client: httpx.AsyncClient, *, declared: bool) -> None:
    """A body beyond the limit is refused, whether its length was declared or it came in chunks."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(2 * MAX_BODY // 1024):
            yield b" " * 1024

    content = b" " * (2 * MAX_BODY) if declared else chunks()
    answer = await client.post("/pools/web/scale", content=content)
    assert answer.status_code == 413
    assert str(MAX_BODY) in answer.json()["error"]


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_events_are_lines_from_a_position(
    client: httpx.AsyncClient, operator: MemoryOperator
) -> None:
    """Events are NDJSON, from a position or the newest few; lost ones are told in their place."""
    for number in range(150):
        operator.journal.record(Fact(event=Happened.DAEMON_NOTICE, reason=str(number)))
    newest = _lines((await client.get("/events", params={"last": 2})).text)
    assert [entry["reason"] for entry in newest] == ["148", "149"]
    from_start = _lines((await client.get("/events", params={"since": 0})).text)
    assert from_start[0] == {"lost": 50}
    assert [entry["seq"] for entry in from_start[1:]] == list(range(51, 151))


async def test_events_are_followed(client: httpx.AsyncClient, operator: MemoryOperator) -> None:
    """A follower gets each event when it happens, until the journal is closed."""
    got: list[str] = []

    async def follow() -> None:
        async with client.stream("GET", "/events", params={"since": 0, "follow": True}) as answer:
            async for line in answer.aiter_lines():
                got.append(json.loads(line)["reason"])  # noqa: PERF401 - each as it comes

    following = asyncio.create_task(follow())
    operator.journal.record(Fact(event=Happened.DAEMON_NOTICE, reason="first"))
    await until(lambda: got == ["first"])
    operator.journal.record(Fact(event=Happened.DAEMON_NOTICE, reason="second"))
    await until(lambda: got == ["first", "second"])
    operator.journal.close()
    await asyncio.wait_for(following, 30)


async def test_a_follower_that_leaves_is_forgotten(
    client: httpx.AsyncClient, operator: MemoryOperator
) -> None:
    """A follower that disconnects leaves nothing behind in the journal."""
    async with client.stream("GET", "/events", params={"follow": True}):
        await until(lambda: len(operator.journal._waiters) == 1)
    await until(lambda: not operator.journal._waiters)


async def test_scrapes_at_once_share_one_page(
    client: httpx.AsyncClient, operator: MemoryOperator
) -> None:
    """Scrapes that come while one is rendered get the same page; the next one is new."""
    pages = await asyncio.gather(*(client.get("/metrics", timeout=60) for _ in range(8)))
    assert {page.status_code for page in pages} == {200}
    assert pages[0].headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'drumd_pool_size{pool="web"} 2.0' in pages[0].text
    assert operator.snapshots < 8
    before = operator.snapshots
    await client.get("/metrics")
    assert operator.snapshots == before + 1


async def test_probes(client: httpx.AsyncClient, operator: MemoryOperator) -> None:
    """Liveness is that the daemon answers; readiness is 503 with the reason while a pool is not."""
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/readyz")).status_code == 200
    operator.is_ready = (False, "model: slot 1 backs off")
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "model: slot 1 backs off")
    assert (await client.get("/livez")).status_code == 200


async def test_the_daemon_is_asked_to_stop(
    client: httpx.AsyncClient, operator: MemoryOperator
) -> None:
    """`POST /stop` asks the daemon to stop, in the name of who asked."""
    assert (await client.post("/stop")).status_code == 202
    assert operator.stopped.is_set()
    assert f"uid {os.geteuid()}" in operator.journal.tail(1).entries[0].fact.reason


async def test_tcp_shows_metrics_and_probes_and_nothing_else(operator: MemoryOperator) -> None:
    """On TCP there are /metrics, /livez and /readyz; the status and every change are not there."""
    [listener] = bind_public("127.0.0.1:0")
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = AdminServer(operator, AppMetrics(), public=[listener])
    await server.start()
    async with httpx.AsyncClient(base_url=base) as client:
        codes = {
            path: (await client.get(path)).status_code
            for path in ("/metrics", "/livez", "/readyz", "/status", "/events", "/operations/op-1")
        }
        posted = [
            (await client.post(path)).status_code
            for path in ("/stop", "/pools/web/restart", "/pools/web/stop")
        ]
    await server.stop()
    assert codes == {
        "/metrics": 200,
        "/livez": 200,
        "/readyz": 200,
        "/status": 404,
        "/events": 404,
        "/operations/op-1": 404,
    }
    assert posted == [404, 404, 404]


async def test_an_address_in_use_is_an_error_with_its_name() -> None:
    """A TCP address that is taken is refused by name."""
    [listener] = bind_public("127.0.0.1:0")
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(OSError, match=f"cannot bind the admin address {address}: .*in use"):
        bind_public(address)
    listener.close()


async def test_without_sockets_there_is_no_server(operator: MemoryOperator) -> None:
    """Without a socket the server starts and stops, and does nothing."""
    server = AdminServer(operator, AppMetrics())
    await server.start()
    await server.stop()


async def test_stop_does_not_wait_for_followers(operator: MemoryOperator, tmp_path: Path) -> None:
    """A client that follows the events and never leaves does not hold up the stop."""
    admin_socket = AdminSocket.claim(tmp_path / "admin.sock")
    server = AdminServer(operator, AppMetrics(), admin_socket=admin_socket)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(str(admin_socket.path))
    writer.write(b"GET /events?follow=1 HTTP/1.1\r\nHost: drumd\r\n\r\n")
    await reader.readline()
    await asyncio.wait_for(server.stop(), 30)
    writer.close()


# --- other users --------------------------------------------------------------------------------

CLIENT = """
import json, os, socket, sys
path, uid, gid, groups = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
os.setgroups([int(group) for group in groups.split(",") if group])
os.setgid(gid)
os.setuid(uid)
for request in ("GET /status", "POST /pools/web/restart", "POST /stop"):
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
    except PermissionError:
        print("denied")
        continue
    client.sendall(f"{request} HTTP/1.0\\r\\n\\r\\n".encode())
    answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    print(answer.split()[1], json.loads(answer.partition("\\r\\n\\r\\n")[2]).get("error", ""))
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users: sudo pytest")
Ask = Callable[..., list[str]]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """A daemon in a process of its own; ask it as some user."""
    # pytest's own directories are closed to the other users.
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    path = directory / "admin.sock"
    children = []

    def asked(uid: int, gid: int, groups: str = "", *, mode: int, group: str) -> list[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.admin_daemon", str(path), "--group", group],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        path.chmod(mode)
        client = subprocess.run(
            [sys.executable, "-c", CLIENT, str(path), str(uid), str(gid), groups],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return client.stdout.splitlines()

    yield asked
    for child in children:
        child.terminate()
        assert child.wait(30) == 0
    shutil.rmtree(directory)


NOBODY = 65534
GROUP = "games"


@as_root
def test_a_stranger_may_read_and_not_change(ask: Ask) -> None:
    """Who can connect may read; to change is refused with who they are and who may."""
    said = ask(NOBODY, NOBODY, mode=0o666, group=GROUP)
    assert said[0].startswith("200")
    for line in said[1:]:
        assert line.startswith("403 cannot let nobody (uid 65534, pid ")
        assert line.endswith(f"operate drumd: root and members of group {GROUP} may")


@as_root
def test_a_stranger_cannot_connect(ask: Ask) -> None:
    """With the mode that the daemon gives its socket, others do not even connect."""
    assert ask(NOBODY, NOBODY, mode=0o660, group=GROUP) == ["denied"] * 3


@as_root
def test_a_member_of_the_group_may_operate(ask: Ask) -> None:
    """A client with the group among its supplementary ones connects and changes things."""
    gid = subprocess.run(["getent", "group", GROUP], capture_output=True, text=True, check=True)
    said = ask(NOBODY, NOBODY, gid.stdout.split(":")[2], mode=0o660, group=GROUP)
    assert [line.split()[0] for line in said] == ["200", "202", "202"]


# --- as a guest in the daemon -------------------------------------------------------------------


def test_an_idle_server_never_wakes(tmp_path: Path) -> None:
    """While nobody asks, no thread of a process with a server is scheduled."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.admin_daemon", str(tmp_path / "a.sock")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    tasks = sorted(Path(f"/proc/{child.pid}/task").iterdir())

    def switches() -> list[str]:
        lines = "\n".join((task / "status").read_text() for task in tasks).splitlines()
        return [line for line in lines if line.startswith("voluntary_ctxt_switches")]

    wait_until(lambda: all("State:\tS" in (task / "status").read_text() for task in tasks))
    before = switches()
    # Absence is shown by something later: another process sleeps and ends meanwhile.
    subprocess.run(["sleep", "1"], check=True)
    assert switches() == before
    child.terminate()
    assert child.wait(30) == 0


async def test_signal_handlers_are_the_daemons(operator: MemoryOperator, tmp_path: Path) -> None:
    """Starting and stopping the server leaves every signal handler as it was."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    server = AdminServer(
        operator, AppMetrics(), admin_socket=AdminSocket.claim(tmp_path / "admin.sock")
    )
    await server.start()
    during = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    await server.stop()
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert before == during == after
