"""What workers print reaches the log with who said it, and stops nobody, however much it is."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from drumd.exitcodes import DaemonExit
from tests.e2e.daemon import APPS, Daemon, Document, free_port
from tests.e2e.served import Served, elapse, wait_stopped
from tests.e2e.visitor import in_background
from tests.waiting import wait_until

Serve = Callable[..., Served]

TALKATIVE = {"app": "talkative:app", "runtime": "uvicorn"}
MEGABYTE = 1_000_000


def said(served: Served, pid: int) -> list[Document]:
    return [line for line in served.events("worker.output") if line["pid"] == pid]


def test_lines_tell_who_said_them(serve: Serve) -> None:
    """A worker's line has its pool, slot, generation, pid and stream; its JSON stays apart."""
    served = serve(web={**TALKATIVE, "workers": 2}, other=TALKATIVE)
    served.ready("web")
    (other,) = served.ready("other")
    pid = int(served.web.get("/once/hello").body)
    assert int(served.addresses["other"].get("/once/there").body) == other
    slot = served.pids("web").index(pid)
    who = {"pool": "web", "slot": slot, "gen": 1, "pid": pid}
    served.wait_for("worker.output", **who, stream="stdout", line="out hello")
    served.wait_for("worker.output", **who, stream="stderr", line="err hello")
    forged = {"event": "worker.exited", "said": "hello"}
    served.wait_for("worker.output", **who, stream="stdout", json=forged)
    served.wait_for("worker.output", pool="other", slot=0, pid=other, line="out there")
    assert not served.events("worker.exited")


def test_flood_stops_no_worker_and_fills_no_memory(serve: Serve) -> None:
    """50,000 lines at once and 10 MB without an end cost no request and no memory."""
    served = serve(web={**TALKATIVE, "workers": 1})
    (pid,) = served.ready()
    supervisor = psutil.Process(served.daemon.pid)
    before = supervisor.memory_info().rss
    for loud in ("/lines/50000", "/endless/10"):
        with in_background([(served.web, loud)]) as answers:
            for _ in range(10):
                assert served.web.get().status == 200
            assert answers[0].result().status == 200
    served.wait_for("worker.output", line="line 49999 of a flood")
    assert supervisor.memory_info().rss - before < 64 * MEGABYTE
    assert served.pids() == [pid]
    assert not served.events("worker.hung", "worker.exited")
    lines = said(served, pid)
    assert max(len(line["line"]) for line in lines) <= 65_536
    # Lines may be dropped while the log is slow, but each one that is lost is told.
    flood = sum(line["line"].endswith("of a flood") for line in lines)
    lost = sum(line["lines"] for line in served.events("log.dropped"))
    assert flood + lost >= 50_000
    endless = sum(len(line["line"]) for line in lines if line.get("cut"))
    assert endless + lost * 65_536 > 9 * MEGABYTE


def test_console_lines_are_for_people(daemon: Callable[..., Daemon]) -> None:
    """With `--log-format console` a worker's line begins with its pool, slot and pid."""
    port = free_port()
    started = daemon(
        "serve",
        "talkative:app",
        f"--app-dir={APPS}",
        f"--bind=127.0.0.1:{port}",
        "--log-format=console",
    )
    served = Served(started, started.directory, {"web": port})
    (pid,) = served.ready()
    served.web.get("/once/hello")
    wait_until(lambda: "err hello" in started.text(), what="the line")
    lines = started.text().splitlines()
    (spoken,) = [line for line in lines if line.endswith("out hello")]
    assert f"web/0[{pid}]" in spoken
    (ready,) = [line for line in lines if "worker.ready" in line]
    assert f"pool=web slot=0 gen=1 pid={pid}" in ready
    assert "\x1b" not in started.text()


# --- nobody reads -------------------------------------------------------------------------------

UNREAD = """
exec 3<>"$0"
"$@" 2>&3 3>&-
exit $?
"""
"""Runs a command whose stderr is a pipe, named by $0, that is open and never read."""


@pytest.fixture
def unread(daemon: Callable[..., Daemon], tmp_path: Path) -> Callable[..., Served]:
    """Start `drumd serve` with its log going to a pipe that nobody reads."""
    pipe = tmp_path / "unread"
    os.mkfifo(pipe)

    def start(app: str, *arguments: str) -> Served:
        port = free_port()
        started = daemon(
            "serve",
            app,
            f"--app-dir={APPS}",
            f"--bind=127.0.0.1:{port}",
            *arguments,
            prefix=["sh", "-c", UNREAD, str(pipe)],
        )
        return Served(started, started.directory, {"web": port})

    return start


def test_daemon_lives_on_when_nobody_reads_its_log(unread: Callable[..., Served]) -> None:
    """A log that nobody reads costs lines alone: requests, operations and the stop go on."""
    served = unread("talkative:app", "--workers=2", "--access-log")
    pids = served.ready()
    assert served.web.get("/lines/20000").status == 200
    assert served.web.get("/endless/10").status == 200
    for _ in range(200):
        assert served.web.get().status == 200
    assert served.daemon.drumctl("restart", "web").returncode == 0
    assert not set(served.pids()) & set(pids)
    assert metric(served, "drumd_log_lines_dropped_total") > 0
    served.daemon.signal(signal.SIGTERM)
    assert served.wait_exit() == DaemonExit.STOPPED


def test_daemon_ends_with_its_code_when_nobody_reads_its_log(
    unread: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that cannot start ends drumd with its code, though nobody reads the reason."""
    monkeypatch.setenv("UNRULY", "raise:" + "no model " * 10_000)
    served = unread("unruly:asgi")
    assert served.wait_exit() == DaemonExit.START_FAILED


def test_access_log_hangs_no_request(serve: Serve) -> None:
    """While the supervisor reads nothing, an access log drops lines, and no request waits."""
    served = serve(web={**TALKATIVE, "access_log": True})
    served.ready()
    path = f"/{'x' * 4000}"
    os.kill(served.daemon.pid, signal.SIGSTOP)
    try:
        wait_stopped(served.daemon.pid)
        with served.web.connect() as visitor:
            for _ in range(1000):  # four times what the pipe holds
                assert visitor.get(path).status == 200
    finally:
        os.kill(served.daemon.pid, signal.SIGCONT)
    wait_until(
        lambda: metric(served, "drumd_worker_log_lines_dropped_total") > 0, what="lines dropped"
    )
    elapse(1.5)  # the pause accuses nobody
    assert not served.events("worker.stalled", "worker.hung", "worker.exited")
    assert any(path in str(line.get("line")) for line in served.events("worker.output"))


def metric(served: Served, name: str) -> float:
    return sum(value for (sample, _), value in served.metrics().items() if sample == name)
