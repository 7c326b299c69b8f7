"""`drumctl` in the background, and what its documents say."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

from tests.e2e.daemon import Daemon, Document

DRUMCTL = "import sys; from drumd.supervisor.cli.drumctl import main; sys.exit(main())"
"""The program of drumctl, which need not be installed here."""


@contextlib.contextmanager
def drumctl_running(daemon: Daemon, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run drumctl against a daemon while the block runs; it is ended with the block."""
    # Its output is a pipe and read line by line; a child that is told to end must have SIGINT.
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", DRUMCTL, *arguments],
        env=daemon._environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        restore_signals=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)


def read_line(stream: IO[str] | None, pattern: str) -> str:
    """Read lines up to the first one that matches, and return it."""
    assert stream is not None
    seen = []
    for line in stream:
        seen.append(line)
        if re.search(pattern, line):
            return line
    raise AssertionError(f"ended before {pattern!r}: {''.join(seen)}")


def submit(daemon: Daemon, *arguments: str) -> Document:
    """Submit an operation without waiting; return it."""
    done = daemon.drumctl("--json", *arguments, "--no-wait")
    assert done.returncode == 0, done.stderr
    return first_operation(done.stdout)


def first_operation(said: str) -> Document:
    """Return the operation that drumctl told as JSON; of those of a reload the first one."""
    document: Document = json.loads(said)
    operation: Document = document.get("operations", [document])[0]
    return operation


def outcome(daemon: Daemon, operation: Document) -> tuple[int, Document]:
    """Wait for an operation; return drumctl's exit code and the operation as it ended."""
    done = daemon.drumctl("--json", "wait", operation["id"])
    return done.returncode, json.loads(done.stdout)
