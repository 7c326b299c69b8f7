"""The unit in systemd/, under a real systemd: start, crash, hang, reload and stop."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drumd.exitcodes import DaemonExit
from tests.e2e.booted import BootedSystem
from tests.needs import needs, needs_namespaces
from tests.waiting import wait_until

pytestmark = pytest.mark.systemd

CHECKOUT = Path(__file__).parents[2]
UNITS = CHECKOUT / "systemd"
URL = "http://127.0.0.1:8080"

# What an installation gives: a command in /opt/drumd/bin. The library path is for an interpreter
# whose own prefix is hidden by ProtectHome.
COMMAND = """\
#!/bin/sh
export PYTHONPATH=/opt/drumd/lib:/opt/site-packages LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/python3 -c 'import sys; from {module} import main; sys.exit(main())' "$@"
"""

# The unit's numbers are for operators; tests want the same behaviour sooner.
SOONER = """\
[Unit]
StartLimitBurst=2
[Service]
RestartSec=100ms
Environment=PYTHONDONTWRITEBYTECODE=1
"""

# An ASGI app whose start, answers and children the tests steer through files in /run/drumd.
APP = """\
import asyncio, os, subprocess
from pathlib import Path

RUN = Path("/run/drumd")

async def until_there(path):
    while not path.exists():
        await asyncio.sleep(0.01)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if (RUN / "hold-start").exists():
            (RUN / f"starting-{os.getpid()}").touch()
            await until_there(RUN / "go-on")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/held":
        (RUN / "held").touch()
        await until_there(RUN / "release")
    if scope["path"] == "/child":
        subprocess.Popen(["setsid", "sleep", "infinity"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""

CONFIG = """\
[pools.web]
app = "main:app"
app_dir = "/srv/app"
runtime = "uvicorn"
bind = "127.0.0.1:8080"
workers = 2
"""

Status = dict[str, Any]


class Service:
    """drumd.service in the booted system."""

    def __init__(self, system: BootedSystem) -> None:
        self.system = system

    def configure(self, *, app: str = APP, config: str = CONFIG, drop_in: str = "") -> None:
        """Lay down what the next start reads."""
        self.system.write("/srv/app/main.py", app)
        self.system.write("/etc/drumd/drumd.toml", config)
        self.system.write("/etc/systemd/system/drumd.service.d/tests.conf", SOONER + drop_in)
        self.system.run("systemctl", "daemon-reload")

    def systemctl(self, verb: str) -> None:
        self.system.run("systemctl", verb, "drumd.service")

    def show(self, name: str) -> str:
        """Return one property of the unit."""
        return self.system.run("systemctl", "show", "-P", name, "drumd.service").strip()

    @property
    def main_pid(self) -> int:
        return int(self.show("MainPID"))

    def is_active(self) -> bool:
        return self.show("ActiveState") == "active"

    def status(self) -> Status:
        # Its exit code is no matter here: 1 says that not every pool is ready.
        text = self.system.run("/opt/drumd/bin/drumctl", "--json", "status", check=False)
        document: Status = json.loads(text)
        return document

    def workers(self) -> list[dict[str, Any]]:
        """Return the workers of the only pool."""
        workers: list[dict[str, Any]] = self.status()["pools"][0]["workers"]
        return workers

    def ready_pids(self) -> set[int]:
        return {worker["pid"] for worker in self.workers() if worker["state"] == "ready"}

    def starting_workers(self) -> int:
        """Count the workers that began to start after `hold-start` was there."""
        return len(list((self.system.root / "run/drumd").glob("starting-*")))

    def pids(self) -> set[int]:
        """Return all processes in the unit's cgroup and below."""
        group = self.system.root / "sys/fs/cgroup/system.slice/drumd.service"
        # Seen from outside, so these are other numbers than inside; good for counting and waiting.
        return {
            int(pid) for procs in group.rglob("cgroup.procs") for pid in procs.read_text().split()
        }

    def log(self) -> str:
        return self.system.run("journalctl", "--no-pager", "-o", "cat", "-u", "drumd.service")

    def curl(self, path: str = "/", base: str = URL) -> str:
        return self.system.run("curl", "-sS", "--fail", "--max-time", "30", base + path)

    def kill(self, signal_name: str, pid: int) -> None:
        self.system.run("kill", "-s", signal_name, str(pid))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BootedSystem]:
    needs_namespaces()
    needs("systemctl", "systemd")
    needs("ip", "iproute2")
    needs("curl", "curl")
    booted = BootedSystem(tmp_path_factory.mktemp("systemd"))
    try:
        _install(booted)
        yield booted
    finally:
        booted.shut_down()


def _install(system: BootedSystem) -> None:
    """Lay out an installation as docs/systemd.md tells."""
    shutil.copytree(
        CHECKOUT / "drumd",
        system.root / "opt/drumd/lib/drumd",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    system.run("chmod", "-R", "a+rX", "/opt/drumd")
    for name, module in [
        ("drumd", "drumd.supervisor.cli.drumd"),
        ("drumctl", "drumd.supervisor.cli.drumctl"),
    ]:
        system.write(f"/opt/drumd/bin/{name}", COMMAND.format(module=module), mode=0o755)
    for unit in ("drumd.service", "drumd.socket"):
        system.write(f"/etc/systemd/system/{unit}", (UNITS / unit).read_text())
    system.write("/etc/sysusers.d/drumd.conf", (UNITS / "drumd.sysusers.conf").read_text())
    system.run("systemd-sysusers", "/etc/sysusers.d/drumd.conf")


@pytest.fixture
def service(system: BootedSystem) -> Iterator[Service]:
    service = Service(system)
    system.run("journalctl", "--rotate")
    system.run("journalctl", "--vacuum-time=1us")
    yield service
    sys.stdout.write(service.log())  # shown when the test failed
    system.attempt("systemctl", "kill", "-s", "SIGKILL", "drumd.service")
    system.attempt("systemctl", "stop", "drumd.socket", "drumd.service")
    system.attempt("systemctl", "reset-failed")


def test_units_are_well_formed(system: BootedSystem) -> None:
    """systemd-analyze finds nothing to say about the service and the socket."""
    done = system.attempt("systemd-analyze", "verify", "drumd.service", "drumd.socket")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_one_worker_out_of_memory_does_not_stop_the_unit(service: Service) -> None:
    """The unit goes on after the kernel killed one of its processes for memory."""
    service.configure()
    assert service.show("OOMPolicy") == "continue"


def test_start_returns_when_all_workers_are_ready(service: Service) -> None:
    """The unit is activating until the last worker is ready, and active from then on."""
    service.configure()
    service.system.write(
        "/etc/systemd/system/drumd.service.d/hold.conf",
        "[Service]\nExecStartPre=touch /run/drumd/hold-start\n",
    )
    service.system.run("systemctl", "daemon-reload")
    try:
        start = service.system.start("systemctl", "start", "drumd.service")
        wait_until(lambda: service.starting_workers() == 2, what="two starting workers")
        assert service.show("ActiveState") == "activating"
        assert not service.ready_pids()
        service.system.write("/run/drumd/go-on", "")
        _, problem = start.communicate(timeout=60)
        assert (start.returncode, problem) == (0, "")
        assert len(service.ready_pids()) == 2
    finally:
        (service.system.root / "etc/systemd/system/drumd.service.d/hold.conf").unlink()


def test_shipped_config_serves_without_privileges(service: Service) -> None:
    """The config that comes with the unit serves an app in /srv/app, and no process is root's."""
    service.configure(config=(UNITS / "drumd.toml").read_text())
    service.systemctl("start")
    assert service.curl()
    for pid in service.pids():
        status = Path(f"/proc/{pid}/status").read_text()
        assert not re.search(r"^Uid:.*\b0\b", status, re.MULTILINE)
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)


def test_status_line_tells_how_the_pools_are(service: Service) -> None:
    """`systemctl status` shows one line about the pools."""
    service.configure()
    service.systemctl("start")
    assert "ready" in service.show("StatusText")


def test_unit_is_reloading_until_the_last_worker_is_replaced(service: Service) -> None:
    """`systemctl reload` replaces all workers; meanwhile the unit is reloading, then active."""
    service.configure()
    service.systemctl("start")
    main, before = service.main_pid, service.ready_pids()
    service.system.write("/run/drumd/hold-start", "")
    service.system.run("systemctl", "reload", "--no-block", "drumd.service")
    wait_until(service.starting_workers, what="a successor that starts")
    wait_until(lambda: service.show("ActiveState") == "reloading", what="a reloading unit")
    service.system.write("/run/drumd/go-on", "")
    wait_until(service.is_active, what="an active unit")
    assert service.main_pid == main
    after = service.ready_pids()
    assert len(after) == 2
    assert not after & before


def test_another_version_takes_over_and_the_unit_sees_nothing(service: Service) -> None:
    """A re-exec keeps MainPID and workers; the unit stays active, is stopped as ever, with 0."""
    service.configure()
    service.systemctl("start")
    main, before = service.main_pid, service.ready_pids()
    init = service.system.root / "opt/drumd/lib/drumd/__init__.py"
    text = init.read_text()
    try:
        init.write_text(f'{text}\n__version__ = "9.9.9"\n')
        for _ in range(2):
            assert "9.9.9" in service.system.run("/opt/drumd/bin/drumctl", "re-exec")
            assert service.is_active()
            assert (service.main_pid, service.ready_pids()) == (main, before)
        assert service.status()["version"] == "9.9.9"
        assert service.show("NRestarts") == "0"
        assert service.curl()
        # What systemd's socket unit and notify protocol told at the start is told once.
        assert "ready" in service.show("StatusText")
    finally:
        init.write_text(text)
    service.systemctl("stop")
    assert service.show("Result") == "success"
    assert service.show("ExecMainStatus") == str(int(DaemonExit.STOPPED))
    assert not service.pids()


def test_unit_stays_reloading_over_a_reexec(service: Service) -> None:
    """A reload that goes on is ended by the new program: reloading until then, then active."""
    service.configure()
    service.systemctl("start")
    service.system.write("/run/drumd/hold-start", "")
    service.system.run("systemctl", "reload", "--no-block", "drumd.service")
    wait_until(service.starting_workers, what="a successor that starts")
    service.system.run("/opt/drumd/bin/drumctl", "re-exec")
    assert service.show("ActiveState") == "reloading"
    service.system.write("/run/drumd/go-on", "")
    wait_until(service.is_active, what="an active unit")


def test_killed_worker_is_replaced_and_the_unit_stays_active(service: Service) -> None:
    """kill -9 of a worker is mended by drumd; systemd sees nothing of it."""
    service.configure()
    service.systemctl("start")
    main, before = service.main_pid, service.ready_pids()
    killed = min(before)
    service.kill("KILL", killed)
    wait_until(lambda: len(service.ready_pids() - {killed}) == 2, what="a whole pool", every=0.1)
    assert service.is_active()
    assert (service.main_pid, service.show("NRestarts")) == (main, "0")


def test_killed_daemon_is_restarted_and_leaves_no_old_process(service: Service) -> None:
    """After kill -9 of drumd systemd starts it anew, and nothing of the old one is left."""
    service.configure()
    service.systemctl("start")
    main, old = service.main_pid, service.pids()
    service.kill("KILL", main)
    wait_until(
        lambda: service.show("NRestarts") == "1" and service.is_active(),
        what="a restart",
        every=0.1,
    )
    assert service.main_pid != main
    assert not service.pids() & old
    assert service.curl()


def test_stop_lets_the_request_in_flight_finish(service: Service) -> None:
    """`systemctl stop` waits for the answer that a client waits for, and ends with 0."""
    service.configure()
    service.systemctl("start")
    client = service.system.start("curl", "-sS", "--fail", "--max-time", "30", f"{URL}/held")
    wait_until(lambda: service.system.exists("/run/drumd/held"), what="a request in flight")
    stop = service.system.start("systemctl", "stop", "drumd.service")
    wait_until(lambda: service.show("ActiveState") == "deactivating", what="a stop under way")
    service.system.write("/run/drumd/release", "")
    answer, problem = client.communicate(timeout=30)
    assert answer.isdigit(), problem
    assert stop.wait(timeout=60) == 0
    stop.communicate()
    assert (service.show("ActiveState"), service.show("ExecMainStatus")) == ("inactive", "0")
    assert service.show("Result") == "success"


def test_stop_clears_children_that_left_their_group(service: Service) -> None:
    """A worker's child in a session of its own is gone after `systemctl stop`."""
    service.configure()
    service.systemctl("start")
    processes = len(service.pids())
    service.curl("/child")
    wait_until(lambda: len(service.pids()) > processes, what="the worker's child")
    service.systemctl("stop")
    assert not service.pids()
    assert service.show("Result") == "success"


def test_hung_daemon_is_restarted_by_the_watchdog(service: Service) -> None:
    """The watchdog leaves a drumd that works alone; one that does nothing any more is replaced."""
    service.configure(drop_in="WatchdogSec=2s\n")
    service.systemctl("start")
    main = service.main_pid

    def outlived_the_watchdog() -> bool:
        started = int(service.show("ActiveEnterTimestampMonotonic"))
        return int(service.show("WatchdogTimestampMonotonic")) > started + 2_500_000

    wait_until(outlived_the_watchdog, what="signs of life for longer than the watchdog", every=0.1)
    assert (service.main_pid, service.show("NRestarts")) == (main, "0")
    service.kill("STOP", main)
    wait_until(
        lambda: service.show("NRestarts") == "1" and service.is_active(),
        what="a restart",
        every=0.1,
    )
    assert service.main_pid != main


def test_broken_app_fails_the_unit(service: Service) -> None:
    """An app that raises at import fails the unit with the exit code of a failed start."""
    impatient = "[pools.web.restart]\nintensity = 0\n"
    service.configure(app="raise RuntimeError('no weights')", config=CONFIG + impatient)
    assert service.system.attempt("systemctl", "start", "drumd.service").returncode != 0
    wait_until(lambda: service.show("ActiveState") == "failed", what="a failed unit", every=0.1)
    assert service.show("ExecMainStatus") == str(int(DaemonExit.START_FAILED))
    assert "no weights" in service.log()


def test_invalid_config_is_not_tried_again(service: Service) -> None:
    """A config with a mistake fails the unit at the first start."""
    service.configure(config=CONFIG.replace("workers", "wrokers"))
    assert service.system.attempt("systemctl", "start", "drumd.service").returncode != 0
    assert service.show("ActiveState") == "failed"
    assert service.show("ExecMainStatus") == str(int(DaemonExit.CONFIG))
    assert service.show("NRestarts") == "0"
    assert re.search(r"wrokers.*workers", service.log(), re.DOTALL)


def test_slow_app_is_given_the_time_it_needs(service: Service) -> None:
    """An app that takes longer than TimeoutStartSec starts, since drumd asks for more time."""
    service.configure(app=f"import time\ntime.sleep(5)\n{APP}", drop_in="TimeoutStartSec=3s\n")
    service.systemctl("start")
    assert service.is_active()
    assert service.show("NRestarts") == "0"


def test_connection_to_the_socket_unit_starts_the_daemon(service: Service) -> None:
    """The first connection to the port that systemd holds starts drumd, and is answered."""
    service.configure(config=CONFIG.replace("127.0.0.1:8080", "fd://http"))
    service.system.run("systemctl", "start", "drumd.socket")
    assert not service.is_active()
    answered_by = int(service.curl())
    wait_until(service.is_active, what="an active unit")
    assert answered_by in {worker["pid"] for worker in service.workers()}


def test_restart_with_the_socket_unit_refuses_nobody(service: Service) -> None:
    """A client that comes while drumd itself is restarted waits, and is answered by the new one."""
    service.configure(config=CONFIG.replace("127.0.0.1:8080", "fd://http"))
    service.system.run("systemctl", "start", "drumd.socket", "drumd.service")
    old = service.ready_pids()
    service.system.run("systemctl", "stop", "--no-block", "drumd.service")
    wait_until(lambda: not service.is_active(), what="a stop under way")
    assert int(service.curl()) not in old
