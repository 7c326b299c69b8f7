"""A daemon with a config of the test's own, asked over its admin socket and its ports."""

import http.client
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.daemon import Daemon, Document, UnixConnection, get
from tests.e2e.visitor import Address
from tests.processes import alive
from tests.waiting import CAP, wait_until


def toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Return a table as dotted keys, whose values TOML writes as JSON does."""
    lines = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines.append(toml(value, f"{prefix}{key}."))
        else:
            lines.append(f"{prefix}{key} = {json.dumps(value)}\n")
    return "".join(lines)


class Served:
    """One running daemon."""

    def __init__(self, daemon: Daemon, steer: Path, ports: Mapping[str, int]) -> None:
        self.daemon = daemon
        self.socket = daemon.directory / "admin.sock"
        self._steer = steer
        self.addresses = {name: Address(port) for name, port in ports.items()}

    @property
    def web(self) -> Address:
        """Where the pool `web` serves."""
        return self.addresses["web"]

    # --- what it says ---------------------------------------------------------------------------

    def status(self) -> Document:
        """Return the status document; an empty one as long as nobody answers."""
        self._check_alive()
        try:
            status, body = get("/status", over=self.socket)
        except (OSError, http.client.HTTPException):
            return {"state": "none", "pools": []}
        document: Document = json.loads(body)
        assert status == 200, document
        return document

    def pool(self, name: str = "web") -> Document:
        """Return what the status says of a pool."""
        none: Document = {"name": name, "state": "none", "workers": [], "slots": [], "queue": 0}
        return next((each for each in self.status()["pools"] if each["name"] == name), none)

    def workers(self, pool: str = "web") -> list[Document]:
        """Return what the status says of a pool's workers."""
        workers: list[Document] = self.pool(pool)["workers"]
        return workers

    def pids(self, pool: str = "web") -> list[int]:
        """Return the pids of a pool's ready workers, by slot."""
        return [each["pid"] for each in self.workers(pool) if each["state"] == "ready"]

    def ready(self, pool: str = "web") -> list[int]:
        """Wait until a pool is ready; return its workers' pids by slot."""
        self.wait_state("ready", pool)
        self.daemon.remember()
        return self.pids(pool)

    def wait_state(self, state: str, pool: str = "web") -> None:
        """Wait until a pool is in a state."""
        wait_until(
            lambda: self.pool(pool)["state"] == state, what=f"{pool} {state}\n{self.daemon.text()}"
        )

    def wait_for(self, event: str, **keys: object) -> Document:
        """Wait for an event in the log."""
        return self.daemon.wait_for(event, **keys)

    def events(self, *names: str) -> list[Document]:
        """Return the log lines of these events so far."""
        return [line for line in self.daemon.log() if line["event"] in names]

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return all samples of counters and histograms, by name and labels."""
        _, text = get("/metrics", over=self.socket)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            if family.type in ("counter", "histogram")
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    def _check_alive(self) -> None:
        code = self.daemon.popen.poll()
        assert code is None, f"ended with {code}:\n{self.daemon.text()}"

    # --- what is done to it ---------------------------------------------------------------------

    def post(self, path: str, document: Mapping[str, Any] | None = None) -> Document:
        """Ask for a change over the admin socket."""
        connection = UnixConnection(self.socket)
        connection.request(
            "POST", path, json.dumps(document or {}), {"Content-Type": "application/json"}
        )
        answer: Document = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def steer(self, mode: str) -> None:
        """Have the workers that start from now on do something at import."""
        (self._steer / "mode").write_text(mode)

    def open(self, gate: str) -> None:
        """Let requests go on that wait at a gate."""
        (self._steer / gate).touch()

    def begun(self, gate: str) -> set[int]:
        """Return the pids of the workers in which somebody waits, or waited, at a gate."""
        return {int(path.suffix[1:]) for path in self._steer.glob(f"{gate}.begun.*")}

    def wait_begun(self, gate: str, workers: int = 1) -> set[int]:
        """Wait until somebody waits at a gate in that many workers."""
        return wait_until(
            lambda: found if len(found := self.begun(gate)) >= workers else set(),
            what=f"requests at {gate}",
        )

    def children_at_import(self) -> list[int]:
        """Return the pids of the children that workers forked when they imported the app."""
        return [
            int(pid) for path in self._steer.glob("children.*") for pid in path.read_text().split()
        ]

    def file(self, name: str) -> Path:
        """Return where the app leaves a file of that name."""
        return self._steer / name

    def wait_exit(self, cap: float = CAP) -> int:
        """Wait for the daemon's end; return its exit code."""
        self.daemon.remember()
        return self.daemon.wait(cap)

    def left(self) -> list[int]:
        """Return the living processes that carry this daemon's mark."""
        return marked(self.daemon.pid)


def marked(daemon_pid: int) -> list[int]:
    """Return the living processes that some daemon's workers are, or descend from."""
    entry = f"DRUMD_INSTANCE={daemon_pid}-".encode()
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                environment = (path / "environ").read_bytes()
            except OSError:
                continue
            if any(each.startswith(entry) for each in environment.split(b"\0")):
                found.append(int(path.name))
    return [pid for pid in found if alive(pid)]


def elapse(seconds: float) -> None:
    """Let time pass: for what must *not* happen in it, and for what is counted over it."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, cap=seconds + CAP, every=0.02)


def wait_gone(pids: list[int], cap: float = CAP) -> None:
    """Wait until none of these processes lives."""
    wait_until(lambda: not any(map(alive, pids)), cap=cap, what=f"the end of {pids}")


def wait_stopped(pid: int) -> None:
    """Wait until a process that was sent SIGSTOP stands still."""
    stat = Path(f"/proc/{pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", what=f"{pid} stopped")


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal to each."""
    for pid in pids:
        os.kill(pid, number)
