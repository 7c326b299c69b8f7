"""What drumd costs while nothing happens, counted by the kernel."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.served import Served, elapse
from tests.waiting import wait_until

Serve = Callable[..., Served]

WINDOW = 8.0


def wakes(pid: int) -> int:
    """Return how often the process's threads have gone to sleep so far (proc_pid_status(5)).

    That is how often they woke. Switches against their will tell of the machine's other load.
    """
    return sum(
        int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir()
        for line in (task / "status").read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def ran(pid: int) -> float:
    """Return the seconds that the process's threads have run so far (schedstat: in ns)."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) / 1e9
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def quietly(served: Served, workers: int) -> list[int]:
    """Wait until a pool of that size is ready, and what the start left to do is done."""
    pids = served.ready()
    assert len(pids) == workers
    before = 0.0

    def settled() -> bool:
        nonlocal before
        known, before = before, ran(served.daemon.pid)
        return before - known < 0.002

    wait_until(settled, every=0.5, what="a supervisor at rest")
    return pids


@pytest.mark.parametrize(
    ("pool", "workers"),
    [
        pytest.param({"app": "unruly:wsgi", "runtime": "gunicorn"}, 1, id="one"),
        pytest.param({"runtime": "uvicorn"}, 8, id="eight"),
    ],
)
def test_idle_daemon(serve: Serve, pool: dict[str, str], workers: int) -> None:
    """Idle, drumd wakes less than 5 times a second whatever it runs, and takes 0.3 % of a core.

    Its workers wake little more often than they beat, which is 4 times a second.
    """
    served = serve(web={**pool, "workers": workers})
    pids = quietly(served, workers)
    processes = [served.daemon.pid, *pids]
    began, woken, run = time.monotonic(), list(map(wakes, processes)), ran(served.daemon.pid)
    elapse(WINDOW)
    seconds = time.monotonic() - began
    share = (ran(served.daemon.pid) - run) / seconds
    rates = [
        (after - before) / seconds
        for before, after in zip(woken, map(wakes, processes), strict=True)
    ]
    sys.stdout.write(
        f"{workers} workers: drumd wakes {rates[0]:.1f} times a second and takes {share:.3%}, "
        f"the workers wake {max(rates[1:]):.1f} times\n"
    )
    assert rates[0] < 5
    assert share < 0.003
    assert max(rates[1:]) < 6
