"""Logs, written by a real process to real pipes and terminals."""

import errno
import json
import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

PRELUDE = """
    import os, sys, logging
    from drumd.supervisor.core.facts import Fact, Happened
    from drumd.supervisor.observe.journal import Journal
    from drumd.supervisor.observe.logging import Logs
    journal = Journal(100)
    def fact(logs, event, reason, **fields):
        logs.log_fact(journal.record(Fact(event=event, reason=reason, **fields)))
    def line(logs, text, stream="stdout", cut=False):
        logs.log_worker_line(
            pool="web", slot=0, gen=1, pid=4711, stream=stream, text=text, cut=cut)
"""


def _program(body: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(body)]


def _run(body: str, **environ: str) -> str:
    done = subprocess.run(
        _program(body), stderr=subprocess.PIPE, env={**os.environ, **environ}, check=True
    )
    return done.stderr.decode()


def _json_lines(body: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _run(body).splitlines()]


def _on_terminal(body: str, **environ: str) -> str:
    """Run the program with a terminal as its stderr; return what it wrote there."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(_program(body), stderr=theirs, env={**os.environ, **environ})
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65536):
            said += chunk
    except OSError as error:
        # A terminal whose other side is closed reads as EIO on Linux.
        if error.errno != errno.EIO:
            raise
    finally:
        os.close(ours)
    assert child.wait(30) == 0, said
    return said.decode().replace("\r\n", "\n")


def test_away_from_a_terminal_lines_are_json() -> None:
    """Into a pipe an event is one JSON object with its time, level, event and keys."""
    [said] = _json_lines("""
        logs = Logs()
        fact(logs, Happened.WORKER_READY, "accepts", pool="web", slot=0, generation=1, attempt=2,
             extra={"pid": 4711})
        logs.close()
    """)
    assert said.pop("time").endswith("Z")
    assert said == {
        "level": "info",
        "event": "worker.ready",
        "seq": 1,
        "pool": "web",
        "slot": 0,
        "gen": 1,
        "attempt": 2,
        "reason": "accepts",
        "pid": 4711,
    }


def test_levels_follow_the_event_and_filter() -> None:
    """A level of `warning` leaves out what is only information, never a worker's own lines."""
    said = _json_lines("""
        logs = Logs(level="warning")
        fact(logs, Happened.WORKER_READY, "x")
        fact(logs, Happened.WORKER_EXITED, "asked to", extra={"cause": "operator"})
        fact(logs, Happened.WORKER_EXITED, "signal 9", extra={"cause": "crash"})
        fact(logs, Happened.SLOT_FAILED, "x")
        line(logs, "the app's words")
        logs.close()
    """)
    assert [(entry["level"], entry["event"]) for entry in said] == [
        ("warning", "worker.exited"),
        ("error", "slot.failed"),
        ("info", "worker.output"),
    ]


def test_an_end_that_nobody_asked_for_is_an_error() -> None:
    """The daemon's end is information with exit code 0, an error with any other."""
    said = _json_lines("""
        logs = Logs()
        for event in (Happened.DAEMON_STOPPING, Happened.DAEMON_STOPPED):
            for extra in ({}, {"exit": 0}, {"exit": 4}):
                fact(logs, event, "x", extra=extra)
        fact(logs, Happened.DAEMON_NOTICE, "x", extra={"exit": 4})
        logs.close()
    """)
    assert [entry["level"] for entry in said] == ["info", "info", "error"] * 2 + ["info"]


def test_worker_json_is_nested_and_cannot_forge_an_event() -> None:
    """A worker's JSON object keeps its fields below a key of its own; anything else is a line."""
    said = _json_lines("""
        logs = Logs()
        for text in ('{"event": "worker.ready", "n": 1}', "plain", '{"broken": ', "{'a': 1}",
                     '{"x": NaN}', "[1]", "{" * 5000 + "}", "\\udcff raw"):
            line(logs, text, "stderr")
        line(logs, '{"a": 1}', cut=True)
        logs.close()
    """)
    assert {entry["event"] for entry in said} == {"worker.output"}
    assert said[0]["json"] == {"event": "worker.ready", "n": 1}
    assert said[0]["stream"] == "stderr"
    assert [entry.get("line") for entry in said[1:6]] == [
        "plain",
        '{"broken": ',
        "{'a': 1}",
        '{"x": NaN}',
        "[1]",
    ]
    assert said[7]["line"] == "\udcff raw"
    assert (said[8]["line"], said[8]["cut"]) == ('{"a": 1}', True)


def test_terminal_gets_text_with_control_characters_escaped() -> None:
    """On a terminal lines are for people, and a worker's escape sequences do not reach it."""
    said = _on_terminal(
        """
        logs = Logs()
        fact(logs, Happened.SLOT_BACKOFF, "exited with 3\\nTraceback:\\n  boom", pool="web", slot=1,
             extra={"exit": 3, "note": "two words"})
        line(logs, "\\x1b]0;title\\x07 \\x1b[2J text", "stderr")
        logs.close()
        """,
        NO_COLOR="1",
    )
    assert "\x1b" not in said
    first, *rest = said.splitlines()
    assert first.split(" ", 1)[1] == (
        'warning slot.backoff        exited with 3 pool=web slot=1 exit=3 note="two words"'
    )
    assert rest[:2] == ["    Traceback:", "      boom"]
    assert rest[2].split(" ", 1)[1].startswith("stderr  web/0[4711] ")
    assert r"\x1b]0;title\x07 \x1b[2J text" in rest[2]


def test_colours_are_for_terminals_only() -> None:
    """Colours appear on a terminal without NO_COLOR, and in no pipe."""
    body = """
        logs = Logs(form="console")
        fact(logs, Happened.SLOT_FAILED, "x")
        logs.close()
    """
    assert "\x1b[31m" in _on_terminal(body, NO_COLOR="")
    assert "\x1b" not in _run(body, NO_COLOR="")


def test_libraries_logs_join() -> None:
    """What libraries write with `logging` is in the same stream and format."""
    [said] = _json_lines("""
        logs = Logs()
        logging.getLogger("asyncio").error("never retrieved %s", "x")
        logging.getLogger("quiet").info("not this")
        logs.close()
    """)
    assert (said["level"], said["logger"]) == ("error", "asyncio")
    assert said["reason"] == "never retrieved x"


def test_journald_gets_priorities() -> None:
    """Every line to journald begins with its priority, those of a longer text included."""
    reading, writing = os.pipe()
    status = os.fstat(writing)
    with os.fdopen(reading, "rb") as reader:
        subprocess.run(
            _program("""
                logs = Logs(form="console")
                fact(logs, Happened.SLOT_FAILED, "one\\ntwo")
                line(logs, "said")
                logs.close()
            """),
            stderr=writing,
            env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            check=True,
        )
        os.close(writing)
        prefixes = [line[:3] for line in reader.read().decode().splitlines()]
    assert prefixes == ["<3>", "<3>", "<6>"]


def test_stuck_receiver_costs_lines_not_time() -> None:
    """While nobody reads, writing goes on at once; the lines lost are counted and told later."""
    child = subprocess.Popen(
        _program("""
            logs = Logs()
            for number in range(30_000):
                line(logs, f"{number:05d} " + "x" * 500)
            assert not logs.flush(0.01)
            print(logs.dropped, flush=True)
            sys.stdin.read()
            assert logs.flush(60)
            line(logs, "after")
            logs.close(60)
        """),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    dropped = int(child.stdout.readline())
    assert dropped > 10_000
    _, said = child.communicate(timeout=60)
    assert child.returncode == 0, said[-2000:]
    *lines, told, after = [json.loads(line) for line in said.splitlines()]
    assert [int(entry["line"][:5]) for entry in lines] == list(range(30_000 - dropped))
    assert (told["event"], told["lines"]) == ("log.dropped", dropped)
    assert after["line"] == "after"


def test_receiver_that_never_reads_does_not_hold_up_the_exit() -> None:
    """A process whose log nobody reads ends by itself after a bounded wait."""
    child = subprocess.Popen(
        _program("""
            logs = Logs()
            for number in range(3_000):
                line(logs, "x" * 1000)
            assert not logs.close(0.05)
        """),
        stderr=subprocess.PIPE,
    )
    assert child.wait(30) == 0
    assert child.stderr is not None
    child.stderr.close()


def test_receiver_that_is_gone_is_no_error() -> None:
    """A reader that closed its end costs the lines; the process lives on."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        _program("""
            logs = Logs()
            line(logs, "x")
            logs.flush(30)
            print(logs.dropped)
        """),
        stderr=writing,
        stdout=subprocess.PIPE,
        check=True,
    )
    os.close(writing)
    assert done.stdout.strip() == b"1"


def test_idle_writer_never_wakes() -> None:
    """While there is nothing to write, the writer's thread is not scheduled at all."""
    child = subprocess.Popen(
        _program("""
            import time
            logs = Logs()
            line(logs, "x")
            logs.flush(30)
            [other] = [t for t in os.listdir("/proc/self/task") if int(t) != os.getpid()]
            print(other, flush=True)
            sys.stdin.read()
        """),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    status = Path(f"/proc/{child.pid}/task/{child.stdout.readline().strip()}/status")

    def switches() -> list[str]:
        return [line for line in status.read_text().splitlines() if "ctxt_switches" in line]

    wait_until(lambda: "State:\tS" in status.read_text())
    before = switches()
    # Absence is shown by something later: another process sleeps and ends meanwhile.
    subprocess.run(["sleep", "1"], check=True)
    assert switches() == before
    child.communicate(timeout=30)
