"""`drumctl` operates a pool that serves: restart, scale, stop, start, events."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from drumd.exitcodes import ControlExit
from tests.e2e.controlling import drumctl_running, outcome, read_line, submit
from tests.e2e.daemon import APPS, Daemon, free_port
from tests.e2e.load import Load
from tests.e2e.served import Served
from tests.waiting import wait_until

Serve = Callable[..., Served]

UVICORN: Mapping[str, Any] = {"app": "unruly:asgi", "runtime": "uvicorn"}
GTHREAD: Mapping[str, Any] = {"app": "unruly:wsgi", "runtime": "gunicorn"}
runtimes = pytest.mark.parametrize(
    "pool", [pytest.param(UVICORN, id="uvicorn"), pytest.param(GTHREAD, id="gthread")]
)

POOL_KEYS = {"name", "state", "generation", "runtime", "bind", "size", "reason", "workers"}
WORKER_KEYS = {"slot", "pid", "state", "generation", "since", "restarts", "reason"}


def drumctl(served: Served, *arguments: str) -> CompletedProcess[str]:
    return served.daemon.drumctl(*arguments)


def succeed(served: Served, *arguments: str) -> str:
    done = drumctl(served, *arguments)
    assert done.returncode == ControlExit.OK, (done.stdout, done.stderr)
    return done.stdout


# --- status -------------------------------------------------------------------------------------


def test_status_document_has_every_promised_key(serve: Serve) -> None:
    """`drumctl status --json` holds every key that the design promises, with its values."""
    served = serve(web={**UVICORN, "workers": 2})
    pids = served.ready()
    done = drumctl(served, "status", "--json")
    assert done.returncode == ControlExit.OK
    document = json.loads(done.stdout)
    assert (document["pid"], document["state"]) == (served.daemon.pid, "ready")
    assert document["version"] == "0.1.0"
    (pool,) = document["pools"]
    assert pool.keys() >= POOL_KEYS
    assert (pool["name"], pool["state"], pool["generation"]) == ("web", "ready", 1)
    assert (pool["runtime"], pool["size"], pool["reason"]) == ("uvicorn", 2, "2 of 2 ready")
    assert pool["bind"] == [f"127.0.0.1:{served.web.port}"]
    for slot, worker in enumerate(pool["workers"]):
        assert worker.keys() >= WORKER_KEYS
        assert (worker["slot"], worker["pid"], worker["state"]) == (slot, pids[slot], "ready")
        assert (worker["generation"], worker["restarts"]) == (1, 0)
        assert worker["reason"].startswith("ready after")


def test_status_table_names_what_runs(serve: Serve) -> None:
    """The table has a line for each worker with its pid and state, and the pool's address."""
    served = serve(web={**UVICORN, "workers": 2})
    pids = served.ready()
    lines = succeed(served, "status").splitlines()
    assert f"pid {served.daemon.pid}" in lines[0]
    assert any(f"127.0.0.1:{served.web.port}" in line for line in lines)
    for slot, pid in enumerate(pids):
        assert any(line.split()[:3] == [str(slot), str(pid), "ready"] for line in lines)


def test_status_is_1_while_a_slot_is_down(serve: Serve) -> None:
    """A slot that has failed makes the exit code 1, and its why is in the table."""
    restart = {"intensity": 1, "backoff_initial": 0.01, "backoff_max": 0.01}
    served = serve(web={**UVICORN, "workers": 2, "restart": restart})
    pids = served.ready()
    served.steer("raise:no more model")
    os.kill(pids[1], signal.SIGKILL)
    served.wait_for("slot.failed", slot=1)
    done = drumctl(served, "status")
    assert done.returncode == ControlExit.DEGRADED
    assert "no more model" in done.stdout


def test_no_daemon_is_3_and_says_how_to_start_one(serve: Serve) -> None:
    """After the daemon has stopped every command exits with 3 and says how to start one."""
    served = serve(web=UVICORN)
    served.ready()
    assert "has stopped" in succeed(served, "stop", "--all")
    assert served.wait_exit() == 0
    for arguments in (("status",), ("restart", "web")):
        done = drumctl(served, *arguments)
        assert done.returncode == ControlExit.NOT_RUNNING
        assert str(served.socket) in done.stderr
        assert "drumd serve" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["restart", "wbe"], "the pools are web; did you mean web?"),
        (["restart", "web/7"], "the slots of web are 0 to 1"),
        (["stop", "api"], "the pools are web"),
        (["start", "api"], "the pools are web"),
        (["scale", "api", "2"], "the pools are web"),
        (["wait", "web-9"], "cannot find operation 'web-9'"),
        (["cancel", "web-9"], "cannot find operation 'web-9'"),
    ],
)
def test_wrong_names_say_what_there_is(
    two_workers: Served, arguments: list[str], said: str
) -> None:
    """A name that is not there is exit code 2, and the message has the names that are."""
    done = drumctl(two_workers, *arguments)
    assert (done.returncode, done.stdout) == (ControlExit.USAGE, "")
    assert said in done.stderr


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon with two workers for tests that change nothing."""
    directory = tmp_path_factory.mktemp("two")
    port = free_port()
    daemon = Daemon(
        directory,
        ["serve", "unruly:asgi", f"--app-dir={APPS}", "--workers=2", f"--bind=127.0.0.1:{port}"],
    )
    daemon.wait_ready(2)
    yield Served(daemon, directory, {"web": port})
    daemon.end()


# --- restart ------------------------------------------------------------------------------------


@runtimes
def test_restart_loses_no_connection_and_no_worker(serve: Serve, pool: Mapping[str, Any]) -> None:
    """A restart under load answers every connection, and never has fewer workers than wanted."""
    served = serve(web={**pool, "workers": 2})
    before = set(served.ready())
    fewest = 99
    with Load(served.web) as load, drumctl_running(served.daemon, "restart", "web") as restart:
        while restart.poll() is None:
            states = [worker["state"] for worker in served.workers()]
            fewest = min(fewest, states.count("ready"))
        load.wait_more()
        assert restart.returncode == ControlExit.OK
    assert load.failures == []
    assert fewest == 2
    after = set(served.pids())
    assert len(after) == 2
    assert not after & before
    assert set(map(int, load.pids)) <= before | after


def test_restart_of_a_slot_leaves_the_others(serve: Serve) -> None:
    """`drumctl restart web/1` replaces that slot's worker alone; its restarts are counted."""
    served = serve(web={**UVICORN, "workers": 3})
    before = served.ready()
    with Load(served.web) as load:
        assert succeed(served, "restart", "web/1") == "restart web/1: done, 1 of 1 restarted\n"
        load.wait_more()
    assert load.failures == []
    after = served.pids()
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]
    assert [worker["restarts"] for worker in served.workers()] == [0, 1, 0]


def test_one_wrong_name_among_several_restarts_nothing(serve: Serve) -> None:
    """Of several restarts a wrong name is told before any begins: every worker stays."""
    served = serve(web={**UVICORN, "workers": 1}, other=GTHREAD)
    before = served.ready("web") + served.ready("other")
    for wrong, said in (
        ("nope", "cannot find pool 'nope': the pools are web, other; nothing was restarted"),
        ("web/9", "cannot find slot web/9: the slots of web are 0 to 0; nothing was restarted"),
    ):
        done = drumctl(served, "restart", "web", wrong, "other/0")
        assert (done.returncode, done.stdout) == (ControlExit.USAGE, "")
        assert said in done.stderr
    assert served.pids("web") + served.pids("other") == before
    assert "operation" not in succeed(served, "events", "-n", "100")


def test_a_slot_that_a_queued_scale_brings_may_be_named_with_others(serve: Serve) -> None:
    """A slot that only a scale in the queue will bring may be restarted, among others."""
    served = serve(web={**UVICORN, "workers": 1})
    served.ready()
    served.steer("sleep:60")
    running = submit(served.daemon, "restart", "web")
    served.wait_for("operation.started", operation=running["id"])
    submit(served.daemon, "scale", "web", "2")
    said = succeed(served, "restart", "--no-wait", "web/0", "web/1").splitlines()
    assert [line.split(":")[0] for line in said] == ["restart web/0", "restart web/1"]


@runtimes
def test_broken_code_does_not_replace_what_serves(serve: Serve, pool: Mapping[str, Any]) -> None:
    """A restart whose new worker cannot start fails with the reason; the old ones serve on."""
    served = serve(web={**pool, "workers": 2})
    before = served.ready()
    served.steer("raise:the release is broken")
    with Load(served.web) as load:
        done = drumctl(served, "restart", "web")
        load.wait_more()
    assert done.returncode == ControlExit.DEGRADED
    assert done.stdout.startswith("restart web: failed, ")
    assert "the release is broken" in done.stdout
    assert load.failures == []
    assert served.pids() == before
    assert drumctl(served, "status").returncode == ControlExit.OK


# --- stop, start, scale -------------------------------------------------------------------------


def test_stopped_pool_keeps_its_address_and_starts_again(serve: Serve) -> None:
    """Who comes while a pool is stopped waits at its socket, and is answered after the start."""
    served = serve(web={**UVICORN, "workers": 2})
    served.ready()
    assert succeed(served, "stop", "web") == "stop web: done, stopped\n"
    assert (served.pool()["state"], served.pids()) == ("stopped", [])
    assert "the pool is stopped by " in succeed(served, "status")
    done = drumctl(served, "restart", "web")
    assert done.returncode == ControlExit.DEGRADED
    assert "`drumctl start web`" in done.stderr
    with served.web.connect() as visitor:
        visitor.send(close=True)
        succeed(served, "start", "web")
        assert visitor.answer().status == 200
    assert len(served.pids()) == 2


@runtimes
def test_scale_down_loses_no_connection(serve: Serve, pool: Mapping[str, Any]) -> None:
    """Scaling up and down under load answers every connection, and ends the listeners that go."""
    served = serve(web={**pool, "workers": 1, "linger": 0.5})
    served.ready()
    port = served.web.port
    with Load(served.web) as load:
        assert succeed(served, "scale", "web", "4") == "scale web to 4: done, 4 of 4 ready\n"
        assert len(served.pids()) == 4
        load.wait_more()
        assert succeed(served, "scale", "web", "1") == "scale web to 1: done, 1 of 1 ready\n"
        assert len(served.pids()) == 1
        load.wait_more()
        # The sockets of slots 1 to 3 end once nobody can be on the way to them any more.
        wait_until(lambda: listening(port) == 1, what="one listener")
    assert load.failures == []
    assert served.web.answers()


def listening(port: int) -> int:
    """Return how many TCP sockets listen on a port."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A" for row in rows)


def test_queued_connections_of_a_slot_that_goes_are_answered(serve: Serve) -> None:
    """Connections that wait at a busy slot's listener when it is scaled away are all answered."""
    served = serve(web={**UVICORN, "workers": 2})
    served.ready()
    with ExitStack() as visitors:
        asked = []

        def ask(path: str) -> None:
            asked.append(visitors.enter_context(served.web.connect()))
            asked[-1].send(path, close=True)

        def block_both() -> bool:
            ask("/block/gate")
            wait_until(
                lambda: served.begun("gate") or served.pool()["queue"], what="the request taken"
            )
            return len(served.begun("gate")) == 2

        # The kernel chooses whose loop is next to be blocked.
        wait_until(block_both, what="both loops blocked", every=0.05)
        for _ in range(16):
            ask("/")
        wait_until(lambda: served.pool()["queue"] >= 16, what="a queue")
        operation = submit(served.daemon, "scale", "web", "1")
        served.wait_for("worker.draining", slot=1)
        served.open("gate")
        assert {visitor.answer().status for visitor in asked} == {200}
        assert outcome(served.daemon, operation)[0] == ControlExit.OK


# --- the queue of operations --------------------------------------------------------------------


def test_operations_queue_and_never_corrupt_each_other(serve: Serve) -> None:
    """Restarts and scales asked for at once run one after the other; all end, in order."""
    served = serve(web={**UVICORN, "workers": 2})
    before = set(served.ready())
    asked = [
        submit(served.daemon, *words)
        for words in (
            ("restart", "web"),
            ("restart", "web"),
            ("scale", "web", "4"),
            ("restart", "web/3"),
            ("scale", "web", "2"),
        )
    ]
    assert len({operation["id"] for operation in asked}) == len(asked)
    with Load(served.web) as load:
        ended = [outcome(served.daemon, operation) for operation in asked]
        load.wait_more()
    assert load.failures == []
    assert [code for code, _ in ended] == [ControlExit.OK] * 5
    assert [operation["state"] for _, operation in ended] == ["done"] * 5
    done = [event["operation"] for event in served.events("operation.done")]
    assert done == [operation["id"] for operation in asked]
    assert served.pool()["size"] == 2
    assert len(served.pids()) == 2
    assert not set(served.pids()) & before


def test_cancel_of_what_waits_and_of_what_runs(serve: Serve) -> None:
    """A queued operation is taken back untouched; of a running restart the new worker goes."""
    served = serve(web={**UVICORN, "workers": 2})
    before = served.ready()
    served.steer("sleep:60")  # the new worker takes its time
    running = submit(served.daemon, "restart", "web")
    waiting = submit(served.daemon, "scale", "web", "3")
    assert (running["state"], waiting["state"]) == ("queued", "queued")
    served.wait_for("operation.started", operation=running["id"])
    assert succeed(served, "cancel", waiting["id"]).startswith("scale web to 3: cancelled, ")
    assert succeed(served, "cancel", running["id"]).startswith("restart web: cancelled, ")
    code, ended = outcome(served.daemon, running)
    assert (code, ended["state"]) == (ControlExit.DEGRADED, "cancelled")
    assert "cancelled by" in ended["reason"]
    wait_until(lambda: len(served.workers()) == 2, what="the new worker gone")
    assert served.pids() == before
    assert served.pool()["size"] == 2
    done = drumctl(served, "cancel", running["id"])
    assert done.returncode == ControlExit.DEGRADED
    assert "it is cancelled" in done.stderr
    served.steer("")
    assert succeed(served, "restart", "web/0") == "restart web/0: done, 1 of 1 restarted\n"


def test_what_has_taken_effect_says_how_to_undo_it(serve: Serve) -> None:
    """A scale that runs is not cancelled; the message has the command that undoes it."""
    served = serve(web=UVICORN)
    served.ready()
    served.steer("sleep:60")
    operation = submit(served.daemon, "scale", "web", "2")
    served.wait_for("operation.started", operation=operation["id"])
    done = drumctl(served, "cancel", operation["id"])
    assert done.returncode == ControlExit.DEGRADED
    assert "undo it by `drumctl scale web N`" in done.stderr


def test_ctrl_c_ends_the_waiting_alone(serve: Serve) -> None:
    """Ctrl-C while waiting leaves the restart to go on, and says how to wait and to cancel."""
    served = serve(web={**UVICORN, "workers": 2})
    before = served.ready()
    served.steer("sleep:60")
    with drumctl_running(served.daemon, "restart", "web/0") as restart:
        running = served.wait_for("operation.started")["operation"]
        read_line(restart.stderr, "running")
        restart.send_signal(signal.SIGINT)
        said = restart.communicate(timeout=30)[1]
        assert restart.returncode == 130
    assert f"`drumctl wait {running}`" in said
    assert f"`drumctl cancel {running}`" in said
    assert served.pool()["operation"]["id"] == running
    succeed(served, "cancel", running)
    assert served.pids() == before


# --- events -------------------------------------------------------------------------------------


def test_events_are_followed_live(serve: Serve) -> None:
    """`drumctl events -f` shows a kill -9 and the new worker as they happen, with the why."""
    served = serve(web={**UVICORN, "workers": 2})
    pids = served.ready()
    assert served.web.get().status == 200
    with drumctl_running(served.daemon, "events", "-f", "-n", "1") as events:
        read_line(events.stdout, "daemon.ready|pool.ready")
        os.kill(pids[1], signal.SIGKILL)
        exited = read_line(events.stdout, "worker.exited")
        assert "SIGKILL" in exited
        assert f"pid={pids[1]}" in exited
        assert "slot=1" in read_line(events.stdout, "worker.spawned")
        read_line(events.stdout, "worker.ready")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, ControlExit.OK), (signal.SIGKILL, ControlExit.NOT_RUNNING)],
)
def test_following_tells_a_stop_from_a_crash(serve: Serve, number: int, code: ControlExit) -> None:
    """`drumctl events -f` ends with 0 when the daemon stops, and with 3 when it is killed."""
    served = serve(web=UVICORN)
    served.ready()
    with drumctl_running(served.daemon, "events", "-f", "-n", "1") as events:
        read_line(events.stdout, "daemon.ready|pool.ready")
        os.kill(served.daemon.pid, number)
        assert events.wait(60) == code
    served.wait_exit()


def test_events_are_documents_for_programs(serve: Serve) -> None:
    """With `--json` each event is one object with its name, number, time, reason and pid."""
    served = serve(web={**UVICORN, "workers": 1})
    (pid,) = served.ready()
    succeed(served, "restart", "web")
    lines = succeed(served, "events", "--json", "-n", "100").splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    (exited,) = [event for event in events if event["event"] == "worker.exited"]
    assert (exited["pid"], exited["cause"]) == (pid, "operator")
    (done,) = [event for event in events if event["event"] == "operation.done"]
    assert done["reason"] == "restart: 1 of 1 restarted"
    assert f"uid {os.getuid()}" in done["by"]
