"""Start drumd as people do, as a process of its own, and see what it does from outside."""

import contextlib
import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.waiting import wait_until

CHECKOUT = Path(__file__).parents[2]
APPS = Path(__file__).with_name("apps")

Document = dict[str, Any]


class Daemon:
    """A `drumd` process. What it says goes to a file, which is shown when a test fails.

    `prefix` is a command that starts it, such as `unshare --pid --fork`; `pid` is drumd's own in
    any case, as seen from here. `terminal` is a terminal's fd, of which it becomes the foreground.
    `python` is the interpreter that runs it.
    """

    def __init__(
        self,
        directory: Path,
        arguments: Sequence[str],
        *,
        prefix: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        terminal: int | None = None,
        python: str | Path = sys.executable,
    ) -> None:
        self.directory = directory
        self.output = directory / "drumd.log"
        self._environ = {
            # drumd would take the tests' own switches (DRUMD_TESTS_STRICT) for settings of its.
            **{key: value for key, value in os.environ.items() if not key.startswith("DRUMD_")},
            "PYTHONPATH": str(CHECKOUT),
            "DRUMD_SOCKET": str(directory / "admin.sock"),
        }
        self._environ = dict(environ) if environ is not None else self._environ
        command = [str(python), "-m", "drumd", *arguments]
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [*prefix, *command],
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environ,
                cwd=directory,
                start_new_session=True,
                # One call of the system, which is all that may be done between fork and exec.
                preexec_fn=None if terminal is None else _take_terminal,  # noqa: PLW1509 - see above
            )
        self._seen: set[psutil.Process] = set()
        self.pid = wait_until(self._find, what="drumd's own process") if prefix else self.popen.pid

    @property
    def popen(self) -> subprocess.Popen[bytes]:
        """The process that was started: drumd, or the command in front of it."""
        return self._process

    def _find(self) -> int:
        if self.popen.poll() is not None:
            raise AssertionError(f"{self.popen.args!r} ended: {self.text()}")
        for process in psutil.Process(self.popen.pid).children():
            with contextlib.suppress(psutil.Error):
                if "drumd" in process.cmdline():
                    return process.pid
        return 0

    def text(self) -> str:
        """Return all that it has said."""
        return self.output.read_text(errors="replace")

    def log(self) -> list[Document]:
        """Return its log lines so far; what is not JSON is left out."""
        lines = []
        for line in self.text().splitlines():
            with contextlib.suppress(ValueError):
                document = json.loads(line)
                if isinstance(document, dict):
                    lines.append(document)
        return lines

    def wait_for(self, event: str, **keys: object) -> Document:
        """Wait for a log line with that event and those keys, and return it."""

        def find() -> Document | None:
            if self.popen.poll() is not None:
                return self._logged(event, keys) or self._ended(event)
            return self._logged(event, keys)

        found = wait_until(find, what=f"{event} {keys} in the log")
        assert found is not None
        return found

    def _logged(self, event: str, keys: Mapping[str, object]) -> Document | None:
        wanted = {"event": event, **keys}
        return next((line for line in self.log() if wanted.items() <= line.items()), None)

    def _ended(self, event: str) -> Document | None:
        raise AssertionError(f"ended with {self.popen.returncode} before {event}:\n{self.text()}")

    def drumctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run drumctl against this daemon."""
        code = "import sys; from drumd.supervisor.cli.drumctl import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start_drumctl(self, *arguments: str, output: Path) -> subprocess.Popen[bytes]:
        """Start drumctl against this daemon and go on; what it prints goes to a file."""
        code = "import sys; from drumd.supervisor.cli.drumctl import main; sys.exit(main())"
        with output.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-c", code, *arguments], env=self._environ, stdout=file
            )

    def status(self) -> Document | None:
        """Return `drumctl --json status`; None as long as no daemon answers."""
        done = self.drumctl("--json", "status")
        try:
            document: Document = json.loads(done.stdout)
        except ValueError:
            return None
        return document if "pools" in document else None

    def workers(self, pool: str = "web") -> list[Document]:
        """Return what the status says of a pool's workers; none as long as no daemon answers."""
        pools = (self.status() or {"pools": []})["pools"]
        return [worker for each in pools if each["name"] == pool for worker in each["workers"]]

    def wait_ready(self, count: int, pool: str = "web") -> list[Document]:
        """Wait until a pool has that many ready workers, and return them."""

        def ready() -> list[Document]:
            if self.popen.poll() is not None:
                raise AssertionError(f"ended with {self.popen.returncode}:\n{self.text()}")
            workers = [each for each in self.workers(pool) if each["state"] == "ready"]
            return workers if len(workers) == count else []

        workers = wait_until(ready, what=f"{count} ready workers of {pool}", every=0.1)
        self.remember()
        return workers

    def remember(self) -> set[psutil.Process]:
        """Note the processes below drumd, to be ended with it whatever becomes of it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen |= set(psutil.Process(self.pid).children(recursive=True))
        return self._seen

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to drumd itself."""
        os.kill(self.pid, number)

    def wait(self, cap: float = 60.0) -> int:
        """Wait for its end and return the exit code; -n if signal n ended it."""
        return self.popen.wait(timeout=cap)

    def end(self) -> None:
        """End it and all that it started, at once."""
        self.remember()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        for process in self._seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.popen.wait(timeout=30)


def _take_terminal() -> None:
    """Make stdin the controlling terminal of this process's new session (tty_ioctl(4))."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float = 30.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(path: str, over: Path) -> tuple[int, str]:
    """Ask over a Unix socket; return the status and the body."""
    with contextlib.closing(UnixConnection(over)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
