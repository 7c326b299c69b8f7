"""Delegated cgroups (v2): a group for each worker, which holds all that the worker starts.

Without one everything works by process group and mark; a cgroup adds that nothing can escape it.
"""

import asyncio
import errno
import os
import re
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "drumd-"
_RETRY_EVERY = 0.05
_GIVE_UP_AFTER = 10.0
"""Seconds; killed processes are gone in milliseconds unless they hang in the kernel."""


class CgroupError(Exception):
    """cannot use a cgroup."""


@dataclass(frozen=True, slots=True)
class WorkerCgroup:
    """The cgroup of one worker and of all that it starts."""

    path: Path

    @property
    def procs_path(self) -> str:
        """The file that a process writes `0` to, to join."""
        return str(self.path / "cgroup.procs")

    def kill(self) -> None:
        """SIGKILL all in it at once, those that are just being forked too (cgroup.kill)."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            if self.path.exists():  # Linux before 5.14
                self._kill_each()

    def empty(self) -> bool:
        """Say whether no process is left in it or below it (zombies don't count)."""
        try:
            return "populated 0" in (self.path / "cgroup.events").read_text()
        except OSError:
            return not self.path.exists()

    def remove(
        self, loop: asyncio.AbstractEventLoop, on_stuck: Callable[[str], None] | None = None
    ) -> None:
        """Remove it as soon as it is empty, in the background; kill what is in it first.

        `on_stuck` is told, in words, when that can't be done.
        """
        self._try_remove(loop, loop.time() + _GIVE_UP_AFTER, on_stuck)

    def _try_remove(
        self,
        loop: asyncio.AbstractEventLoop,
        deadline: float,
        on_stuck: Callable[[str], None] | None,
    ) -> None:
        try:
            _remove_tree(self.path)
        except OSError as error:
            if error.errno == errno.EBUSY and loop.time() < deadline:
                loop.call_later(_RETRY_EVERY, self._try_remove, loop, deadline, on_stuck)
            elif on_stuck is not None:
                on_stuck(f"cannot remove cgroup {self.path}: {error.strerror}")

    def _kill_each(self) -> None:
        for pid in (self.path / "cgroup.procs").read_text().split():
            os.kill(int(pid), 9)


@dataclass(frozen=True, slots=True)
class Delegated:
    """A cgroup whose subtree is this process's to use."""

    path: Path

    def create(self, pool: str, attempt: int) -> WorkerCgroup:
        """Make the group of one worker; raise `CgroupError`."""
        path = self.path / f"{_PREFIX}{pool}-{attempt}"
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise CgroupError(f"cannot create cgroup {path}: {error.strerror}") from error
        return WorkerCgroup(path)

    def tidy(self, loop: asyncio.AbstractEventLoop, known: Container[Path]) -> None:
        """Remove what is left of groups whose workers ended before a re-exec: all but `known`."""
        for path in self.path.glob(f"{_PREFIX}*"):
            if path not in known:
                WorkerCgroup(path).remove(loop)


def delegated_cgroup() -> Delegated | None:
    """Return the cgroup v2 that was delegated to this process; None without one.

    systemd marks such a one with an extended attribute when the unit has `Delegate=yes`. In a
    container, the root of the cgroup namespace is the container's own, if it may be written.
    """
    path = own_cgroup("")
    if path is None or not os.access(path, os.W_OK):
        return None
    if _is_marked_delegated(path) or (os.getpid() == 1 and _is_namespace_root(path)):
        return Delegated(path)
    return None


def own_cgroup(controller: str) -> Path | None:
    """Return the directory of this process's cgroup: v2 for "", else v1's of that controller.

    From /proc/self/cgroup and /proc/self/mountinfo (cgroups(7), proc(5)); None without one.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, controllers, inside = line.split(":", 2)
        is_wanted = controller in controllers.split(",") if controller else number == "0"
        if is_wanted:
            for mount in mounts:
                found = _below_mount(mount, controller, inside)
                if found is not None and found.is_dir():
                    return found
    return None


def _below_mount(mount: str, controller: str, inside: str) -> Path | None:
    """Return where the cgroup `inside` is below a line of mountinfo, if that mounts its tree."""
    before, _, after = mount.partition(" - ")
    kind, _, options = after.split(" ", 2)
    root, point = (_unescape(part) for part in before.split()[3:5])
    if kind != ("cgroup" if controller else "cgroup2"):
        return None
    if controller and controller not in options.split()[-1].split(","):
        return None
    if not Path(inside).is_relative_to(root):
        return None
    return Path(point) / Path(inside).relative_to(root)


def _unescape(part: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), part)


def _is_marked_delegated(path: Path) -> bool:
    for attribute in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(path, attribute) == b"1":
                return True
        except OSError:
            continue
    return False


def _is_namespace_root(path: Path) -> bool:
    """Only the root of the whole hierarchy lacks cgroup.type: that one is never ours."""
    inside = Path("/proc/self/cgroup").read_text()
    return "0::/\n" in inside and (path / "cgroup.type").exists()


def _remove_tree(path: Path) -> None:
    """Remove a cgroup with what was made below it; a group in use refuses with EBUSY."""
    try:
        for child in path.iterdir():
            if child.is_dir():
                _remove_tree(child)
        path.rmdir()
    except FileNotFoundError:
        return
