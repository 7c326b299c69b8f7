"""Templates that get into trouble: their workers serve on, and they are replaced."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.served import Served
from tests.waiting import wait_until

Serve = Callable[..., Served]

APP = """
import os
import pathlib
import time

HERE = pathlib.Path(__file__).parent

def before_fork():
    while (HERE / "stuck").exists():
        time.sleep(0.05)

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


def serve_forks(serve: Serve, code: Path, *, plain: bool = False, **keys: Any) -> Served:
    """Serve an app whose hook before the fork hangs while there is a file `stuck`; or `plain`."""
    forks = {"preload": True, "before_fork": "forking:before_fork"}
    (code / "forking.py").write_text(APP)
    served = serve(
        web={
            "app": "forking:app",
            "app_dir": str(code),
            "runtime": "uvicorn",
            "workers": 2,
            **({} if plain else forks),
            **keys,
        }
    )
    served.ready()
    return served


def template(served: Served) -> int | None:
    """Return the pid of the ready template."""
    ready = [t["pid"] for t in served.pool().get("templates", []) if t["state"] == "ready"]
    return ready[0] if ready else None


def test_a_template_that_does_not_fork_is_replaced(serve: Serve, tmp_path: Path) -> None:
    """One that hangs in a hook goes, with its stacks in the log, and the next one forks again."""
    served = serve_forks(serve, tmp_path, start_timeout="2s")
    first, (victim, other) = template(served), served.pids()
    (tmp_path / "stuck").touch()
    os.kill(victim, signal.SIGKILL)
    served.wait_for("worker.hung")
    assert any("before_fork" in line["reason"] for line in [served.wait_for("worker.stacks")])
    (tmp_path / "stuck").unlink()
    served.wait_state("ready")
    assert other in served.pids()
    wait_until(lambda: template(served) not in (None, first), what="another template")
    assert served.web.get().status == 200


def test_a_killed_template_is_replaced_and_disturbs_nobody(serve: Serve, tmp_path: Path) -> None:
    """Its workers serve on, and a worker that falls later is forked from the next one."""
    served = serve_forks(serve, tmp_path)
    first, before = template(served), served.pids()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: template(served) not in (None, first), what="another template")
    assert served.pids() == before
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len({*served.pids()} - {*before}) == 1, what="another worker")
    served.wait_state("ready")


def test_a_spare_takes_a_crashed_slot(serve: Serve, tmp_path: Path) -> None:
    """The slot has the spare's process at once, and another spare is started behind it."""
    served = serve_forks(serve, tmp_path, spares=1, plain=True)

    def spares() -> list[int]:
        return [s["pid"] for s in served.pool().get("spares", []) if s["state"] == "ready"]

    (spare,) = wait_until(spares, what="a spare")
    victim = served.pids()[0]
    os.kill(victim, signal.SIGKILL)
    served.wait_for("spare.promoted")
    wait_until(lambda: spare in served.pids(), what="the spare in the slot")
    wait_until(lambda: spares() not in ([], [spare]), what="another spare")
