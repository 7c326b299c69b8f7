"""Memory: how much a process has for itself, and how much is free, by all limits that hold here.

Everything is read from the kernel's files, which may take milliseconds each: call it in a thread.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drumd.supervisor.processes.cgroup import own_cgroup

_KIB = 1024
_GIGABYTE = 10**9
_NO_LIMIT = 1 << 60
"""Version 1 writes a number near 2**63 where there is no limit."""


@dataclass(frozen=True, slots=True)
class Free:
    """Memory that can still be had, and what bounds it."""

    amount: int
    """Bytes; 0 when a limit is exceeded already."""
    bound: str
    """In words: "the machine", "cgroup /system.slice/drumd.service (limit 2.0 GB)"."""


def private_memory(pid: int) -> int | None:
    """Return the bytes that a process shares with no other; None when it is gone.

    Private_Clean and Private_Dirty of /proc/PID/smaps_rollup (proc(5)), and the huge pages; the
    kernel walks the page tables for it, some ms per GB.
    """
    return _rollup(pid, "Private_")


def anonymous_memory(pid: int) -> int | None:
    """Return the bytes of a process that no file is behind, shared with its forks or not."""
    return _rollup(pid, "Anonymous:")


def _rollup(pid: int, key: str) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(key)]
    return sum(map(int, sizes)) * _KIB if sizes else None


def free_memory() -> Free | None:
    """Return the least of what the machine and each cgroup above this process leave; None: unknown.

    Of a cgroup: its limit less what is used, where file pages that nobody has touched lately do
    not count as used, since the kernel drops them first.
    """
    bounds = [*_machine(), *_cgroups("", _FILES_V2), *_cgroups("memory", _FILES_V1)]
    return min(bounds, key=lambda bound: bound.amount, default=None)


_FILES_V2 = ("memory.max", "memory.current", "inactive_file")
_FILES_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Files of the limit and the use, and the key in memory.stat (cgroup-v2.rst, v1/memory.rst)."""


def _machine() -> Iterator[Free]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("MemAvailable:"):
            yield Free(int(line.split()[1]) * _KIB, "the machine")


def _cgroups(controller: str, files: tuple[str, str, str]) -> Iterator[Free]:
    """Yield what this process's cgroup and each one above it leave, as far as they can be seen."""
    inner = own_cgroup(controller)
    if inner is None:
        return
    for directory in (inner, *inner.parents):
        if not (directory / "cgroup.procs").exists():
            return  # above the mount
        left = cgroup_leaves(directory, files)
        if left is not None:
            yield left


def cgroup_leaves(directory: Path, files: tuple[str, str, str] = _FILES_V2) -> Free | None:
    """Return what the limit of one cgroup leaves; None without one."""
    limit_file, used_file, idle_key = files
    try:
        text = (directory / limit_file).read_text().strip()
        limit = _NO_LIMIT if text == "max" else int(text)
        if limit >= _NO_LIMIT:
            return None
        used = int((directory / used_file).read_text())
        stat = (directory / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    idle = next((int(line.split()[1]) for line in stat if line.split()[:1] == [idle_key]), 0)
    return Free(max(0, limit - used + idle), f"{directory} (limit {in_words(limit)})")


def in_words(amount: int) -> str:
    """Return a number of bytes for people, in the units of the config: `1.5 GB`, `120 MB`."""
    return f"{amount / 1e9:.1f} GB" if amount >= _GIGABYTE else f"{amount / 1e6:.0f} MB"
