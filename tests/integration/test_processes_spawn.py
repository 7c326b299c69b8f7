import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from drumd.supervisor.processes import spawn as spawning
from drumd.supervisor.processes.exits import Exits
from drumd.supervisor.processes.spawn import Child, SpawnError, seal_inherited_fds, spawn
from drumd.supervisor.processes.status import ExitStatus
from drumd.wire.scoreboard import Scoreboard
from drumd.wire.spec import STACKS_SIGNAL, WorkerFds, WorkerSpec
from tests.processes import count_open_fds
from tests.waiting import until

REPORT = """
import json, os, signal, sys
fds = {}
for n in os.listdir("/proc/self/fd"):
    try: fds[n] = os.readlink(f"/proc/self/fd/{n}")
    except OSError: pass  # the one that lists
spec = os.pread(int(os.environ["DRUMD_SPEC_FD"]), 1 << 20, 0).decode()
status = dict(l.split(":\\t") for l in open("/proc/self/status").read().splitlines() if ":\\t" in l)
print(json.dumps({"fds": fds, "spec": json.loads(spec), "argv": sys.argv, "env": dict(os.environ),
    "sid": os.getsid(0), "pgid": os.getpgid(0), "pid": os.getpid(),
    "blocked": status["SigBlk"], "ignored": status["SigIgn"]}))
"""


def spec(fds: WorkerFds, *, app_dir: str = "/") -> WorkerSpec:
    return WorkerSpec(
        pool="web", slot=2, generation=3, attempt=41, lease=0, supervisor_pid=os.getpid(),
        app="m:app", app_dir=app_dir, runtime="auto", threads=1, backlog=100, keepalive=75.0,
        grace_period=5.0, linger=1.0, fds=fds,
    )  # fmt: skip


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    seal_inherited_fds()  # as the supervisor does at its start: the tests' starter leaves some open
    board = Scoreboard.create(4)
    yield board
    board.close()
    os.close(board.fd)


def start(board: Scoreboard, script: str, environ: dict[str, str] | None = None) -> Child:
    return spawn(
        spec,
        instance="me",
        scoreboard=board.fd,
        environ=dict(os.environ) if environ is None else environ,
        arguments=[sys.executable, "-c", script],
    )


async def read_all(fd: int) -> bytes:
    content = bytearray()
    ended = asyncio.Event()

    def read() -> None:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return
        content.extend(chunk)
        if not chunk:
            ended.set()
            asyncio.get_running_loop().remove_reader(fd)

    asyncio.get_running_loop().add_reader(fd, read)
    await asyncio.wait_for(ended.wait(), 30)
    return bytes(content)


@pytest.fixture
async def exits() -> AsyncIterator[Exits]:
    exits = Exits(asyncio.get_running_loop())
    yield exits
    exits.close()


def watched(exits: Exits, child: Child) -> asyncio.Future[ExitStatus]:
    future: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
    exits.watch(child.pid, lambda _pid, status: future.set_result(status))
    return future


async def test_a_worker_gets_what_it_needs_and_nothing_else(
    board: Scoreboard, exits: Exits
) -> None:
    """A worker has its own session, its spec and fds, no signal blocked, nothing of systemd."""
    environ = dict(
        os.environ, LISTEN_FDS="1", LISTEN_PID="1", LISTEN_FDNAMES="x", NOTIFY_SOCKET="/n",
        WATCHDOG_USEC="1", WATCHDOG_PID="1", APP_KEY="v",
    )  # fmt: skip
    ignored = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        child = start(board, REPORT, environ)
    finally:
        signal.signal(signal.SIGUSR1, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    exited = watched(exits, child)
    report = json.loads(await read_all(child.stdout))
    assert (await exited).code == 0
    assert report["pid"] == report["sid"] == report["pgid"] == child.pid
    open_fds = {int(n): target for n, target in report["fds"].items()}
    assert set(open_fds) == {0, 1, 2, 3, 4, 5, 6}
    assert open_fds[0] == "/dev/null"
    assert report["spec"]["fds"] == {"control": 3, "scoreboard": 4, "stacks": 5}
    assert open_fds[3].startswith("socket:")
    assert "drumd-scoreboard" in open_fds[4]
    assert report["argv"][1:] == ["pool=web", "slot=2", "gen=3"]
    env = report["env"]
    assert env["DRUMD_INSTANCE"] == "me/web/41"
    assert env["APP_KEY"] == "v"
    assert not [k for k in env if k.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))]
    assert int(report["blocked"], 16) == 0
    assert not int(report["ignored"], 16) >> (signal.SIGUSR1 - 1) & 1
    child.close()


async def test_both_ends_talk(board: Scoreboard, exits: Exits) -> None:
    """The control socket is a packet pair, and stdout, stderr and stacks are pipes of their own."""
    script = (
        "import os, socket; c = socket.socket(fileno=3); os.write(5, b'stacks'); "
        "os.write(2, b'err'); print('out'); c.send(b'hello'); assert c.recv(99) == b'bye'"
    )
    child = start(board, script)
    exited = watched(exits, child)
    loop = asyncio.get_running_loop()
    assert await loop.sock_recv(child.control, 99) == b"hello"
    assert child.control.type == socket.SOCK_SEQPACKET
    child.control.send(b"bye")
    assert (await exited).code == 0
    pipes = child.detach_pipes()
    child.close()
    assert [os.read(fd, 99) for fd in pipes] == [b"out\n", b"err", b"stacks"]
    for fd in pipes:
        os.close(fd)


async def test_a_signal_never_reaches_a_stranger(board: Scoreboard, exits: Exits) -> None:
    """A worker can be signalled while it lives; after its end, signals go nowhere and say so."""
    child = start(board, "import signal; print(1, flush=True); signal.pause()")
    exited = watched(exits, child)
    assert child.signal(0)
    assert child.signal_group(signal.SIGTERM)
    assert (await exited).signal == signal.SIGTERM
    assert not child.signal(signal.SIGTERM)
    assert not child.signal_group(signal.SIGTERM)
    child.close()


async def test_fifty_lives_leave_no_fd(board: Scoreboard, exits: Exits) -> None:
    """50 workers started and ended leave as many open fds as before."""
    before = count_open_fds()
    for _ in range(50):
        child = spawn(spec, instance="me", scoreboard=board.fd, environ={}, arguments=["/bin/true"])
        await watched(exits, child)
        child.close()
    assert count_open_fds() == before


@pytest.mark.parametrize("failing", ["program", "spec"])
async def test_a_failed_start_leaves_nothing(board: Scoreboard, failing: str) -> None:
    """A worker that can't be started is an error in words, and leaves no fd open."""
    before = count_open_fds()
    program = "/nonexistent/python" if failing == "program" else "/bin/true"

    def broken(_fds: WorkerFds) -> WorkerSpec:
        raise ValueError("no spec")

    make: Callable[[WorkerFds], WorkerSpec] = spec if failing == "program" else broken
    with pytest.raises((SpawnError, ValueError)) as caught:
        spawn(make, instance="me", scoreboard=board.fd, environ={}, arguments=[program])
    if failing == "program":
        assert str(caught.value).startswith("cannot start a worker of pool=web slot=2 gen=3: ")
    assert count_open_fds() == before


async def test_a_refused_pipe_size_is_noted(
    board: Scoreboard, exits: Exits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log pipes that the kernel won't enlarge are used as they are, with a note."""
    monkeypatch.setattr(spawning, "PIPE_SIZE", 1 << 31)
    child = start(board, "pass")
    await watched(exits, child)
    assert "a log pipe holds" in child.notes[0]
    child.close()


async def test_spawning_from_a_thread_is_refused(board: Scoreboard) -> None:
    """A worker must not be tied to a thread that may end before the supervisor does."""
    errors: list[Exception] = []

    def attempt() -> None:
        try:
            start(board, "pass")
        except SpawnError as error:
            errors.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    await until(lambda: not thread.is_alive())
    assert "main thread" in str(errors[0])


async def test_inherited_fds_are_sealed(board: Scoreboard, exits: Exits) -> None:
    """An fd that was left open by the starter of drumd doesn't reach a worker."""
    leaked = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    seal_inherited_fds()
    child = start(board, REPORT)
    exited = watched(exits, child)
    report = json.loads(await read_all(child.stdout))
    assert (await exited).code == 0
    assert set(map(int, report["fds"])) == set(range(7))
    child.close()
    os.close(leaked)


async def test_the_default_program_is_drumds_worker(
    board: Scoreboard, exits: Exits, tmp_path: Path
) -> None:
    """Without other arguments the worker's entry runs, and tells of an app that it can't import."""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = spawn(
        lambda fds: spec(fds, app_dir=str(tmp_path)),
        instance="me",
        scoreboard=board.fd,
        environ=environ,
    )
    exited = watched(exits, child)
    packet = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(child.control, 65536), 30)
    assert b'"kind": "failed"' in packet
    assert (await exited).code != 0
    assert STACKS_SIGNAL > signal.SIGRTMIN
    child.close()
