import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drumd.config.cpus import Limit, memory_limit, resolve_workers, usable_cpus
from drumd.config.settings import PoolSettings

GIB = 2**30


class Machine:
    """A made-up /proc and its control groups."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.proc.joinpath("self").mkdir(parents=True)
        self.write("proc/meminfo", f"MemTotal:  {8 * GIB // 1024} kB\nMemFree: 1 kB\n")
        self._mounts: list[str] = []

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def in_groups(self, *lines: str) -> None:
        self.write("proc/self/cgroup", "".join(f"{line}\n" for line in lines))

    def mount(self, kind: str, at: str, root: str = "/", options: str = "rw") -> None:
        (self.root / at).mkdir(parents=True, exist_ok=True)
        place = str(self.root / at).replace(" ", "\\040")
        number = 30 + len(self._mounts)
        self._mounts.append(
            f"{number} 1 0:{number} {root} {place} rw,nosuid - {kind} {kind} {options}"
        )
        self.write("proc/self/mountinfo", "\n".join(["1 0 8:1 / / rw - ext4 x rw", *self._mounts]))

    def cpus(self, affinity: int = 16) -> Limit:
        return usable_cpus(self.proc, affinity)

    def memory(self) -> int:
        return memory_limit(self.proc).amount


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def v2(machine: Machine) -> Machine:
    machine.in_groups("0::/system.slice/drumd.service")
    machine.mount("cgroup2", "cg")
    machine.write("cg/system.slice/drumd.service/cgroup.procs", "")
    return machine


def test_affinity_limits_where_nothing_else_does(machine: Machine) -> None:
    """Without control groups, the affinity mask and the machine's memory are the limits."""
    assert machine.cpus(3) == Limit(3, "3 CPUs by affinity")
    assert machine.memory() == 8 * GIB


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    """Without any /proc there is at least one CPU and no known limit of memory."""
    assert usable_cpus(tmp_path, 1).amount == 1
    assert memory_limit(tmp_path).reason == "no known limit"


@pytest.mark.parametrize(
    ("cpu_max", "cpus"),
    [("max 100000", 16), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("", 16)],
)
def test_a_quota_of_version_2(v2: Machine, cpu_max: str, cpus: int) -> None:
    """A quota in cpu.max limits the CPUs, rounded up, at least one; `max` is none."""
    v2.write("cg/system.slice/drumd.service/cpu.max", cpu_max + "\n")
    assert v2.cpus().amount == cpus


def test_the_smallest_limit_along_the_path_counts(v2: Machine) -> None:
    """A group above this one may be the tighter one, for CPUs and for memory."""
    v2.write("cg/system.slice/drumd.service/cpu.max", "400000 100000")
    v2.write("cg/system.slice/cpu.max", "50000 25000")
    v2.write("cg/cpu.max", "max 100000")
    v2.write("cg/system.slice/drumd.service/memory.max", "max")
    v2.write("cg/system.slice/memory.max", str(GIB))
    assert v2.cpus() == Limit(2, "a quota of 2 CPUs")
    assert memory_limit(v2.proc) == Limit(GIB, "the control group's memory limit")


def test_a_sibling_does_not_count(v2: Machine) -> None:
    """Limits of groups that this process is not in do not count."""
    v2.write("cg/user.slice/cpu.max", "100000 100000")
    assert v2.cpus().amount == 16


def test_the_cpuset_counts(v2: Machine) -> None:
    """The effective cpuset limits the CPUs; the nearest group that has one says it."""
    v2.write("cg/system.slice/cpuset.cpus.effective", "0-3,8\n")
    assert v2.cpus() == Limit(5, "5 CPUs by the cpuset")


def test_limits_of_version_1(machine: Machine) -> None:
    """Version 1 has a tree for each controller, with a group of its own in each."""
    machine.in_groups("4:memory:/docker/abc", "3:cpuset:/", "2:cpu,cpuacct:/docker/abc", "0::/")
    machine.mount("cgroup", "cg/cpu", options="rw,cpu,cpuacct")
    machine.mount("cgroup", "cg/memory", options="rw,memory")
    machine.mount("cgroup", "cg/cpuset", options="rw,cpuset")
    machine.write("cg/cpu/docker/abc/cpu.cfs_quota_us", "-1\n")
    machine.write("cg/cpu/docker/abc/cpu.cfs_period_us", "100000\n")
    machine.write("cg/memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n")
    machine.write("cg/cpuset/cpuset.cpus", "0-11\n")
    assert machine.cpus() == Limit(12, "12 CPUs by the cpuset")
    assert machine.memory() == 8 * GIB
    machine.write("cg/cpu/docker/cpu.cfs_quota_us", "250000\n")
    machine.write("cg/cpu/docker/cpu.cfs_period_us", "100000\n")
    machine.write("cg/memory/docker/memory.limit_in_bytes", f"{GIB}\n")
    assert machine.cpus() == Limit(3, "a quota of 2.5 CPUs")
    assert machine.memory() == GIB


def test_a_hybrid_system(machine: Machine) -> None:
    """Where both versions are mounted, each controller is read where it is."""
    machine.in_groups("4:memory:/a", "1:cpu:/a", "0::/b")
    machine.mount("cgroup", "cg/cpu", options="rw,cpu")
    machine.mount("cgroup", "cg/memory", options="rw,memory")
    machine.mount("cgroup2", "cg/unified")
    machine.write("cg/cpu/a/cpu.cfs_quota_us", "100000")
    machine.write("cg/cpu/a/cpu.cfs_period_us", "50000")
    machine.write("cg/unified/b/memory.max", str(GIB))
    assert (machine.cpus().amount, machine.memory()) == (2, GIB)


@pytest.mark.parametrize(
    ("group", "root"),
    [
        ("/docker/abc", "/docker/abc"),
        ("/docker/abc/in", "/docker/abc"),
        ("/elsewhere", "/docker"),
        ("/../up", "/"),
    ],
)
def test_a_container_sees_its_own_group_as_the_root(
    machine: Machine, group: str, root: str
) -> None:
    """In a container the mount's root is the container's group, which limits what is in it."""
    machine.in_groups(f"0::{group}")
    machine.mount("cgroup2", "sys fs/cg", root=root)
    machine.write("sys fs/cg/cpu.max", "300000 100000")
    assert machine.cpus().amount == 3


def pool(**settings: Any) -> PoolSettings:
    return PoolSettings.model_validate({"app": "main:app", "workers": "auto", **settings})


FOUR = Limit(4, "4 CPUs by affinity")
MEMORY = Limit(10 * 10**9, "the control group's memory limit")


@pytest.mark.parametrize(
    ("settings", "count", "reason"),
    [
        ({"workers": 7}, 7, "as configured"),
        ({"workers": {"min": 2, "max": 8}}, 2, "the least of 2-8"),
        ({}, 4, "one per CPU, 4 CPUs by affinity"),
        ({"runtime": "uvicorn"}, 4, "one per CPU"),
        ({"runtime": "gunicorn"}, 4, "one per CPU"),
        ({"runtime": "gunicorn", "gunicorn": {"worker_class": "sync"}}, 9, "two per CPU and one"),
        ({"runtime": "flask"}, 1, "development"),
        ({"worker_memory": "2GB"}, 4, "one per CPU"),
        ({"worker_memory": "3GB"}, 2, "3GB each in 80% of 10GB, the control group's memory limit"),
        ({"worker_memory": "300GB"}, 1, "300GB each"),
    ],
)
def test_automatic_workers(settings: dict[str, Any], count: int, reason: str) -> None:
    """`auto` follows the usable CPUs, the worker class and the memory, and says which."""
    resolved, why = resolve_workers(pool(**settings), FOUR, MEMORY)
    assert resolved == count
    assert reason in why


def test_automatic_workers_stay_within_what_a_pool_may_have() -> None:
    """On a very large machine `auto` ends at the most that a pool may have."""
    assert resolve_workers(pool(), Limit(512, "512 CPUs by affinity"), MEMORY)[0] == 256


COUNT = "from drumd.config.cpus import usable_cpus; print(usable_cpus().amount)"


def test_the_real_affinity_counts() -> None:
    """A process that was pinned to one CPU counts one."""
    one = min(os.sched_getaffinity(0))
    pin = f"import os; os.sched_setaffinity(0, {{{one}}}); {COUNT}"
    done = subprocess.run([sys.executable, "-c", pin], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def group() -> Iterator[Path]:
    """Make a real control group with a quota of half a CPU, where this system lets us."""
    parent = CGROUPS / "cpu" if (CGROUPS / "cpu").is_dir() else CGROUPS
    made = parent / f"drumd-test-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group in {parent}: {error.strerror}")
    try:
        try:
            if (made / "cpu.max").exists():
                (made / "cpu.max").write_text("50000 100000")
            else:
                (made / "cpu.cfs_quota_us").write_text("50000")
        except OSError as error:
            pytest.skip(f"cannot set a quota in {made}: {error.strerror}")
        yield made
    finally:
        made.rmdir()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU cannot be limited to one")
def test_a_real_quota_counts(group: Path) -> None:
    """A process in a control group with a quota of half a CPU counts one, unlike this one."""
    join = f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); {COUNT}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", join], capture_output=True, text=True, check=True
        )
    except subprocess.CalledProcessError as error:
        if "cgroup.procs" in error.stderr or "OSError" in error.stderr:
            pytest.skip("cannot join the control group")
        raise
    assert done.stdout == "1\n"
