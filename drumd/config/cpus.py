"""How many CPUs and how much memory this process may really use, and the workers that fit.

`os.cpu_count()` tells of the machine; what counts is what is left of it by the affinity mask
(sched_getaffinity(2)), the cpuset, and the quota and memory limit of the control group and of every
group above it (cgroups(7); Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel).
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from drumd.config.kinds import MAX_WORKERS, WorkerRange
from drumd.config.quantities import format_size
from drumd.config.settings import PoolSettings

PROC = Path("/proc")

T = TypeVar("T")

_V1, _V2 = "cgroup", "cgroup2"
"""The two kinds of control groups, by the names of their file systems."""

MEMORY_SHARE = 0.8
"""Part of the memory limit that `workers = "auto"` fills; the rest is for drumd and for peaks."""


@dataclass(frozen=True, slots=True)
class Limit:
    """An amount, and what limits it, in words."""

    amount: int
    reason: str


def usable_cpus(proc: Path = PROC, affinity: int | None = None) -> Limit:
    """Return how many CPUs this process may use, at least 1.

    A quota is rounded up: with 1.5 CPUs, two workers use all of it and one would waste a third.
    `affinity` is the number of CPUs in the mask; by default the kernel is asked.
    """
    if affinity is None:
        affinity = len(os.sched_getaffinity(0))
    limits = [Limit(affinity, f"{_cpus(affinity)} by affinity")]
    cpuset = _cpuset(proc)
    if cpuset:
        limits.append(Limit(cpuset, f"{_cpus(cpuset)} by the cpuset"))
    quota = _quota(proc)
    if quota is not None:
        limits.append(Limit(max(1, math.ceil(quota)), f"a quota of {_cpus(quota)}"))
    return min(limits, key=lambda limit: limit.amount)


def memory_limit(proc: Path = PROC) -> Limit:
    """Return the bytes of memory that this process and its children may use together."""
    limits = []
    physical = _physical_memory(proc)
    if physical is not None:
        limits.append(Limit(physical, "the machine's memory"))
    along = (
        *_along(proc, _V2, "", _memory_max),
        *_along(proc, _V1, "memory", _memory_limit_in_bytes),
    )
    limits += [Limit(amount, "the control group's memory limit") for amount in along]
    # Without any figure, nothing is known to limit it.
    return min(limits, key=lambda limit: limit.amount, default=Limit(2**63 - 1, "no known limit"))


def resolve_workers(
    pool: PoolSettings, cpus: Limit | None = None, memory: Limit | None = None
) -> tuple[int, str]:
    """Return how many workers the pool is to have at first, and why.

    A range begins at its least: the load tells whether more are needed.
    `auto` is one worker for each usable CPU: an event loop fills one CPU, and so do the threads of
    a gthread worker under the GIL. A worker that serves one request at a time (gunicorn's sync)
    spends part of it waiting, so there are two for each CPU and one more. Flask's development
    server gets one. With `worker_memory`, no more than fit into 80 % of the memory limit. Each
    pool counts for itself: two `auto` pools have together twice as many workers as there are CPUs.
    """
    if isinstance(pool.workers, WorkerRange):
        return pool.workers.least, f"the least of {pool.workers}"
    if pool.workers != "auto":
        return pool.workers, "as configured"
    if pool.runtime == "flask":
        return 1, "one: a development server"
    cpus = cpus or usable_cpus()
    if pool.runtime in ("auto", "gunicorn") and pool.gunicorn.get("worker_class") == "sync":
        count, reason = 2 * cpus.amount + 1, f"two per CPU and one, {cpus.reason}"
    else:
        count, reason = cpus.amount, f"one per CPU, {cpus.reason}"
    if count > MAX_WORKERS:
        count, reason = MAX_WORKERS, f"the most that a pool may have; {reason}"
    if pool.worker_memory is not None:
        memory = memory or memory_limit()
        fitting = max(1, int(memory.amount * MEMORY_SHARE) // pool.worker_memory)
        if fitting < count:
            count = fitting
            reason = (
                f"{format_size(pool.worker_memory)} each in {MEMORY_SHARE:.0%} of "
                f"{memory.amount / 10**9:.3g}GB, {memory.reason}"
            )
    return count, reason


def _cpus(count: float) -> str:
    return f"{count:.3g} CPU" + ("" if count == 1 else "s")


def _cpuset(proc: Path) -> int | None:
    """Return the number of CPUs in the cpuset; it holds what the groups above allow already."""
    for kind, controller, file in (
        (_V2, "", "cpuset.cpus.effective"),
        (_V1, "cpuset", "cpuset.effective_cpus"),
        (_V1, "cpuset", "cpuset.cpus"),
    ):
        for directory in _directories(proc, kind, controller):
            count = _count_cpu_list(_read(directory / file) or "")
            if count:
                return count
    return None


def _count_cpu_list(text: str) -> int:
    """Return how many CPUs a list such as `0-3,8` names (cpuset(7), "List format")."""
    count = 0
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        count += int(last or first) - int(first) + 1
    return count


def _quota(proc: Path) -> float | None:
    """Return the smallest CPU quota along the path to the root, in CPUs."""
    quotas = [*_along(proc, _V2, "", _cpu_max), *_along(proc, _V1, "cpu", _cfs_quota)]
    return min(quotas, default=None)


def _cpu_max(group: Path) -> float | None:
    """Read `cpu.max`: quota and period in microseconds, or `max` for none."""
    quota, _, period = (_read(group / "cpu.max") or "").partition(" ")
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _cfs_quota(group: Path) -> float | None:
    """Read `cpu.cfs_quota_us` and its period; a quota of -1 is none."""
    quota = _read(group / "cpu.cfs_quota_us") or ""
    period = _read(group / "cpu.cfs_period_us") or ""
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _memory_max(group: Path) -> int | None:
    """Read `memory.max`: bytes, or `max` for no limit."""
    return _bytes(group / "memory.max")


def _memory_limit_in_bytes(group: Path) -> int | None:
    """Read `memory.limit_in_bytes`; without a limit it is above any machine's memory."""
    return _bytes(group / "memory.limit_in_bytes")


def _bytes(file: Path) -> int | None:
    text = _read(file) or ""
    return int(text) if text.isdigit() else None


def _physical_memory(proc: Path) -> int | None:
    match = re.search(r"^MemTotal:\s+(\d+) kB", _read(proc / "meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _along(proc: Path, kind: str, controller: str, read: Callable[[Path], T | None]) -> Iterator[T]:
    """Yield what `read` finds in this process's group and in each one above it."""
    for directory in _directories(proc, kind, controller):
        found = read(directory)
        if found is not None:
            yield found


def _directories(proc: Path, kind: str, controller: str) -> Iterator[Path]:
    """Yield the directory of this process's group, then those above it, up to the mount.

    A hybrid system has both versions mounted; a controller is in one of them only.
    """
    path = _group_path(proc, kind, controller)
    for root, mount in _mounts(proc, kind, controller):
        if path is None:
            return
        below = Path(path).relative_to(root) if Path(path).is_relative_to(root) else Path()
        if ".." in below.parts:
            below = Path()
        # Where the group is outside of what is mounted (a container without a cgroup namespace, or
        # a path with `..`), what can be seen is the mount itself: the container's own group.
        directory = mount / below
        yield directory
        for _ in below.parts:
            directory = directory.parent
            yield directory
        return


def _group_path(proc: Path, kind: str, controller: str) -> str | None:
    """Return this process's group from `/proc/self/cgroup`: lines `id:controllers:path`."""
    for line in (_read(proc / "self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if kind == _V2 and not controllers:
            return path
        if kind == _V1 and controller in controllers.split(","):
            return path
    return None


def _mounts(proc: Path, kind: str, controller: str) -> Iterator[tuple[str, Path]]:
    """Yield root and mount point of each cgroup file system (`/proc/self/mountinfo`, proc(5))."""
    for line in (_read(proc / "self/mountinfo") or "").splitlines():
        mount, separator, filesystem = line.partition(" - ")
        if not separator:
            continue
        _, _, _, root, mount_point, *_ = mount.split(" ")
        found, *_, options = filesystem.split(" ")
        if found == kind and (kind == _V2 or controller in options.split(",")):
            yield _unescape(root), Path(_unescape(mount_point))


def _unescape(text: str) -> str:
    """Undo the kernel's octal escapes of spaces in paths."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
