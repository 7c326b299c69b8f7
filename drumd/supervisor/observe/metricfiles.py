"""The files of the apps' own metrics: where they are, and that none outlive their daemon."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from drumd.supervisor.fds import Fd

_PREFIX = "drumd-metrics-"
_YOUNG = 5.0
"""Seconds in which a directory without a lock may still get one."""


@dataclass(frozen=True, slots=True)
class KeptMetricFiles:
    """The directory over a re-exec: its lock is held all the time."""

    home: str | None
    lock: Fd | None


class MetricFiles:
    """One daemon's directory, with one for each pool and generation below it.

    Shared memory is the best place, since the files are mapped and never need a disk; without any
    writable place the apps' metrics stay their own. A lock on the directory says that its daemon
    lives: a pid would not, since a container's first process has 1 in every container.
    """

    def __init__(self, home: Path | None, lock: int) -> None:
        self.home = home
        self._lock = lock

    @classmethod
    def create(cls, environ: Mapping[str, str]) -> "MetricFiles":
        """Make a directory that only this user may enter; clear those of daemons that are gone."""
        for place in _places(environ):
            _clear_stale(place)
            try:
                home = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
            except OSError:
                continue
            return cls(home, _locked(home))
        return cls(None, -1)

    def keep(self) -> KeptMetricFiles:
        """Return what `resume` needs."""
        return KeptMetricFiles(
            None if self.home is None else str(self.home),
            None if self._lock < 0 else Fd(self._lock),
        )

    @classmethod
    def resume(cls, kept: KeptMetricFiles) -> "MetricFiles":
        """Go on with the directory that was kept over a re-exec."""
        home = None if kept.home is None else Path(kept.home)
        return cls(home, -1 if kept.lock is None else kept.lock)

    def directory(self, pool: str, generation: int) -> Path | None:
        """Return the directory of a pool's generation, made if need be."""
        if self.home is None:
            return None
        path = self.home / pool / str(generation)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def remove(self) -> None:
        """Remove all of it."""
        if self.home is not None:
            shutil.rmtree(self.home, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _places(environ: Mapping[str, str]) -> Iterator[Path]:
    yield Path("/dev/shm")  # noqa: S108 - mkdtemp makes the directory private
    if runtime := environ.get("RUNTIME_DIRECTORY"):
        yield Path(runtime.split(":")[0])
    yield Path(environ.get("TMPDIR") or "/tmp")  # noqa: S108 - as above


def _locked(directory: Path) -> int:
    """Open a directory and lock it for as long as this process lives; -1 when another one has."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return -1
    return fd


def _clear_stale(place: Path) -> None:
    """Remove what daemons of this user left behind when they were killed."""
    for path in place.glob(f"{_PREFIX}*"):
        try:
            status = path.lstat()
        except OSError:
            continue
        # A directory that is only just made is not locked yet.
        young = time.time() - status.st_ctime < _YOUNG
        if status.st_uid != os.getuid() or young:
            continue
        lock = _locked(path)
        if lock >= 0:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
