"""`drumctl`, run as people and scripts run it, against a real admin server."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drumd.exitcodes import ControlExit
from drumd.supervisor.cli import drumd
from drumd.supervisor.cli.commands import COMMANDS
from drumd.supervisor.cli.drumctl import main
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
# drumctl as it is, but for where it looks: a daemon of this machine's must not be found.
ISOLATED = """
import os, sys
from pathlib import Path
from drumd.supervisor.admin import paths
only = paths.Place(Path(os.environ["RUNTIME_DIRECTORY"]), private=False)
paths.places = lambda environ: [only]
from drumd.supervisor.cli.drumctl import main
sys.exit(main())
"""
DRUMCTL = [sys.executable, "-c", ISOLATED]


class Daemon:
    """A daemon in a process of its own, and the environment that finds it and no other."""

    def __init__(self, directory: Path, socket: str = "") -> None:
        self.directory = directory
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "RUNTIME_DIRECTORY": str(directory),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.admin_daemon", socket],
            cwd=ROOT,
            env=self.environ,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def ctl(self, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*DRUMCTL, *arguments],
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def end(self) -> None:
        killed = self.process.poll() == -signal.SIGKILL
        self.process.terminate()
        assert killed or self.process.wait(30) == 0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon of the test's own; the test may have ended it."""
    running = Daemon(tmp_path)
    yield running
    running.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for tests that change nothing."""
    running = Daemon(tmp_path_factory.mktemp("shared"))
    yield running
    running.end()


@pytest.fixture
def no_daemon(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run drumctl where no daemon is."""

    def ctl(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environ = {"PYTHONPATH": str(ROOT), "RUNTIME_DIRECTORY": str(tmp_path)}
        return subprocess.run(
            [*DRUMCTL, *arguments], env=environ, capture_output=True, text=True, check=False
        )

    return ctl


@contextmanager
def answering(path: Path, *answers: bytes) -> Iterator[str]:
    """A server on a socket that gives each connection the next of `answers`, whatever it asks."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield str(path)
        thread.join(30)
        assert not thread.is_alive(), "not every answer was asked for"


def as_http(document: object, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\n\r\n{json.dumps(document)}".encode()


# --- status -------------------------------------------------------------------------------------


def test_status_is_a_table_and_degraded_is_1(shared: Daemon) -> None:
    """The table has each worker, and each slot without one with its why; exit code 1: degraded."""
    done = shared.ctl("status")
    assert done.returncode == ControlExit.DEGRADED
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"drumd 0.1.0 degraded · pid {shared.process.pid} · up 1h02m · ")
    [down] = [line for line in lines if "backoff" in line]
    assert down.split()[:3] == ["1", "-", "backoff"]
    assert down.endswith("no module named 'sklearn'; next try in 2.3s")
    assert any("stalled" in line for line in lines)
    assert "1,234" in done.stdout


def test_status_json_is_the_apis_document(shared: Daemon) -> None:
    """`--json` before or after the command prints the document with the promised fields."""
    for arguments in (("status", "--json"), ("--json", "status")):
        document = json.loads(shared.ctl(*arguments).stdout)
        assert document["pid"] == shared.process.pid
        assert [pool["name"] for pool in document["pools"]] == ["web", "model", "slow", "broken"]
        assert document["pools"][0]["workers"][0]["slot"] == 0


def test_all_ready_is_0(daemon: Daemon) -> None:
    """With every pool ready the exit code is 0."""
    assert daemon.ctl("start", "model").returncode == ControlExit.OK
    assert daemon.ctl("status").returncode == ControlExit.OK


def test_no_daemon_is_3_and_says_how_to_start_one(
    no_daemon: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    """Without a daemon every command exits with 3, and says where it looked and what to run."""
    for arguments in (("restart", "web"), ("--socket", str(tmp_path / "x.sock"), "status")):
        done = no_daemon(*arguments)
        assert done.returncode == ControlExit.NOT_RUNNING
        assert done.stderr.startswith("drumctl: cannot reach drumd: ")
        assert "drumd serve" in done.stderr


def test_no_daemon_says_that_the_environment_named_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where DRUMD_SOCKET names a socket without a daemon, the message says so; a flag wins."""
    path, other = tmp_path / "x.sock", tmp_path / "y.sock"
    monkeypatch.setenv("DRUMD_SOCKET", str(path))
    assert main(["status"]) == ControlExit.NOT_RUNNING
    said = capsys.readouterr().err
    assert f"nothing answers on {path} (from DRUMD_SOCKET): No such file or directory; " in said
    assert said.endswith("; if it is a service: `systemctl status drumd`\n")
    assert main(["--socket", str(other), "status"]) == ControlExit.NOT_RUNNING
    assert f"nothing answers on {other}: No such file" in capsys.readouterr().err


def test_a_stale_socket_is_no_daemon(
    no_daemon: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    """The socket of a daemon that was killed counts as no daemon."""
    running = Daemon(tmp_path)
    running.process.kill()
    running.process.wait(30)
    assert (tmp_path / "admin.sock").exists()
    assert no_daemon("status").returncode == ControlExit.NOT_RUNNING


def test_a_stuck_daemon_is_4(tmp_path: Path) -> None:
    """A daemon that breaks off its answer is there, but cannot be told: exit code 4."""
    code = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(flush=True)\n"
        "c, _ = s.accept(); c.recv(100); c.close()\n"
    )
    path = str(tmp_path / "broken.sock")
    server = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    done = subprocess.run(
        [*DRUMCTL, "--socket", path, "status"],
        env={"PYTHONPATH": str(ROOT), "RUNTIME_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ControlExit.UNKNOWN
    assert done.stderr.startswith("drumctl: cannot have an answer from the drumd on ")
    assert server.wait(30) == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<h1>Hello</h1>\n",
        b'HTTP/1.1 200 OK\r\n\r\n{"hello": "world"}',
        b"HTTP/1.1 200 OK\r\n\r\n[1, 2]",
        b'HTTP/1.1 404 Not Found\r\n\r\n{"detail": "Not Found"}',
        b"220 mail.example.org ESMTP\r\n",
    ],
)
@pytest.mark.parametrize("arguments", [["status"], ["restart", "web"]])
def test_a_socket_of_something_else_is_4(
    answer: bytes, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What answers but is no drumd is exit code 4, and the message says where drumd's socket is."""
    with answering(tmp_path / "app.sock", answer) as path:
        assert main(["--socket", path, *arguments]) == ControlExit.UNKNOWN
    assert capsys.readouterr().err == (
        f"drumctl: cannot understand what answers on {path}: it is not drumd's admin socket; "
        "drumd names its own in its log and in the first line of `drumctl status`\n"
    )


def test_two_daemons_are_both_reachable(daemon: Daemon) -> None:
    """Of several daemons of a user none is guessed: they are listed, and each is reachable."""
    second = Daemon(daemon.directory)
    try:
        done = daemon.ctl("status")
        assert done.returncode == ControlExit.USAGE
        sockets = [line.split()[1] for line in done.stderr.splitlines() if "--socket" in line]
        assert [Path(path).name for path in sockets] == ["admin-2.sock", "admin.sock"]
        pids = {
            json.loads(daemon.ctl("--socket", path, "status", "--json").stdout)["pid"]
            for path in sockets
        }
        assert pids == {daemon.process.pid, second.process.pid}
        named = daemon.ctl("status", "--json", DRUMD_SOCKET=sockets[0])
        assert json.loads(named.stdout)["pid"] == second.process.pid
    finally:
        second.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user: sudo pytest")
def test_who_may_not_connect_is_told_who_may(daemon: Daemon) -> None:
    """Another user who may not connect is told who may, with exit code 4."""
    for directory in [daemon.directory, *daemon.directory.parents]:
        if (
            directory.name.startswith(("pytest-", "popen-", "test_"))
            or directory == daemon.directory
        ):
            directory.chmod(0o755)  # what pytest made, down from the system's directory
    code = (
        "import gettext, locale, os, shutil, sys\n"  # their directory may be root's alone
        "from drumd.supervisor.cli import drumctl\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(drumctl.main(['--socket', sys.argv[1], 'status']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(daemon.directory / "admin.sock")],
        env=daemon.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ControlExit.UNKNOWN, done.stderr
    assert "permission denied for nobody; root and members of group root may" in (done.stderr)


def test_status_imports_little(shared: Daemon) -> None:
    """`drumctl status` imports none of the heavy packages, so that it answers at once."""
    code = (
        "import sys\n"
        "from drumd.supervisor.cli.drumctl import main\n"
        "main(['status', '--json', '--socket', sys.argv[1]])\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(shared.directory / "admin.sock")],
        env=shared.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stderr.split())
    heavy = {"pydantic", "fastapi", "uvicorn", "structlog", "asyncio", "psutil", "http.client"}
    heavy |= {"prometheus_client", "drumd.workers", "drumd.config", "logging", "tempfile", "ssl"}
    assert "drumd.supervisor.cli.client" in loaded
    assert not heavy & loaded


# --- operations ---------------------------------------------------------------------------------


def test_restart_waits_for_the_outcome(daemon: Daemon) -> None:
    """A restart that is done exits with 0 and says so; how it went on is on stderr."""
    done = daemon.ctl("restart", "web")
    assert (done.returncode, done.stdout) == (0, "restart web: done, 2 of 2 done\n")
    assert done.stderr.startswith("restart web 0/2 ")
    one = daemon.ctl("restart", "web/1")
    assert one.stdout == "restart web/1: done, 1 of 1 done\n"


def test_a_failed_restart_is_1_with_the_reason(daemon: Daemon) -> None:
    """A restart that failed exits with 1 and tells why."""
    done = daemon.ctl("restart", "broken")
    assert done.returncode == ControlExit.DEGRADED
    assert done.stdout.startswith("restart broken: failed, slot 0: exited with 1")


def test_scale_stop_start(daemon: Daemon) -> None:
    """Scale, stop and start do what they say."""
    assert daemon.ctl("scale", "web", "3").returncode == 0
    assert daemon.ctl("stop", "web").returncode == 0
    pools = json.loads(daemon.ctl("status", "--json").stdout)["pools"]
    assert (pools[0]["size"], pools[0]["state"]) == (3, "stopped")
    assert daemon.ctl("start", "web").returncode == 0
    refused = daemon.ctl("start", "web")
    assert refused.returncode == ControlExit.DEGRADED
    assert refused.stderr == "drumctl: cannot start web: it runs already\n"


def test_no_wait_prints_the_id_and_cancel_takes_it(daemon: Daemon) -> None:
    """`--no-wait` tells the operation's id; it can be cancelled and its end waited for."""
    accepted = json.loads(daemon.ctl("restart", "slow", "--no-wait", "--json").stdout)
    cancelled = daemon.ctl("cancel", accepted["id"])
    assert cancelled.returncode == ControlExit.OK
    assert "cancelled by" in cancelled.stdout
    waited = daemon.ctl("wait", accepted["id"])
    assert waited.returncode == ControlExit.DEGRADED
    assert waited.stdout.startswith("restart slow: cancelled, ")


def test_json_outcome_is_one_document(daemon: Daemon) -> None:
    """With `--json` the outcome is one document on stdout, and stderr is empty."""
    done = daemon.ctl("restart", "web", "--json")
    assert json.loads(done.stdout)["state"] == "done"
    assert done.stderr == ""


def test_without_a_pool_every_pool_is_restarted(daemon: Daemon) -> None:
    """`drumctl restart` without a name restarts every pool."""
    done = daemon.ctl("restart", "--no-wait")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        f"restart {pool}" for pool in ("web", "model", "slow", "broken")
    ]


def test_of_several_the_worst_outcome_counts(daemon: Daemon) -> None:
    """Of several operations each outcome is told, and the exit code is the worst."""
    done = daemon.ctl("restart", "web", "broken")
    assert done.returncode == ControlExit.DEGRADED
    outcomes = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [line.split(",")[0] for line in outcomes] == [
        "restart web: done",
        "restart broken: failed",
    ]


def test_a_failure_comes_with_the_workers_last_lines(daemon: Daemon) -> None:
    """What the failed worker wrote stands below the outcome, without what that says already."""
    said = daemon.ctl("restart", "broken").stdout
    assert said.splitlines()[1:] == [
        "  the worker's last lines:",
        "    Traceback (most recent call last):",
        '      File "shop.py", line 3',
        "    SyntaxError: invalid syntax",
    ]


# --- reload and config --------------------------------------------------------------------------


def test_reload_tells_what_it_does_and_waits_for_all(daemon: Daemon) -> None:
    """A reload's notes are on stderr, each pool's outcome on stdout, and the worst one counts."""
    one = daemon.ctl("reload", "web")
    assert (one.returncode, one.stdout) == (ControlExit.OK, "reload web: done, 2 of 2 done\n")
    assert one.stderr.startswith("pool model: scaled to 3 workers\n")
    broken = daemon.ctl("reload", "broken")
    assert broken.returncode == ControlExit.DEGRADED
    assert "    SyntaxError: invalid syntax\n" in broken.stdout


def test_reload_for_programs_is_one_document(daemon: Daemon) -> None:
    """With `--json` a reload is one document: its notes, and how each operation ended."""
    done = daemon.ctl("reload", "web", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (ControlExit.OK, "")
    assert document["notes"] == ["pool model: scaled to 3 workers"]
    assert [each["state"] for each in document["operations"]] == ["done"]
    begun = json.loads(daemon.ctl("reload", "slow", "--json", "--no-wait").stdout)
    assert [each["final"] for each in begun["operations"]] == [False]


def test_a_refused_reload_lists_every_problem(daemon: Daemon) -> None:
    """A config that is invalid is exit code 1, with each problem in a line of its own."""
    daemon.ctl("stop", "web")
    refused = daemon.ctl("reload")
    assert (refused.returncode, refused.stdout) == (ControlExit.DEGRADED, "")
    assert refused.stderr == (
        "drumctl: cannot use the changed config: 1 problem\n  pools.web.wrkers: ?\n"
    )


def test_ctrl_c_leaves_a_reload_of_several_pools_and_names_all(daemon: Daemon) -> None:
    """After Ctrl-C it is said how to wait for all operations that go on, and that works."""
    with subprocess.Popen(
        [*DRUMCTL, "restart", "web", "slow", "slow"],
        env=daemon.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "restart web: done, 2 of 2 done\n"
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGINT
    assert "op-2, op-3 go on without you; `drumctl wait op-2 op-3` waits" in said
    assert daemon.ctl("cancel", "op-2", "op-3").returncode == ControlExit.OK
    waited = daemon.ctl("wait", "op-2", "op-3")
    assert waited.stdout.count("restart slow: cancelled") == 2


def test_config_is_as_check_prints_it(shared: Daemon) -> None:
    """`drumctl config` prints the config in force with origins, and masks secrets."""
    done = shared.ctl("config")
    assert done.returncode == ControlExit.OK
    assert "[pools.web]\n" in done.stdout
    assert "workers = 2" in done.stdout
    assert "# flag --workers" in done.stdout
    assert "hush" not in done.stdout
    document = json.loads(shared.ctl("config", "--json").stdout)
    values = {each["key"]: each["value"] for each in document["keys"]}
    assert values["pools.web.workers"] == 2
    assert values["pools.web.environment.API_TOKEN"] == "***"


def test_config_diff_has_the_exit_codes_of_diff(daemon: Daemon) -> None:
    """0: a reload would change nothing; 1: it would, and each key says what it takes."""
    same = daemon.ctl("config", "diff")
    assert (same.returncode, same.stdout) == (ControlExit.OK, "nothing has changed\n")
    daemon.ctl("scale", "web", "3")
    other = daemon.ctl("config", "diff")
    assert other.returncode == ControlExit.DEGRADED
    assert "workers = 2 -> 3" in other.stdout
    assert "# live" in other.stdout
    assert "# pool web: app_dir leads to /srv/releases/2 by now" in other.stdout
    document = json.loads(daemon.ctl("config", "diff", "--json").stdout)
    assert document["pools"][0]["changes"][0]["effect"] == "live"


def test_of_several_names_none_is_restarted_if_one_is_wrong(daemon: Daemon) -> None:
    """Wrong names among several are all told, with exit code 2, before anything is restarted."""
    done = daemon.ctl("restart", "web/0", "wbe", "model/9", "slow")
    assert (done.returncode, done.stdout) == (ControlExit.USAGE, "")
    assert done.stderr == (
        "drumctl: cannot find pool 'wbe': the pools are web, model, slow, broken "
        "(did you mean 'web'?); nor slot model/9: the slots of model are 0 to 2; "
        "nothing was restarted\n"
    )
    events = daemon.ctl("events").stdout
    assert "daemon.notice" in events
    assert "operation" not in events


def test_ctrl_c_while_waiting_leaves_the_operation(daemon: Daemon) -> None:
    """Ctrl-C ends the waiting alone, and says how to go on waiting and how to cancel."""
    child = subprocess.Popen(
        [*DRUMCTL, "restart", "slow"], env=daemon.environ, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    wait_until(lambda: child.stderr and "running" in child.stderr.readline())
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGINT
    assert "op-1 goes on without you; `drumctl wait op-1` waits" in said
    assert daemon.ctl("cancel", "op-1").returncode == 0


def test_a_daemon_that_goes_while_waited_for_is_4(daemon: Daemon) -> None:
    """When the daemon goes before an outcome is known, the exit code is 4."""
    child = subprocess.Popen(
        [*DRUMCTL, "restart", "slow"], env=daemon.environ, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    wait_until(lambda: child.stderr and "running" in child.stderr.readline())
    daemon.end()
    _, said = child.communicate(timeout=60)
    assert child.returncode == ControlExit.UNKNOWN
    assert "drumctl: cannot " in said


def test_stop_waits_until_the_daemon_is_gone(daemon: Daemon) -> None:
    """`drumctl stop` without a pool returns when the daemon's process has ended."""
    done = daemon.ctl("stop")
    assert (done.returncode, done.stdout) == (0, f"drumd pid {daemon.process.pid} has stopped\n")
    assert not Path(f"/proc/{daemon.process.pid}/fd/0").exists()
    assert daemon.ctl("status").returncode == ControlExit.NOT_RUNNING


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["restart", "wbe"], "there are web, model, slow, broken (did you mean 'web'?)"),
        (["restart", "web/7"], "there are slots 0 to 1"),
        (["restart", "web/x"], "write POOL, or POOL/SLOT"),
        (["stop", "web", "--all"], "leave out one of them"),
        (["config", "dif"], "invalid choice: 'dif'"),
        (["scale", "web", "many"], "'many' is no whole number"),
        (["scale", "web"], "required: N"),
        (["statsu"], "unknown command 'statsu' (did you mean 'status'?); there are status, "),
        (["status", "--jsn"], "unknown flag '--jsn' (did you mean '--json'?)"),
        (["status", "now"], "unexpected argument 'now'"),
        (["wait", "nope"], "cannot find operation 'nope'"),
        ([], "no command"),
        (["--colour"], "unknown flag '--colour'"),
    ],
)
def test_mistakes_are_2_and_say_what_to_write(
    shared: Daemon,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A wrong command line or name exits with 2, begins with "cannot", and says what there is."""
    monkeypatch.setenv("DRUMD_SOCKET", str(shared.directory / "admin.sock"))
    assert main(arguments) == ControlExit.USAGE
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("drumctl: cannot ")
    assert said in error


# --- output -------------------------------------------------------------------------------------


def test_events_are_lines_for_people_and_for_programs(shared: Daemon) -> None:
    """Events are one line each; with `--json`, one document each."""
    people = shared.ctl("events", "-n", "1")
    assert people.returncode == 0
    assert people.stdout.count("\n") == 1
    assert "daemon.notice       all pools are ready" in people.stdout
    programs = [json.loads(line) for line in shared.ctl("events", "--json").stdout.splitlines()]
    assert [entry["reason"] for entry in programs] == ["started", "all pools are ready"]


def test_events_are_followed_until_the_daemon_goes(daemon: Daemon) -> None:
    """`events -f` shows what happens as it happens, and ends with the daemon."""
    child = subprocess.Popen(
        [*DRUMCTL, "events", "-f", "-n", "1"], env=daemon.environ, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert "all pools are ready" in child.stdout.readline()
    daemon.ctl("restart", "web")
    assert "operation.queued" in child.stdout.readline()
    assert "operation.done" in child.stdout.readline()
    assert daemon.ctl("stop", "--all").returncode == 0
    assert "daemon.stopping" in child.communicate(timeout=30)[0]
    assert child.returncode == 0


def test_following_a_daemon_that_is_killed_is_3(daemon: Daemon) -> None:
    """`events -f` says that the daemon is gone when it ends without having stopped; code 3."""
    child = subprocess.Popen(
        [*DRUMCTL, "events", "-f", "-n", "1"],
        env=daemon.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert "all pools are ready" in child.stdout.readline()
    daemon.process.kill()
    daemon.process.wait(30)
    _, said = child.communicate(timeout=30)
    assert child.returncode == ControlExit.NOT_RUNNING
    assert said == (
        "drumctl: cannot follow events any more: drumd is gone (killed or crashed); "
        "see its service's log\n"
    )


def test_metrics_are_the_page(shared: Daemon) -> None:
    """`drumctl metrics` prints what Prometheus would get."""
    done = shared.ctl("metrics")
    assert done.returncode == 0
    assert 'drumd_pool_size{pool="web"} 2.0\n' in done.stdout


def test_a_closed_pipe_is_quiet(shared: Daemon) -> None:
    """A reader that has had enough (`| head -1`) makes no noise."""
    for command in ("metrics", "status", "events"):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*DRUMCTL, command],
            env=shared.environ,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, "")


def _on_terminal(
    daemon: Daemon, columns: int, *arguments: str, typed: str = "", until: str = "", **environ: str
) -> str:
    """Return what drumctl writes on a terminal; it gets SIGINT once it has written `until`."""
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    child = subprocess.Popen(
        [*DRUMCTL, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=daemon.environ | {"COLUMNS": str(columns), "LC_ALL": "C.UTF-8"} | environ,
    )
    os.close(theirs)
    said = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:
            break  # EIO: the child has closed the terminal
        said += chunk
        if until and until.encode() in said:
            child.send_signal(signal.SIGINT)
            until = ""
    os.close(ours)
    child.wait(30)
    return said.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_the_table_fits_the_terminal_and_cuts_no_reason(shared: Daemon, columns: int) -> None:
    """On a terminal no line is wider than it, and every reason is there whole."""
    said = _on_terminal(shared, columns, "status", NO_COLOR="1")
    lines = said.splitlines()
    first, *rest = lines
    # The first line has the socket's path, which may have any length.
    assert first.startswith("drumd ")
    assert max(len(line) for line in rest) <= columns
    words = " ".join(said.split())
    assert "exited with 1: ModuleNotFoundError: no module named 'sklearn'; next try in" in words


def test_colours_are_on_terminals_and_can_be_refused(shared: Daemon) -> None:
    """A terminal gets colours, unless NO_COLOR says otherwise."""
    assert "\x1b[32mready\x1b[0m" in _on_terminal(shared, 120, "status")
    assert "\x1b" not in _on_terminal(shared, 120, "status", NO_COLOR="1")


def test_progress_is_one_line_that_is_written_over(daemon: Daemon) -> None:
    """On a terminal progress is a bar in one line, and the outcome is what stays."""
    said = _on_terminal(daemon, 100, "restart", "web", NO_COLOR="1")
    *shown, outcome = said.rstrip("\n").split("\r\x1b[J")
    assert outcome == "restart web: done, 2 of 2 done"
    assert "restart web [░░] 0/2 queued: waits for its turn" in shown
    assert "\n" not in "".join(shown)


def test_what_waits_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An operation that waits in the queue is shown as queued, and not twice so."""
    queued: dict[str, object] = {
        "id": "web-1",
        "kind": "restart",
        "pool": "web",
        "progress": [0, 0],
        "reading": "1",
    }
    queued |= {"state": "queued", "reason": "queued", "final": False, "slots": []}
    queued |= {"last_lines": []}
    done = queued | {"state": "done", "reason": "1 of 1 restarted", "final": True}
    with answering(tmp_path / "it.sock", *map(as_http, (queued, done))) as path:
        assert main(["--socket", path, "restart", "web"]) == ControlExit.OK
    assert capsys.readouterr().err == "restart web: queued\n"


def test_several_operations_have_a_line_each(daemon: Daemon) -> None:
    """On a terminal several operations are shown at once, in lines that are written over."""
    said = _on_terminal(daemon, 100, "reload", NO_COLOR="1", until="0/4 running: waits for slot 0")
    assert re.search(r"reload slow \[[░▒]+\] 0/4 [^\n]*\nreload broken", said), repr(said)
    assert re.search(r"\x1b\[[12]A\x1b\[J", said), repr(said)  # gone back over the lines above
    assert "go on without you" in said.replace("goes", "go")


def test_colours_do_not_count_as_columns(daemon: Daemon) -> None:
    """A line of progress is cut to the terminal's width as it is seen."""
    said = _on_terminal(daemon, 24, "restart", "web", TERM="xterm")
    shown = [re.sub(r"\x1b\[[0-9;]*[mJ]|\r", "", line) for line in said.split("\x1b[J")]
    assert "restart web [░░] 0/2 qu" in shown


def test_stop_of_the_daemon_asks_on_a_terminal(daemon: Daemon) -> None:
    """Without POOL and --all whoever sits there is asked first, and anything but yes is no."""
    said = _on_terminal(daemon, 100, "stop", typed="\n")
    assert f"stop drumd (pid {daemon.process.pid}) with all its pools (web, model, " in said
    assert "nothing was stopped\n" in said
    assert daemon.process.poll() is None
    assert "has stopped\n" in _on_terminal(daemon, 100, "stop", typed="y\n")


@pytest.mark.parametrize("program", ["drumctl", "drumd"])
def test_help_fits_80_columns(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal of 80 columns no help has a wider line, and every example stays whole."""
    monkeypatch.setenv("COLUMNS", "80")
    run, commands = {"drumctl": (main, [*COMMANDS]), "drumd": (drumd.main, [*drumd.COMMANDS])}[
        program
    ]
    for command in ("", *commands):
        with pytest.raises(SystemExit, match=r"^0$"):
            run([*filter(None, [command]), "--help"])
        out = capsys.readouterr().out
        assert f"\nexample:\n  {program} " in out
        assert [line for line in out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command's help works without a daemon, fits 100 columns, and has an example."""
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*filter(None, [command]), "--help"])
    out = capsys.readouterr().out
    assert "\nexample:\n  drumctl " in out
    assert max(map(len, out.splitlines())) <= 100
