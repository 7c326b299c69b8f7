"""Run drumd's commands that end by themselves, on model directories that are written here."""

import errno
import os
import pty
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.daemon import CHECKOUT
from tests.waiting import wait_until

CAP = 60.0
"""Seconds after which a command hangs."""


def surroundings(**more: str) -> dict[str, str]:
    """Return the environment of a command: without what the tests, or a caller, say to models."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DRUM")}
    return kept | {"PYTHONPATH": str(CHECKOUT), "LC_ALL": "C.UTF-8"} | more


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "drumd", *map(str, arguments)]


def run(
    *arguments: object,
    cwd: Path | None = None,
    given: bytes = b"",
    environ: Mapping[str, str] | None = None,
    python: Path = Path(sys.executable),
) -> subprocess.CompletedProcess[str]:
    """Run to its end."""
    done = subprocess.run(
        [python, *command(*arguments)[1:]],
        cwd=cwd,
        input=given,
        env=surroundings(**(environ or {})),
        capture_output=True,
        timeout=CAP,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def on_terminal(*arguments: object, **environ: str) -> tuple[int, str]:
    """Run with a terminal of 80 columns; return the exit code and all that it showed."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        command(*arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=surroundings(COLUMNS="80", TERM="xterm", **environ),
    )
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
    return child.wait(CAP), said.decode().replace("\r\n", "\n")


def interrupted(
    number: signal.Signals, mark: Path, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """Run, send a signal as soon as there is the file `mark`, and return how it ended."""
    with subprocess.Popen(
        command(*arguments),
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in its background has SIGINT ignored, and children too.
        preexec_fn=_heed_sigint,  # noqa: PLW1509 - one call of the system
    ) as child:
        try:
            wait_until(lambda: mark.exists() or child.poll() is not None, what=str(mark))
            child.send_signal(number)
            out, err = child.communicate(timeout=CAP)
        finally:
            child.kill()
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


def _heed_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def write_model(directory: Path, code: str, metadata: str = "", **files: str) -> Path:
    """Write a model directory with this custom.py; more files by name, with _ for the dot."""
    directory.mkdir(exist_ok=True)
    (directory / "custom.py").write_text(textwrap.dedent(code))
    written = {"model-metadata.yaml": metadata} if metadata else {}
    for name, text in {**written, **files}.items():
        (directory / name.replace("_", ".")).write_text(textwrap.dedent(text))
    return directory
