"""What the kernel counts for a process, over all its threads."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals since the process began."""

    cpu: float = 0.0
    """Seconds on a CPU (proc(5), schedstat: nanoseconds, where stat has ticks of 10 ms)."""
    switches: int = 0
    """Context switches, each of them one waking up or one interruption."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.cpu + other.cpu, self.switches + other.switches)

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(self.cpu - other.cpu, self.switches - other.switches)


def counts(pid: int) -> Counts:
    """Return the totals of `pid`'s threads; nothing once it is gone."""
    total = Counts()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                cpu = int((thread / "schedstat").read_text().split()[0]) / 1e9
                total += Counts(cpu, _switches(thread))
    return total


def cpu_seconds(pid: int) -> float:
    """Return the CPU that `pid` took, in ticks of 10 ms; nothing once it is gone.

    Threads that have ended count too, unlike in `counts`: a server may have one a connection.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # Fields 14 and 15 of proc(5), user and system; the first two are cut off.
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def proportional_memory(pid: int) -> int:
    """Return the bytes of memory that are `pid`'s share (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _switches(thread: Path) -> int:
    return sum(
        int(line.split()[1])
        for line in (thread / "status").read_text().splitlines()
        if "ctxt_switches" in line
    )
