"""A memory limit that has no room for an old and a new worker at once: a real cgroup."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drumd.supervisor.processes.cgroup import own_cgroup
from tests.e2e.daemon import Daemon, free_port
from tests.e2e.visitor import Address
from tests.waiting import wait_until

LIMIT = 320_000_000
"""Bytes: above drumd and one worker, below drumd and two."""
APP = """
import os
MODEL = bytearray(os.urandom(1 << 20)) * 120

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""
ENTER = 'echo $$ > "$0" && "$@"; exit $?'
"""Has a shell enter the cgroup whose `cgroup.procs` is its $0, and run the command in it."""


@pytest.fixture
def limited() -> Iterator[Path]:
    """A cgroup of the test's own with that limit; the memory controller of v1 or v2."""
    for controller, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        home = own_cgroup(controller)
        if home is None:
            continue
        path = home / f"drumd-limit-{os.getpid()}"
        try:
            path.mkdir()
            (path / limit).write_text(str(LIMIT))
        except OSError:
            if path.is_dir():
                path.rmdir()
            continue
        yield path
        wait_until(lambda: not (path / "cgroup.procs").read_text(), what="an empty cgroup")  # noqa: B023
        path.rmdir()
        return
    pytest.skip("no memory cgroup that this user may change; run as root, outside of a container")


def test_a_surge_that_does_not_fit_is_refused_or_done_without(
    limited: Path, daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """The reload says what is missing and changes nothing; `no-surge` ends the old worker first."""
    (tmp_path / "big.py").write_text(APP)
    config = tmp_path / "drumd.toml"
    port = free_port()

    def write(memory: str) -> None:
        config.write_text(
            f'[pools.web]\napp = "big:app"\napp_dir = "{tmp_path}"\nbind = "127.0.0.1:{port}"\n'
            f'runtime = "uvicorn"\nlinger = 0\nrollout.memory = "{memory}"\n'
        )

    write("refuse")
    drumd = daemon(
        *("run", "--config", str(config)),
        prefix=["sh", "-c", ENTER, str(limited / "cgroup.procs")],
    )
    drumd.wait_for("daemon.ready")
    web = Address(port)
    before = web.get().body
    refused = drumd.drumctl("reload", "web")
    assert refused.returncode == 1
    assert "no memory for another worker" in refused.stdout
    assert "a worker takes" in refused.stdout
    assert web.get().body == before
    write("no-surge")
    done = drumd.drumctl("reload", "web")
    assert done.returncode == 0, done.stdout + done.stderr
    assert web.get().body != before
    ended = [line for line in drumd.log() if line["event"] == "worker.exited"]
    assert [line["cause"] for line in ended] == ["rollout"], "nobody was killed for want of memory"
