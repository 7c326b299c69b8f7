"""drumd as PID 1 of a PID namespace, as in a container without an init."""

import os
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from drumd.exitcodes import DaemonExit
from tests.e2e.daemon import APPS, CHECKOUT, Daemon, free_port, get
from tests.needs import needs_namespaces
from tests.waiting import wait_until

Start = Callable[..., Daemon]

AS_PID_1 = ("unshare", "--pid", "--fork", "--mount-proc")

# Nothing can be written to any more, but for what is no storage (/proc, /dev/null and the like).
READ_ONLY = """
mount --make-rprivate /
while read -r _ _ _ _ where _; do
    case $where in /proc | /proc/* | /sys | /sys/* | /dev | /dev/pts) continue ;; esac
    mount -o remount,bind,ro "$where" || exit 1
done </proc/self/mountinfo
! touch "$PWD/writable" 2>/dev/null || exit 1
exec "$@"
"""

CONFIG = """
[pools.web]
app = "steered:app"
app_dir = "{apps}"
runtime = "uvicorn"
bind = "unix:{socket}"
workers = {workers}
environment = {{ STEER = "{steer}" }}
[pools.web.restart]
intensity = 1
backoff_initial = 0.05
backoff_max = 0.1
"""


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    needs_namespaces()


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """Return where the app's own socket is."""
    return tmp_path / "web.sock"


@pytest.fixture
def config(tmp_path: Path, web: Path) -> Path:
    path = tmp_path / "drumd.toml"
    path.write_text(CONFIG.format(apps=APPS, socket=web, steer=tmp_path, workers=2))
    return path


@pytest.fixture
def as_pid_1(daemon: Start, config: Path) -> Daemon:
    """Return a daemon with two ready workers that is PID 1."""
    started = daemon("run", "--config", str(config), prefix=AS_PID_1)
    started.wait_ready(2)
    status = started.status()
    assert status is not None
    assert status["pid"] == 1
    return started


def processes_within(init: int) -> set[int]:
    """Return the pids of all processes in the namespace of PID 1 `init`, as they are there."""
    return {
        int(path.name) for path in Path(f"/proc/{init}/root/proc").iterdir() if path.name.isdigit()
    }


def test_orphans_are_reaped(as_pid_1: Daemon, web: Path) -> None:
    """Processes whose parents are gone leave no zombies, and no worker is taken for one of them."""
    workers = {worker["pid"] for worker in as_pid_1.workers()}
    status, body = get("/orphans", over=web)
    orphans = {int(pid) for pid in body.split()}
    assert (status, len(orphans)) == (200, 20)
    wait_until(lambda: not orphans & processes_within(as_pid_1.pid), what="no orphan is left")
    assert {worker["pid"] for worker in as_pid_1.workers()} == workers


def test_sigterm_ends_it_after_the_request_in_flight(
    as_pid_1: Daemon, web: Path, tmp_path: Path
) -> None:
    """SIGTERM, as a container's stop sends it, lets a request finish and ends with 0."""
    answers: list[tuple[int, str]] = []
    client = threading.Thread(target=lambda: answers.append(get("/held", over=web)))
    client.start()
    wait_until((tmp_path / "held").exists, what="a request in flight")
    as_pid_1.signal(signal.SIGTERM)
    wait_until(
        lambda: any(worker["state"] == "draining" for worker in as_pid_1.workers()),
        what="a draining worker",
    )
    (tmp_path / "release").touch()
    client.join(timeout=30)
    assert [status for status, _ in answers] == [200]
    assert as_pid_1.wait() == DaemonExit.STOPPED


def test_broken_app_is_told_by_the_exit_code(daemon: Start, config: Path, tmp_path: Path) -> None:
    """An app that never starts ends the container with the code for it, and says why."""
    (tmp_path / "broken").touch()
    started = daemon("run", "--config", str(config), prefix=AS_PID_1)
    assert started.wait() == DaemonExit.START_FAILED
    assert "told to break" in started.text()


def test_lost_pool_is_told_by_the_exit_code(as_pid_1: Daemon, tmp_path: Path) -> None:
    """An essential pool that cannot be mended ends the container with the code for it."""
    (tmp_path / "broken").touch()
    pids = [str(worker["pid"]) for worker in as_pid_1.workers()]
    inside = ["nsenter", "--target", str(as_pid_1.pid), "--pid", "--mount", "--"]
    subprocess.run([*inside, "kill", "-KILL", *pids], check=True)
    assert as_pid_1.wait() == DaemonExit.POOL_LOST


def test_kill_from_outside_leaves_nothing(as_pid_1: Daemon) -> None:
    """kill -9 of PID 1 from outside takes the whole namespace with it."""
    below = as_pid_1.remember()
    assert len(below) >= 2
    as_pid_1.signal(signal.SIGKILL)
    assert as_pid_1.wait() != 0
    _, alive = psutil.wait_procs(below, timeout=30)
    assert not alive


def test_read_only_machine_is_no_error(daemon: Start) -> None:
    """Without a home, and with every file system read-only, it serves and logs no error."""
    port = free_port()
    started = daemon(
        *["serve", "steered:app", "--app-dir", str(APPS), "--bind", f"127.0.0.1:{port}"],
        prefix=(
            "unshare",
            "--pid",
            "--mount",
            "--fork",
            "--mount-proc",
            "sh",
            "-c",
            READ_ONLY,
            "sh",
        ),
        environ={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
    )

    def answer() -> bytes:
        assert started.popen.poll() is None, started.text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as response:
                body: bytes = response.read()
                return body
        except OSError:
            return b""

    wait_until(answer, what="an answer")
    os.kill(started.pid, signal.SIGTERM)
    assert started.wait() == DaemonExit.STOPPED
    assert [line for line in started.log() if line.get("level") in ("error", "critical")] == []
    assert "Traceback" not in started.text()
