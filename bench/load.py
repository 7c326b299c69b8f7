"""Full load over kept connections, made by wrk."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench import machine
from bench.client import HOST

_SCRIPT = Path(__file__).with_suffix(".lua")


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw. Times in seconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    errors: int

    @property
    def rate(self) -> float:
        """Return requests a second."""
        return self.requests / self.seconds


def wrk_is_there() -> bool:
    """Return whether wrk can be run."""
    return shutil.which("wrk") is not None


def press(
    port: int, *, connections: int, seconds: int, path: str = "/", post: Path | None = None
) -> Load:
    """Ask for `path` as fast as the answers come, from the load generator's own CPU.

    With `post`, a CSV, that is sent each time.
    """
    with machine.on(machine.LOAD_CPUS):
        done = subprocess.run(
            [
                *("wrk", "--threads", "1", "--connections", str(connections)),
                *("--duration", f"{seconds}s", "--script", str(_SCRIPT)),
                f"http://{HOST}:{port}{path}",
                *(["--", str(post)] if post else []),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    return Load(**json.loads(done.stdout.splitlines()[-1]))
