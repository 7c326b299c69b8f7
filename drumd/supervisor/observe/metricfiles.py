"""The files of the apps' own metrics: where they are, and that none outlive their daemon."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

_PREFIX = "drumd-metrics-"


class MetricFiles:
    """One daemon's directory, with one for each pool and generation below it.

    Shared memory is the best place, since the files are mapped and never need a disk; without any
    writable place the apps' metrics stay their own.
    """

    def __init__(self, home: Path | None) -> None:
        self.home = home

    @classmethod
    def create(cls, environ: Mapping[str, str]) -> "MetricFiles":
        """Make a directory that only this user may enter; clear those of daemons that are gone."""
        for place in _places(environ):
            _clear_stale(place)
            try:
                return cls(Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place)))
            except OSError:
                continue
        return cls(None)

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


def _places(environ: Mapping[str, str]) -> Iterator[Path]:
    yield Path("/dev/shm")  # noqa: S108 - mkdtemp makes the directory private
    if runtime := environ.get("RUNTIME_DIRECTORY"):
        yield Path(runtime.split(":")[0])
    yield Path(environ.get("TMPDIR") or "/tmp")  # noqa: S108 - as above


def _clear_stale(place: Path) -> None:
    """Remove what a daemon that was killed left behind: ours by owner, and its pid is gone."""
    for path in place.glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).split("-")[0]
        try:
            mine = path.lstat().st_uid == os.getuid()
        except OSError:
            continue
        if mine and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(path, ignore_errors=True)
