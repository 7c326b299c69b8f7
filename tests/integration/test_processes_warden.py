import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumd.supervisor.processes.exits import Exits, become_subreaper
from drumd.supervisor.processes.marks import kill_marked, kill_strays, sweep
from drumd.supervisor.processes.oom import oom_kills
from drumd.supervisor.processes.warden import needed, start_warden
from tests.processes import alive, count_open_fds, start, start_shell
from tests.waiting import until, wait_until

ROOT = str(Path(__file__).parents[2])

# A supervisor of the test's own that starts workers by the real code. Each worker prints the pids
# of itself and of what it started, then gets stuck in its own way.
SUPERVISOR = """
import asyncio, os, signal, sys
from drumd.supervisor.processes.exits import Exits, become_subreaper
from drumd.supervisor.processes.spawn import spawn
from drumd.supervisor.processes.warden import start_warden
from drumd.wire.scoreboard import Scoreboard
from drumd.wire.spec import WorkerSpec

SAY = "import os, signal\\nsay = lambda: os.write(1, b'%d\\\\n' % os.getpid())\\n"
WORKERS = [
    # stuck in the GIL, holding it in one long call
    "say(); [0] * 10 ** 8; sum(range(10 ** 14))",
    # a child in its group, and one in a session of its own
    "p = os.fork()\\nif p == 0: say(); signal.pause()\\n"
    "p = os.fork()\\nif p == 0: os.setsid(); say(); signal.pause()\\n"
    "say(); signal.pause()",
    # deaf, with a program of another kind in another session
    "for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\\n"
    "import subprocess\\n"
    "subprocess.Popen(['sh', '-c', 'echo $$; exec sleep 1000'], start_new_session=True)\\n"
    "say(); signal.pause()",
]

def spec(attempt):
    def make(fds):
        return WorkerSpec(pool="web", slot=0, generation=1, attempt=attempt, lease=0,
            supervisor_pid=os.getpid(), app="m:a", app_dir="/", runtime="auto", threads=1,
            backlog=1, keepalive=1.0, grace_period=1.0, linger=1.0, fds=fds)
    return make

async def main():
    instance = sys.argv[1]
    become_subreaper()
    exits = Exits(asyncio.get_running_loop())
    board = Scoreboard.create(1)
    if "warden" in sys.argv:
        print("warden", start_warden(instance).pid, flush=True)
    children = []
    for n, script in enumerate(WORKERS):
        child = spawn(spec(n), instance=instance, scoreboard=board.fd, environ=dict(os.environ),
                      arguments=[sys.executable, "-c", SAY + script])
        exits.watch(child.pid, lambda *_: None)
        os.set_blocking(child.stdout, True)
        for _ in range((1, 3, 2)[n]):
            line = b""
            while not line.endswith(b"\\n"):
                line += os.read(child.stdout, 1)
            print(int(line), flush=True)
        children.append(child)
    print("up", flush=True)
    if "exec" in sys.argv:
        os.execv(sys.executable, [sys.executable, "-c",
                 "import signal; print('again', flush=True); signal.pause()"])
    await asyncio.sleep(3600)

asyncio.run(main())
"""


class Supervisor:
    def __init__(self, *words: str) -> None:
        self.instance = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, self.instance, *words],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout
        self.warden = 0
        self.pids: list[int] = []
        for line in self.process.stdout:
            if line.startswith("warden"):
                self.warden = int(line.split()[1])
            elif line.strip() == "up":
                break
            else:
                self.pids.append(int(line))
        if "exec" in words:
            assert self.process.stdout.readline() == "again\n"


@pytest.fixture
def supervisors() -> Iterator[list[Supervisor]]:
    started: list[Supervisor] = []
    yield started
    for supervisor in started:
        supervisor.process.kill()
        supervisor.process.wait()
        kill_marked(supervisor.instance)


@pytest.mark.parametrize("exec_again", [False, True])
def test_kill_9_of_the_supervisor_leaves_nothing(
    supervisors: list[Supervisor], exec_again: bool
) -> None:
    """After kill -9, over a re-exec too, stuck and deaf workers and their children are gone."""
    supervisor = Supervisor("warden", *["exec"] * exec_again)
    other = Supervisor()
    supervisors += [supervisor, other]
    assert len(supervisor.pids) == 6
    assert all(map(alive, [*supervisor.pids, supervisor.warden]))
    supervisor.process.kill()
    wait_until(lambda: not any(map(alive, supervisor.pids)), cap=15, what="all gone")
    wait_until(lambda: not alive(supervisor.warden), cap=15, what="the warden gone")
    assert all(map(alive, other.pids)), "another instance's workers are left alone"


def test_the_warden_outlives_signals_but_not_the_supervisor(supervisors: list[Supervisor]) -> None:
    """TERM, INT and HUP don't end the warden; when the supervisor ends it goes by itself."""
    supervisor = Supervisor("warden")
    supervisors.append(supervisor)
    ignored = wait_until(lambda: _ignores(supervisor.warden), what="the warden ignores signals")
    assert ignored
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(supervisor.warden, number)
    environ = Path(f"/proc/{supervisor.warden}/environ").read_bytes()
    assert supervisor.instance.encode() not in environ
    assert os.getsid(supervisor.warden) == supervisor.warden
    assert {int(p.name) for p in Path(f"/proc/{supervisor.warden}/fd").iterdir()} == {0, 1, 2, 3}
    assert alive(supervisor.warden)
    supervisor.process.terminate()
    wait_until(lambda: not alive(supervisor.warden), cap=15)


def _ignores(pid: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def test_an_idle_warden_sleeps(supervisors: list[Supervisor]) -> None:
    """A warden that waits is not woken and weighs little."""
    supervisor = Supervisor("warden")
    supervisors.append(supervisor)
    wait_until(lambda: _ignores(supervisor.warden))
    wait_until(lambda: "poll" in Path(f"/proc/{supervisor.warden}/wchan").read_text()
               or Path(f"/proc/{supervisor.warden}/wchan").read_text() == "0")  # fmt: skip
    rollup = Path(f"/proc/{supervisor.warden}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 16_000, "kB"


async def test_one_workers_strays_are_swept() -> None:
    """A sweep kills what one worker left in other sessions, and nobody else's."""
    instance = uuid.uuid4().hex
    exits = Exits(asyncio.get_running_loop())
    pids = {}
    for mark in ("web/1", "web/10", "web", "other/1"):
        environ = {**os.environ, "DRUMD_INSTANCE": f"{instance}/{mark}"}
        pid = start("/bin/sleep", "1000", environ=environ)
        exits.watch(pid, lambda *_: None)
        pids[mark] = pid
    assert await sweep(instance, "web", 1) == [pids["web/1"]]
    await until(lambda: not alive(pids["web/1"]))
    assert all(alive(pids[mark]) for mark in ("web/10", "web", "other/1"))
    assert sorted(kill_marked(instance)) == sorted(set(pids.values()) - {pids["web/1"]})
    await until(lambda: not exits.watched)
    exits.close()


async def test_unmarked_strays_are_found_and_killed() -> None:
    """What a worker started with a cleaned environment is found as an adopted orphan."""
    become_subreaper()
    exits = Exits(asyncio.get_running_loop())
    done: list[int] = []
    script = "env -i setsid sh -c 'sleep 1000 & sleep 1000' & exit 0"
    pid = start_shell(script)
    exits.watch(pid, lambda pid, _status: done.append(pid), group=False)
    known = start("/bin/sleep", "1000")
    exits.watch(known, lambda pid, _status: done.append(pid))
    await until(lambda: done == [pid])
    killed: list[int] = []

    def kill_again() -> bool:
        found = kill_strays(exits.watched)
        killed.extend(found)
        return bool(killed) and not found

    await until(kill_again)
    assert known not in killed
    assert alive(known)
    os.kill(known, signal.SIGKILL)
    await until(lambda: not exits.watched)
    exits.close()


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, True),
        ({"INVOCATION_ID": "x", "NOTIFY_SOCKET": "/run/x"}, True),
        ({"INVOCATION_ID": "x", "SYSTEMD_EXEC_PID": "1"}, True),
        ({"INVOCATION_ID": "x", "SYSTEMD_EXEC_PID": str(os.getpid())}, False),
    ],
)
def test_a_warden_is_needed_unless_systemd_started_this_very_process(
    environ: dict[str, str], wanted: bool
) -> None:
    """Only the main process of a unit, and PID 1, can do without a warden."""
    assert needed(environ) is wanted


def test_starting_a_warden_leaves_no_fd() -> None:
    """The supervisor keeps no fd of its warden's."""
    before = count_open_fds()
    warden = start_warden(uuid.uuid4().hex)
    assert count_open_fds() == before
    warden.end()
    os.waitpid(warden.pid, 0)


def test_oom_kills_are_counted() -> None:
    """The kernel's count of out-of-memory kills can be read, and does not rise by itself."""
    assert 0 <= oom_kills() <= oom_kills()
