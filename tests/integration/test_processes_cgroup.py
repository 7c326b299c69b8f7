import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumd.supervisor.processes import cgroup
from drumd.supervisor.processes.cgroup import Delegated, delegated_cgroup, own_cgroup
from drumd.supervisor.processes.exits import Exits
from tests.processes import start_shell
from tests.waiting import until, wait_until


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A cgroup of the test's own, marked as systemd marks one, which the test joins."""
    home = own_cgroup("")
    if home is None or not os.access(home, os.W_OK):
        pytest.skip("no cgroup v2 that this user may change")
    path = home / f"drumd-test-{os.getpid()}"
    try:
        path.mkdir()
        (path / "cgroup.procs").write_text("0")
        os.setxattr(path, "trusted.delegate", b"1")
    except OSError as error:
        (home / "cgroup.procs").write_text("0")
        path.rmdir()
        pytest.skip(f"no cgroup can be delegated here: {error}")
    yield path
    (home / "cgroup.procs").write_text("0")
    for child in path.iterdir():
        if child.is_dir():
            (child / "cgroup.kill").write_text("1")
            wait_until(lambda c=child: "populated 0" in (c / "cgroup.events").read_text())  # type: ignore[misc]
            child.rmdir()
    path.rmdir()


async def test_a_delegated_cgroup_holds_all_of_a_worker(delegated: Path) -> None:
    """What joins a worker's group, with its children in other sessions, is killed at once."""
    found = delegated_cgroup()
    assert found == Delegated(delegated)
    group = found.create("web", 7)
    assert group.path.name == "drumd-web-7"
    assert group.empty()
    exits = Exits(asyncio.get_running_loop())
    gone: list[int | None] = []
    script = f"echo 0 > {group.procs_path}; env -i setsid sleep 1000 & exec sleep 1000"
    pid = start_shell(script)
    exits.watch(pid, lambda _pid, status: gone.append(status.signal))
    procs = group.path / "cgroup.procs"
    await until(lambda: len(procs.read_text().split()) == 2)
    assert not group.empty()
    group.remove(asyncio.get_running_loop())  # waits for its end
    group.kill()
    await until(lambda: not group.path.exists())
    assert group.empty()
    await until(lambda: gone)
    assert gone == [signal.SIGKILL]
    group.kill()
    group.remove(asyncio.get_running_loop())
    exits.close()


async def test_a_group_that_stays_in_use_is_told(
    delegated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's group that can't be removed in time is reported, not waited for."""
    monkeypatch.setattr(cgroup, "_GIVE_UP_AFTER", 0.0)
    group = Delegated(delegated).create("web", 8)
    exits = Exits(asyncio.get_running_loop())
    pid = start_shell(f"echo 0 > {group.procs_path}; exec sleep 1000")
    exits.watch(pid, lambda *_: None, group=False)
    await until(lambda: not group.empty())
    stuck: list[str] = []
    group.remove(asyncio.get_running_loop(), stuck.append)
    await until(lambda: stuck)
    assert stuck[0].startswith(f"cannot remove cgroup {group.path}")
    group.kill()
    await until(lambda: not exits.watched)
    exits.close()


def test_without_delegation_there_is_none(delegated: Path) -> None:
    """A cgroup that nobody delegated is not used, whatever its permissions."""
    os.removexattr(delegated, "trusted.delegate")
    assert delegated_cgroup() is None


def test_cgroups_are_found_in_all_kinds_of_mounts() -> None:
    """Mounts of v2 alone, hybrid, of a part of the tree and with spaces lead to the directory."""
    v2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    assert cgroup._below_mount(v2, "", "/a/b") == Path("/sys/fs/cgroup/a/b")
    part = r"31 23 0:28 /a /mnt/my\040group rw shared:4 - cgroup2 none rw,nsdelegate"
    assert cgroup._below_mount(part, "", "/a/b") == Path("/mnt/my group/b")
    assert cgroup._below_mount(part, "", "/c") is None
    v1 = "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
    assert cgroup._below_mount(v1, "memory", "/a") == Path("/sys/fs/cgroup/memory/a")
    assert cgroup._below_mount(v1, "cpu", "/a") is None
    assert cgroup._below_mount(v1, "", "/a") is None
