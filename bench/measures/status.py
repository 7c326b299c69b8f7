"""How long `drumctl status` takes, from the shell's point of view."""

import subprocess
import sys
import time
from statistics import median

from bench.effort import Effort
from bench.report import Column, Result, Value, Wanted
from bench.servers import CHECKOUT, DRUMD_UVICORN, BenchError, running

LIMIT = 0.3
WORKERS = 4

COLUMNS = (
    Column("what", "command"),
    Column("median", "ms", ".0f"),
    Column("worst", "worst", ".0f"),
)
# What the installed command runs; in a checkout there may be no such command.
_DRUMCTL = "import sys; from drumd.supervisor.cli.drumctl import main; sys.exit(main())"


def measure(effort: Effort) -> Result:
    """Run the command some times against a daemon, and a bare Python beside it."""
    with running((DRUMD_UVICORN,), workers=WORKERS) as (daemon,):
        socket = str(daemon.scratch / "admin.sock")
        runs = [
            (_timed(_DRUMCTL, "--socket", socket, "status"), _timed("pass"))
            for _ in range(effort.status_runs)
        ]
    ours, python = zip(*runs, strict=True)
    rows: list[dict[str, Value]] = [
        _row("drumctl status", ours),
        _row("python -c pass", python),
    ]
    return Result(
        "drumctl",
        f"From the start of the process to its end; {WORKERS} workers. "
        f"Median of {effort.status_runs}.",
        COLUMNS,
        rows,
        [Wanted("seconds of drumctl status", median(ours), LIMIT)],
    )


def _timed(code: str, *arguments: str) -> float:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
    )
    if done.returncode != 0:
        raise BenchError(f"cannot run drumctl status: {done.returncode}, {done.stderr}")
    return time.monotonic() - begun


def _row(what: str, times: tuple[float, ...]) -> dict[str, Value]:
    return {"what": what, "median": 1e3 * median(times), "worst": 1e3 * max(times)}
