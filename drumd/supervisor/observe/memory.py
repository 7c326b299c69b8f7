"""The memory of processes. Apart from the metrics, so that the status needs no prometheus_client."""

import contextlib
from os import sysconf
from pathlib import Path

_PAGE = sysconf("SC_PAGE_SIZE")


def resident_memory(pid: int) -> int | None:
    """Return the resident set of `pid` in bytes, None when it is gone (proc_pid_statm(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return None
