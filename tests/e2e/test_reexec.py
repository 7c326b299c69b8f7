"""drumd replaces its own program: pid, workers, sockets, journal and log go on."""

import http.client
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drumd.exitcodes import ControlExit, DaemonExit
from tests.e2e.daemon import APPS, CHECKOUT, Daemon, free_port
from tests.e2e.load import Load
from tests.e2e.served import marked, wait_gone
from tests.e2e.visitor import Address
from tests.needs import needs_namespaces
from tests.processes import alive
from tests.waiting import wait_until

Start = Callable[..., Daemon]

NEW_VERSION = "9.9.9"


class Upgradable:
    """A daemon whose code another version can take the place of, as a new release does."""

    def __init__(self, start: Start, directory: Path, *arguments: str, **options: object) -> None:
        self.release = directory / "release"
        self.release.mkdir()
        self.web = Address(free_port())
        self._environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("DRUMD_")},
            "PYTHONPATH": f"{self.release}:{CHECKOUT}",
            "DRUMD_SOCKET": str(directory / "daemon-0" / "admin.sock"),
            "STEER": str(directory),
        }
        self.daemon = start(
            *(
                "serve",
                "steered:app",
                "--app-dir",
                str(APPS),
                "--bind",
                f"127.0.0.1:{self.web.port}",
            ),
            *("--log-format", "json", "--workers", "2", *arguments),
            environ=self._environ,
            **options,
        )
        self.workers = self.pids()

    def pids(self) -> list[int]:
        return [worker["pid"] for worker in self.daemon.wait_ready(2)]

    def wait_for_another_than(self, known: frozenset[int]) -> None:
        wait_until(lambda: len(set(self.pids()) - known) == 1, what="another worker")

    def put(self, file: str, old: str, new: str) -> None:
        """Lay down another release: this one, with something changed in one of its files."""
        target = self.release / "drumd"
        if not target.exists():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(CHECKOUT / "drumd", target, ignore=ignored)
        text = (target / file).read_text()
        assert old in text
        (target / file).write_text(text.replace(old, new, 1))

    def put_new_version(self) -> None:
        self.put("__init__.py", '__version__ = "', f'__version__ = "{NEW_VERSION}" or "')

    def version(self) -> str:
        status = self.daemon.status()
        assert status is not None
        return str(status["version"])

    def is_unchanged(self) -> bool:
        """Say whether the same processes go on."""
        status = self.daemon.status()
        assert status is not None
        return status["pid"] == self.daemon.pid and self.pids() == self.workers


@pytest.fixture
def upgradable(daemon: Start, tmp_path: Path) -> Callable[..., Upgradable]:
    return lambda *arguments, **options: Upgradable(daemon, tmp_path, *arguments, **options)


@contextmanager
def keeping_alive(address: Address, clients: int = 4) -> Iterator[list[str]]:
    """Ask again and again on the same connections; yield what went wrong, in words."""
    stop = threading.Event()
    failures: list[str] = []

    def ask() -> None:
        try:
            with address.connect() as visitor:
                while not stop.is_set():
                    if visitor.get().status != 200:
                        failures.append("another status")
        except (OSError, http.client.HTTPException) as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def reexec(daemon: Daemon) -> None:
    done = daemon.drumctl("re-exec")
    assert done.returncode == ControlExit.OK, done.stdout + done.stderr


def test_no_request_is_lost_and_the_same_processes_go_on(
    upgradable: Callable[..., Upgradable],
) -> None:
    """Three re-execs under load lose no request, and change neither drumd's pid nor a worker's."""
    up = upgradable()
    with keeping_alive(up.web) as failures, Load(up.web) as load:
        for _ in range(3):
            reexec(up.daemon)
            load.wait_more()
    assert failures == []
    assert load.failures == []
    assert up.is_unchanged()
    assert {int(pid) for pid in load.pids} == set(up.workers)


def test_a_new_version_takes_over(upgradable: Callable[..., Upgradable]) -> None:
    """A release that was put in the old one's place takes over, as journal and status say."""
    up = upgradable()
    up.put_new_version()
    done = up.daemon.drumctl("re-exec")
    assert done.returncode == ControlExit.OK, done.stderr
    assert NEW_VERSION in done.stdout
    assert up.version() == NEW_VERSION
    assert up.is_unchanged()
    told = up.daemon.wait_for("daemon.reexeced")
    assert NEW_VERSION in told["reason"]
    assert told["pid"] == up.daemon.pid


def test_the_journal_goes_on(upgradable: Callable[..., Upgradable], tmp_path: Path) -> None:
    """Events keep their numbers, and who follows them sees each once, before and after."""
    up = upgradable()
    output = tmp_path / "followed"
    follower = up.daemon.start_drumctl("--json", "events", "-f", output=output)
    try:
        wait_until(lambda: "daemon.ready" in output.read_text(), what="a follower")
        for count in (1, 2):
            reexec(up.daemon)
            wait_until(
                lambda: output.read_text().count('"daemon.reexeced"') == count,  # noqa: B023 - used at once
                what=f"the re-exec in {output.read_text()}",
            )
        up.daemon.signal(signal.SIGTERM)
        assert up.daemon.wait() == DaemonExit.STOPPED
        assert follower.wait(timeout=30) == ControlExit.OK
    finally:
        follower.kill()
        follower.wait()
    numbers = [line["seq"] for line in up.daemon.log() if "seq" in line]
    assert numbers == list(range(1, len(numbers) + 1))
    assert output.read_text().count('"seq"') == len(numbers) - 1  # the last one: nobody serves it


def test_logs_of_workers_go_on(daemon: Start) -> None:
    """No line that a worker prints during a re-exec is lost, doubled or broken."""
    port = free_port()
    running = daemon(
        *("serve", "talkative:app", "--app-dir", str(APPS), "--bind", f"127.0.0.1:{port}"),
        *("--log-format", "json"),
    )
    running.wait_ready(1)
    said = [str(number) for number in range(400)]

    def talk() -> None:
        for each in said:
            Address(port).get(f"/once/{each}")

    talker = threading.Thread(target=talk)
    talker.start()
    reexec(running)
    talker.join()
    wait_until(lambda: f"err {said[-1]}" in running.text(), what="the last line")
    lines = [line.get("line", "") for line in running.log() if line["event"] == "worker.output"]
    assert [line for line in lines if line.startswith("out ")] == [f"out {each}" for each in said]
    assert [line for line in lines if line.startswith("err ")] == [f"err {each}" for each in said]


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("supervisor/running.py", "import asyncio", "import asyncio(", "SyntaxError"),
        (
            "supervisor/cli/drumd.py",
            "import argparse",
            "import argparse, no_such_module",
            "no_such",
        ),
        ("supervisor/reexec/document.py", "MAJOR = 1", "MAJOR = 2", "format 1"),
        ("wire/scoreboard.py", "LAYOUT_VERSION = 1", "LAYOUT_VERSION = 2", "layout 1"),
    ],
)
def test_a_program_that_cannot_take_over_is_not_let(
    upgradable: Callable[..., Upgradable], file: str, old: str, new: str, why: str
) -> None:
    """A broken release, or one that cannot read the state, leaves the old one serving, and why."""
    up = upgradable()
    up.put(file, old, new)
    done = up.daemon.drumctl("re-exec")
    assert done.returncode == ControlExit.DEGRADED
    assert why in done.stdout
    assert why in up.daemon.wait_for("operation.failed")["reason"]
    assert up.is_unchanged()
    assert up.web.answers()


def test_the_old_program_comes_back(upgradable: Callable[..., Upgradable]) -> None:
    """A release that fails only once it has replaced the old one is replaced by that again."""
    up = upgradable()
    up.put(
        "supervisor/reexec/stub.py",
        '    if order.task == "check":',
        '    os.environ["BAD"] = str(order.task == "resume")\n    if order.task == "check":',
    )
    up.put(
        "supervisor/running.py",
        "    def run() -> int:\n",
        '    if os.environ["BAD"] == "True":\n        raise RuntimeError("it was well meant")\n\n'
        "    def run() -> int:\n",
    )
    with keeping_alive(up.web) as failures:
        done = up.daemon.drumctl("re-exec")
    assert done.returncode == ControlExit.DEGRADED, done.stdout
    assert "it was well meant" in done.stdout
    assert failures == []
    assert up.is_unchanged()
    # And it is as able as it was.
    up.put("supervisor/running.py", "raise RuntimeError", "str")
    reexec(up.daemon)
    assert up.is_unchanged()


def test_a_program_that_dies_when_asked_is_not_let(
    upgradable: Callable[..., Upgradable],
) -> None:
    """A release that is killed before it can say anything leaves the old one serving, and why."""
    up = upgradable()
    up.put("__init__.py", '__version__ = "', 'import os; os.kill(os.getpid(), 9); __version__ = "')
    done = up.daemon.drumctl("re-exec")
    assert done.returncode == ControlExit.DEGRADED
    assert "SIGKILL" in done.stdout
    assert up.is_unchanged()


def test_nothing_is_left_when_drumd_is_killed_after_one(
    upgradable: Callable[..., Upgradable],
) -> None:
    """kill -9 after a re-exec clears away all workers, as before it."""
    up = upgradable()
    reexec(up.daemon)
    os.kill(up.workers[0], signal.SIGSTOP)  # it cannot go by itself
    up.daemon.signal(signal.SIGKILL)
    wait_gone(up.workers)
    wait_until(lambda: not marked(up.daemon.pid), what="the end of all")


def test_workers_that_die_meanwhile_are_replaced(upgradable: Callable[..., Upgradable]) -> None:
    """A worker that is killed while the program is replaced is known to be dead by the new one."""
    up = upgradable()
    for victim in (0, 1):
        before = frozenset(pids := up.pids())
        submitted = up.daemon.drumctl("re-exec", "--no-wait")
        assert submitted.returncode == ControlExit.OK
        wait_until(lambda: signals_blocked(up.daemon.pid), every=0.0005, what="the exec")
        os.kill(pids[victim], signal.SIGKILL)
        wait_until(
            lambda: up.daemon.text().count('"daemon.reexeced"') == victim + 1,  # noqa: B023 - at once
            what="the re-exec",
        )
        up.wait_for_another_than(before)
    assert not any(alive(pid) for pid in up.workers)
    up.daemon.signal(signal.SIGTERM)
    assert up.daemon.wait() == DaemonExit.STOPPED


def signals_blocked(pid: int) -> bool:
    """Say whether SIGTERM waits for a process: bit 14 of SigBlk (proc_pid_status(5))."""
    return takes_no_sigterm(Path(f"/proc/{pid}/status"))


def takes_no_sigterm(status_file: Path) -> bool:
    status = status_file.read_text()
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
    return bool(int(blocked.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_signal_that_comes_meanwhile_counts(upgradable: Callable[..., Upgradable]) -> None:
    """A SIGTERM in the middle of a re-exec waits, and then stops the new program."""
    up = upgradable()
    assert up.daemon.drumctl("re-exec", "--no-wait").returncode == ControlExit.OK
    wait_until(lambda: signals_blocked(up.daemon.pid), every=0.0005, what="the exec")
    up.daemon.signal(signal.SIGTERM)
    assert up.daemon.wait() == DaemonExit.STOPPED
    assert not any(alive(pid) for pid in up.workers)


def test_signals_are_the_main_threads_alone(upgradable: Callable[..., Upgradable]) -> None:
    """No other thread of drumd takes a signal: what it had taken, an exec would lose."""
    up = upgradable()
    assert up.daemon.drumctl("metrics").returncode == ControlExit.OK  # rendered in a thread
    tasks = list(Path(f"/proc/{up.daemon.pid}/task").iterdir())
    others = [task for task in tasks if task.name != str(up.daemon.pid)]
    assert others
    assert all(takes_no_sigterm(task / "status") for task in others)


def test_operations_go_on(upgradable: Callable[..., Upgradable], tmp_path: Path) -> None:
    """A restart that is under way is finished by the new program, and answered for."""
    up = upgradable("--grace-period", "60s")
    release = threading.Thread(target=lambda: up.web.get("/held"))
    release.start()
    wait_until((tmp_path / "held").exists, what="a held request")
    assert up.daemon.drumctl("restart", "web", "--no-wait").returncode == ControlExit.OK
    reexec(up.daemon)
    (tmp_path / "release").touch()
    release.join()
    done = up.daemon.drumctl("wait", "web-1")
    assert done.returncode == ControlExit.OK, done.stdout + done.stderr
    assert not set(up.pids()) & set(up.workers)


def test_the_admin_socket_listens_all_the_time(upgradable: Callable[..., Upgradable]) -> None:
    """Nobody who connects to the admin socket at whatever moment of a re-exec is refused."""
    up = upgradable()
    refused: list[str] = []
    stop = threading.Event()

    def knock() -> None:
        while not stop.wait(0.1):  # its queue is not endless
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(str(up.daemon.directory / "admin.sock"))
                except OSError as error:
                    refused.append(str(error))

    knocking = threading.Thread(target=knock)
    knocking.start()
    reexec(up.daemon)
    stop.set()
    knocking.join()
    assert refused == []


def test_one_at_a_time_and_none_at_the_end(upgradable: Callable[..., Upgradable]) -> None:
    """A second request during a re-exec is refused by name."""
    up = upgradable()
    assert up.daemon.drumctl("re-exec", "--no-wait").returncode == ControlExit.OK
    second = up.daemon.drumctl("re-exec")
    if second.returncode != ControlExit.OK:  # it may have come after the first
        assert "under way already" in second.stderr
    wait_until(lambda: '"operation.done"' in up.daemon.text(), what="the first one's end")


def test_as_pid_1(daemon: Start, tmp_path: Path) -> None:
    """As PID 1 of a container it is replaced likewise, and stops with the right code after it."""
    needs_namespaces()
    prefix = ("unshare", "--pid", "--fork", "--mount-proc")
    up = Upgradable(daemon, tmp_path, prefix=prefix)
    up.put_new_version()
    reexec(up.daemon)
    status = up.daemon.status()
    assert status is not None
    assert (status["pid"], status["version"]) == (1, NEW_VERSION)
    assert up.pids() == up.workers
    up.daemon.signal(signal.SIGTERM)
    assert up.daemon.wait() == DaemonExit.STOPPED
