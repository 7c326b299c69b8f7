import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from drumd.supervisor.processes.control import ControlEnd
from drumd.supervisor.processes.exits import Exits, become_subreaper
from drumd.supervisor.processes.forking import PreparedFork, prepare_fork
from drumd.supervisor.processes.marks import kill_marked
from drumd.supervisor.processes.spawn import Child, SpawnError, seal_inherited_fds, spawn
from drumd.supervisor.processes.status import ExitStatus
from drumd.wire.messages import Forked, Loaded, Message, Ready, WorkerMessage
from drumd.wire.scoreboard import Scoreboard
from drumd.wire.spec import WorkerFds, WorkerSpec
from tests.processes import alive, count_open_fds, start, state
from tests.waiting import until, wait_until

ROOT = str(Path(__file__).parents[2])

M = TypeVar("M", bound=WorkerMessage)

APP = """
import os
from drumd import forking
def end(): os._exit(7)
async def app(scope, receive, send): assert scope["type"] == "http"
"""


class Supervisor:
    """What the supervisor has: a template that it has spawned, and the workers forked from it."""

    def __init__(self, board: Scoreboard, app_dir: Path, **wanted: str) -> None:
        (app_dir / "forkapp.py").write_text(APP)
        self.instance = uuid.uuid4().hex
        self.exits = Exits(asyncio.get_running_loop())
        self.heard: dict[int, list[Message]] = {}
        self.ended: dict[int, ExitStatus] = {}
        self.children: list[Child] = []
        self.controls: dict[int, ControlEnd] = {}
        self._board = board
        self._fields: dict[str, Any] = {
            "pool": "web", "generation": 3, "lease": 0, "supervisor_pid": os.getpid(),
            "app": "forkapp:app", "app_dir": str(app_dir), "runtime": "uvicorn", "threads": 1,
            "backlog": 100, "keepalive": 75.0, "grace_period": 5.0, "linger": 1.0, **wanted,
        }  # fmt: skip
        self.template = spawn(
            lambda fds: WorkerSpec(
                **{**self._fields, "role": "template", "slot": 0, "attempt": 41, "fds": fds}
            ),
            instance=self.instance,
            scoreboard=board.fd,
            environ={**os.environ, "PYTHONPATH": ROOT},
        )
        self.begin(self.template)

    def begin(self, child: Child) -> None:
        messages = self.heard[child.pid] = []
        self.exits.watch(child.pid, self.end)
        self.controls[child.pid] = ControlEnd(
            asyncio.get_running_loop(), child.control, messages.append, lambda: None
        )
        self.children.append(child)

    def end(self, pid: int, status: ExitStatus) -> None:
        self.ended[pid] = status

    def prepare(self, attempt: int, slot: int = 0) -> PreparedFork:
        def make_spec(fds: WorkerFds) -> WorkerSpec:
            return WorkerSpec(**{**self._fields, "slot": slot, "attempt": attempt, "fds": fds})

        return prepare_fork(make_spec, scoreboard=self._board.fd, hold=self.exits.hold())

    def ask(self, fork: PreparedFork) -> None:
        self.controls[self.template.pid].send(fork.message, fork.fds)

    async def fork(self, attempt: int, slot: int = 0) -> Child:
        fork = self.prepare(attempt, slot)
        self.ask(fork)
        child = fork.complete((await self.hear(self.template, Forked)).pid)
        self.begin(child)
        return child

    async def hear(self, child: Child, kind: type[M]) -> M:
        """Return the next message of `kind`; those before it are dropped."""
        heard = self.heard[child.pid]
        await until(lambda: any(isinstance(m, kind) for m in heard), what=kind.__name__)
        while not isinstance(message := heard.pop(0), kind):
            pass
        return message

    async def close(self) -> None:
        kill_marked(self.instance)
        await until(lambda: not self.exits.watched, what="all children gone")
        self.exits.close()
        for control in self.controls.values():
            control.close()
        for child in self.children:
            child.close()


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    seal_inherited_fds()
    board = Scoreboard.create(4)
    yield board
    board.close()
    os.close(board.fd)


@pytest.fixture
async def supervisor(board: Scoreboard, tmp_path: Path) -> AsyncIterator[Supervisor]:
    become_subreaper()
    supervisor = Supervisor(board, tmp_path)
    await supervisor.hear(supervisor.template, Ready)
    yield supervisor
    await supervisor.close()


def open_fds(pid: int) -> dict[int, str]:
    return {int(p.name): str(p.readlink()) for p in Path(f"/proc/{pid}/fd").iterdir()}


def cmdline(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").rstrip()


async def test_a_forked_worker_is_a_child_like_a_spawned_one(supervisor: Supervisor) -> None:
    """Its messages, its output, its exit status and its signals are the supervisor's."""
    child = await supervisor.fork(42, slot=2)
    await supervisor.hear(child, Loaded)
    await supervisor.hear(child, Ready)
    assert cmdline(child.pid).endswith(" -m drumd.workers pool=web slot=2 gen=3")
    assert cmdline(supervisor.template.pid).endswith(" -m drumd.workers pool=web template gen=3")
    assert child.signal_group(signal.SIGKILL)
    await until(lambda: child.pid in supervisor.ended)
    assert supervisor.ended[child.pid].signal == signal.SIGKILL
    assert not child.signal(0)
    assert b"Started server process" in os.read(child.stderr, 65536)
    assert os.read(child.stdout, 1) == b""
    assert alive(supervisor.template.pid)


async def test_a_template_holds_no_scoreboard(supervisor: Supervisor) -> None:
    """What nobody may write is not even there; and no fd but its own is inherited."""
    fds = open_fds(supervisor.template.pid)
    assert not [target for target in fds.values() if "scoreboard" in target]
    assert set(fds) == {0, 1, 2, 3, 5}


async def test_the_exit_of_a_fork_that_ends_at_once_is_not_lost(
    board: Scoreboard, tmp_path: Path
) -> None:
    """A worker that is dead before its pid is known has a status, since nobody reaped it."""
    become_subreaper()
    supervisor = Supervisor(board, tmp_path, after_fork="forkapp:end")
    await supervisor.hear(supervisor.template, Ready)
    for attempt in range(5):
        fork = supervisor.prepare(attempt)
        supervisor.ask(fork)
        pid = (await supervisor.hear(supervisor.template, Forked)).pid
        await until(lambda pid=pid: not alive(pid), what="its end")  # type: ignore[misc]
        child = fork.complete(pid)
        supervisor.begin(child)
        await until(lambda child=child: child.pid in supervisor.ended)  # type: ignore[misc]
        assert supervisor.ended[child.pid].code == 7
    assert supervisor.exits.orphans_reaped == 0
    await supervisor.close()


async def test_forks_leave_no_fd(supervisor: Supervisor) -> None:
    """Asked for, completed or abandoned: in the end as many fds are open as before."""
    before = count_open_fds()
    for attempt in range(10):
        child = await supervisor.fork(attempt)
        child.signal(signal.SIGKILL)
        await until(lambda child=child: child.pid in supervisor.ended)  # type: ignore[misc]
        supervisor.controls[child.pid].close()
        child.close()
        supervisor.prepare(100 + attempt).abandon()
    assert count_open_fds() == before


async def test_a_pid_of_a_stranger_is_refused(supervisor: Supervisor) -> None:
    """What a template says is not believed when the process is no child of the supervisor."""
    before = count_open_fds()
    with pytest.raises(SpawnError, match="cannot watch the worker of pool=web slot=0 gen=3: No ch"):
        supervisor.prepare(42).complete(os.getppid())
    assert count_open_fds() == before


async def test_orphans_wait_while_a_fork_is_pending(supervisor: Supervisor) -> None:
    """An unknown zombie stays until the fork is known or given up: it could be the worker."""
    fork = supervisor.prepare(42)
    orphan = start("/bin/true")
    watched = start("/bin/true")
    supervisor.exits.watch(watched, supervisor.end)
    await until(lambda: watched in supervisor.ended)
    await until(lambda: not alive(orphan))
    assert state(orphan) == "Z"
    fork.abandon()
    await until(lambda: state(orphan) == "X")
    assert supervisor.exits.orphans_reaped == 1


# A supervisor of the test's own, to be killed: it prints the pids of its template and two workers.
KILLED = f"""
import asyncio, os, sys
sys.path.insert(0, {ROOT!r})
from pathlib import Path
from drumd.supervisor.processes.exits import become_subreaper
from drumd.supervisor.processes.warden import start_warden
from drumd.wire.messages import Ready
from drumd.wire.scoreboard import Scoreboard
from tests.integration.test_processes_forking import Supervisor
async def main():
    become_subreaper()
    supervisor = Supervisor(Scoreboard.create(1), Path(sys.argv[1]), after_fork=sys.argv[2])
    if "warden" in sys.argv:
        start_warden(supervisor.instance)
    await supervisor.hear(supervisor.template, Ready)
    pids = [supervisor.template.pid]
    for attempt in (42, 43):
        child = await supervisor.fork(attempt)
        while not Path(sys.argv[1], str(child.pid)).exists():
            await asyncio.sleep(0.01)
        pids.append(child.pid)
    print(*pids, supervisor.instance, flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""
STUCK = """
import ctypes, os
from pathlib import Path
def stuck():
    Path(str(os.getpid())).touch()
    ctypes.PyDLL(None).sleep(3600)  # holds the GIL
def child():
    pid = os.fork()
    if pid == 0:
        os.setsid()
        Path(str(os.getppid())).touch()
        ctypes.CDLL(None).sleep(3600)
        os._exit(0)
    ctypes.CDLL(None).sleep(3600)
"""


@pytest.mark.parametrize(("how", "words"), [("stuck", []), ("child", ["warden"])])
def test_kill_9_of_the_supervisor_ends_template_and_workers(
    tmp_path: Path, how: str, words: list[str]
) -> None:
    """The kernel kills them, stuck ones too; the warden knows a fork's children by their mark."""
    (tmp_path / "stuckapp.py").write_text(STUCK)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), f"stuckapp:{how}", *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout
    with process, process.stdout:
        *numbers, instance = process.stdout.readline().split()
        try:
            pids = list(map(int, numbers))
            assert len(pids) == 3
            if how == "child":
                pids += [child for pid in pids[1:] for child in children(pid)]
                assert len(pids) == 5
            assert all(map(alive, pids))
            process.kill()
            wait_until(lambda: not any(map(alive, pids)), what="all gone")
        finally:
            process.kill()
            left = kill_marked(instance)
        assert left == []


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
