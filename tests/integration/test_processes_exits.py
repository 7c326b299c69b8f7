import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drumd.supervisor.processes.exits import Exits, become_subreaper
from drumd.supervisor.processes.status import ExitStatus
from tests.processes import alive, children, start, start_shell, state
from tests.waiting import until


@contextmanager
def exits_of(loop: asyncio.AbstractEventLoop) -> Iterator[Exits]:
    exits = Exits(loop)
    try:
        yield exits
    finally:
        exits.close()


async def status_of(exits: Exits, pid: int) -> ExitStatus:
    future: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
    exits.watch(pid, lambda _pid, status: future.set_result(status))
    return await asyncio.wait_for(future, 30)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "exit 0"),
        ("exit 3", "exit 3"),
        ("kill -TERM $$", "killed by SIGTERM"),
        ("kill -KILL $$", "killed by SIGKILL"),
        ("kill -40 $$", "killed by SIGRTMIN+6"),
    ],
)
async def test_an_exit_is_told_in_words(script: str, words: str) -> None:
    """A watched child's end is told as its code or as the signal that killed it."""
    with exits_of(asyncio.get_running_loop()) as exits:
        status = await status_of(exits, start_shell(script))
        assert status.describe() == words


def test_a_core_dump_is_told() -> None:
    """A status with the core flag says so."""
    assert ExitStatus.of(signal.SIGSEGV | 0x80).describe() == "killed by SIGSEGV (core dumped)"


async def test_fast_exits_keep_their_statuses() -> None:
    """Each of 100 children that end at once, among adopted orphans, is told with its own status."""
    become_subreaper()
    seen: dict[int, int | None] = {}
    expected = {}
    with exits_of(asyncio.get_running_loop()) as exits:
        for n in range(100):
            pid = start_shell(f"(exit 9) & exit {n % 50}")
            expected[pid] = n % 50
            exits.watch(pid, lambda pid, status: seen.update({pid: status.code}))
            await asyncio.sleep(0)
        await until(lambda: len(seen) == 100)
        assert seen == expected
        assert not exits.watched


ORPHANS = """
import os, signal
for n in range(1000):
    if os.fork() == 0:
        if n % 3 == 0: os.kill(os.getpid(), signal.SIGTERM)
        os._exit(n % 7)
os._exit(5)
"""


async def test_orphans_are_reaped() -> None:
    """A thousand orphans with mixed ends leave no zombie, and a watched child keeps its status."""
    become_subreaper()
    with exits_of(asyncio.get_running_loop()) as exits:
        parent = await status_of(exits, start(sys.executable, "-c", ORPHANS))
        assert parent.code == 5
        await until(lambda: not children(), what="no children, not even zombies")
        # This process adopts what other tests have left, too.
        assert exits.orphans_reaped >= 1000


async def test_unknown_exits_wait_while_held() -> None:
    """While a fork's pid is awaited, an exit that nobody watches yet is kept for its watcher."""
    with exits_of(asyncio.get_running_loop()) as exits:
        with exits.hold():
            pid = start_shell("exit 7")
            other = await status_of(exits, start_shell("exit 1"))
            await until(lambda: not alive(pid))
            assert other.code == 1
            status = await status_of(exits, pid)
        assert status.code == 7


async def test_the_rest_of_the_group_goes_with_its_leader() -> None:
    """When a worker ends, what it left in its process group is killed."""
    with exits_of(asyncio.get_running_loop()) as exits:
        read, write = os.pipe()
        pid = start_shell("sleep 1000 & echo $!; exit 4", stdout=write)
        os.close(write)
        assert (await status_of(exits, pid)).code == 4
        left = int(os.read(read, 100))
        await until(lambda: not alive(left))
        os.close(read)


async def test_a_stop_is_no_exit() -> None:
    """A worker under SIGSTOP has not exited; its end afterwards is told."""
    with exits_of(asyncio.get_running_loop()) as exits:
        pid = start_shell("exec sleep 1000")
        ended = asyncio.ensure_future(status_of(exits, pid))
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: state(pid) == "T")
        assert (await status_of(exits, start_shell("exit 2"))).code == 2
        assert not ended.done()
        os.kill(pid, signal.SIGKILL)
        assert (await ended).signal == signal.SIGKILL


INHERITED_IGNORE = """
import asyncio, os, signal
from drumd.supervisor.processes.exits import Exits

async def main():
    exits = Exits(asyncio.get_running_loop())
    left = set()
    codes = []
    done = asyncio.Event()
    def on_exit(pid, status):
        codes.append(status.code); left.discard(pid)
        if not left: done.set()
    for n in range(20):
        pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {n}"], os.environ)
        left.add(pid); exits.watch(pid, on_exit, group=False)
    await asyncio.wait_for(done.wait(), 30)
    print(sorted(codes) == list(range(20)))

asyncio.run(main())
"""


def test_an_ignored_sigchld_loses_no_status() -> None:
    """Started with SIGCHLD ignored and blocked, the supervisor still gets every status."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", INHERITED_IGNORE],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
    finally:
        signal.signal(signal.SIGCHLD, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    output, _ = process.communicate(timeout=60)
    assert output.strip() == b"True"
