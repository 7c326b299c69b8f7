"""The kernel's out-of-memory killer: whether it struck."""

import re
from pathlib import Path

from drumd.supervisor.processes.cgroup import own_cgroup


def oom_kills() -> int:
    """Return how many processes the kernel killed for want of memory, since some past moment.

    Counted for this process's own cgroup (v2 `memory.events`, which includes those below it; v1
    `memory.oom_control`), else for the whole machine (`/proc/vmstat`): a SIGKILL that coincides
    with a rise may be its doing, without one it was not. 0 where nothing tells.
    """
    for path, key in _places():
        try:
            found = re.search(rf"^{key} (\d+)$", path.read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found[1])
    return 0


def _places() -> list[tuple[Path, str]]:
    places = []
    for controller, file in (("", "memory.events"), ("memory", "memory.oom_control")):
        directory = own_cgroup(controller)
        if directory is not None:
            places.append((directory / file, "oom_kill"))
    return [*places, (Path("/proc/vmstat"), "oom_kill")]
