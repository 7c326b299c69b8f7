"""What drumd takes from where it runs: variables, CPUs, the admin socket and who may use it."""

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from drumd.exitcodes import ControlExit, DaemonExit
from tests.e2e.controlling import DRUMCTL
from tests.e2e.daemon import APPS, CHECKOUT, Daemon, Document, UnixConnection, free_port, get
from tests.e2e.served import Served
from tests.needs import needs, needs_root
from tests.waiting import wait_until

Start = Callable[..., Daemon]
Serve = Callable[..., Served]

NOBODY = 65_534


def environment(**variables: str) -> Mapping[str, str]:
    """Return a clean environment with these variables."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), **variables}


def drumctl(
    *arguments: str, environ: Mapping[str, str], prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, sys.executable, "-c", DRUMCTL, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- variables and CPUs -------------------------------------------------------------------------


def test_pools_come_from_the_environment_alone(daemon: Start, tmp_path: Path) -> None:
    """Without any file, DRUMD_POOLS__NAME__KEY is enough for a pool, and flags win over it."""
    port, directory = free_port(), tmp_path / "daemon-0"
    started = daemon(
        "run",
        f"--admin-socket={directory}/flag.sock",
        environ=environment(
            DRUMD_POOLS__WEB__APP="unruly:asgi",
            DRUMD_POOLS__WEB__APP_DIR=str(APPS),
            DRUMD_POOLS__WEB__BIND=f"127.0.0.1:{port}",
            DRUMD_POOLS__WEB__WORKERS="2",
            DRUMD_SUPERVISOR__ADMIN_SOCKET=f"{directory}/environment.sock",
        ),
    )
    path = directory / "flag.sock"
    wait_until(path.exists, what="the admin socket")
    status = wait_until(lambda: ready(started, path), what="2 ready workers")
    (pool,) = status["pools"]
    assert (pool["name"], pool["size"], pool["bind"]) == ("web", 2, [f"127.0.0.1:{port}"])
    assert not (directory / "environment.sock").exists()


def ready(daemon: Daemon, path: Path) -> Document:
    """Return the status once all is ready; until then nothing."""
    assert daemon.popen.poll() is None, daemon.text()
    daemon.remember()
    try:
        status: Document = json.loads(get("/status", over=path)[1])
    except OSError:
        return {}
    return status if status["state"] == "ready" else {}


def test_a_misspelt_variable_is_an_error(daemon: Start) -> None:
    """A DRUMD_ variable that means nothing is refused by its name, as a key in a file would be."""
    started = daemon("serve", "unruly:asgi", environ=environment(DRUMD_POOLS__WEB__WORKRES="2"))
    assert started.wait() == DaemonExit.CONFIG
    assert "DRUMD_POOLS__WEB__WORKRES" in started.text()
    assert "did you mean" in started.text()


def test_auto_counts_the_cpus_that_may_be_used(daemon: Start) -> None:
    """`--workers auto` is one event loop where drumd may use a single CPU, and the log says why."""
    needs("taskset", "util-linux")
    cpu = min(os.sched_getaffinity(0))
    started = daemon(
        "serve",
        "unruly:asgi",
        "--runtime=uvicorn",
        "--workers=auto",
        f"--app-dir={APPS}",
        f"--bind=127.0.0.1:{free_port()}",
        # The shell stays in front of it, as the tests find drumd below what they started.
        prefix=["sh", "-c", f'taskset -c {cpu} "$@"; exit $?', "sh"],
    )
    started.wait_ready(1)
    begin = started.wait_for("daemon.started")
    assert begin["workers"] == 1
    assert "1 CPU" in begin["workers_reason"]


# --- the admin socket ---------------------------------------------------------------------------


def test_admin_socket_is_for_owner_and_group(serve: Serve) -> None:
    """The admin socket has mode 0660 and goes with the daemon."""
    served = serve(web={"runtime": "uvicorn"})
    served.ready()
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o660
    assert served.daemon.drumctl("stop", "--all").returncode == 0
    assert list(served.socket.parent.glob("admin*")) == []


def test_who_may_not_change_things_is_told_who_may(daemon: Start, anyones: Path) -> None:
    """Another user who can connect may read the status; a change is refused with who may."""
    needs_root()
    path = anyones / "admin.sock"
    started = daemon(
        "serve",
        "unruly:asgi",
        f"--app-dir={APPS}",
        f"--bind=127.0.0.1:{free_port()}",
        f"--admin-socket={path}",
    )
    wait_until(lambda: live(started, path), what="a status")
    done = as_nobody(path, "status")
    assert done.returncode == ControlExit.UNKNOWN
    assert "permission denied for nobody" in done.stderr
    assert done.stderr.endswith("; root and members of group root may use it\n")
    path.chmod(0o666)
    assert json.loads(as_nobody(path, "status", "--json").stdout)["state"] == "ready"
    for change in (("restart", "web"), ("scale", "web", "3"), ("stop", "web"), ("stop", "--all")):
        done = as_nobody(path, *change)
        assert done.returncode == ControlExit.DEGRADED, done.stdout
        assert "cannot let nobody (uid 65534" in done.stderr
        assert "root" in done.stderr.partition("operate drumd: ")[2]
    assert live(started, path)
    assert not [line for line in started.log() if line["event"].startswith("operation.")]


@pytest.fixture
def anyones() -> Iterator[Path]:
    """A directory that everyone may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def as_nobody(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    needs("setpriv", "util-linux")
    prefix = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return drumctl(*arguments, environ=environment(DRUMD_SOCKET=str(path)), prefix=prefix)


def test_a_live_admin_socket_is_refused_by_name(serve: Serve, daemon: Start) -> None:
    """A second drumd on a live admin socket is refused by pid; the first one goes on."""
    served = serve(web={"runtime": "uvicorn"})
    (pid,) = served.ready()
    second = daemon(
        "serve",
        "unruly:asgi",
        f"--app-dir={APPS}",
        f"--bind=127.0.0.1:{free_port()}",
        f"--admin-socket={served.socket}",
    )
    assert second.wait() == DaemonExit.START_FAILED
    (line,) = second.text().splitlines()
    assert line.startswith(f"drumd: cannot use admin socket {served.socket}: ")
    assert f"drumd pid {served.daemon.pid} answers there" in line
    assert served.pids() == [pid]


def test_a_stale_admin_socket_is_replaced(daemon: Start, tmp_path: Path) -> None:
    """The socket that a killed drumd left is taken over by the next one without a word."""
    path = tmp_path / "shared.sock"
    for number in range(2):
        started = daemon(
            "serve",
            "unruly:asgi",
            f"--app-dir={APPS}",
            f"--bind=127.0.0.1:{free_port()}",
            f"--admin-socket={path}",
        )
        wait_until(lambda started=started: live(started, path), what="a status")  # type: ignore[misc]
        assert "shared.sock" not in started.text()
        if number == 0:
            started.end()
            assert path.exists()


def live(daemon: Daemon, path: Path) -> bool:
    return ready(daemon, path).get("pid") == daemon.pid


def test_two_daemons_of_one_user_are_both_reachable(daemon: Start, tmp_path: Path) -> None:
    """Two daemons without any settings are both found; which one is meant has to be said."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    environ = environment(RUNTIME_DIRECTORY=str(runtime))
    arguments = ("serve", "unruly:asgi", f"--app-dir={APPS}")
    both = [
        daemon(*arguments, f"--bind=127.0.0.1:{free_port()}", environ=environ) for _ in range(2)
    ]
    paths = wait_until(
        lambda: found if len(found := sorted(runtime.glob("*.sock"))) == 2 else [],
        what="two admin sockets",
    )
    by_pid = {}
    for path in paths:
        status = wait_until(
            lambda path=path: next(filter(None, (ready(each, path) for each in both)), {}),  # type: ignore[misc]
            what="a status",
        )
        by_pid[status["pid"]] = path
    assert by_pid.keys() == {each.pid for each in both}
    unsure = drumctl("status", environ=environ)
    assert unsure.returncode == ControlExit.USAGE
    assert all(f"--socket {path}   (pid {pid})" in unsure.stderr for pid, path in by_pid.items())
    for pid, path in by_pid.items():
        done = drumctl("--socket", str(path), "--json", "status", environ=environ)
        assert json.loads(done.stdout)["pid"] == pid


def test_a_client_that_says_nothing_holds_up_nobody(serve: Serve) -> None:
    """Clients that connect to the admin socket and say nothing, or half, keep no other one out."""
    served = serve(web={"runtime": "uvicorn"})
    served.ready()
    idle = [socket.socket(socket.AF_UNIX) for _ in range(50)]
    try:
        for number, client in enumerate(idle):
            client.connect(str(served.socket))
            if number % 2:
                client.sendall(b"POST /pools/web/restart HTTP/1.1\r\nContent-Le")
        assert served.daemon.drumctl("status").returncode == ControlExit.OK
        connection = UnixConnection(served.socket)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()
        assert served.daemon.drumctl("stop", "--all").returncode == 0
    finally:
        for client in idle:
            client.close()
    assert served.wait_exit() == 0
