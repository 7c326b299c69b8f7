"""The directories of app metrics, made by daemons that end in different ways."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from drumd.supervisor.observe import metricfiles
from drumd.supervisor.observe.metricfiles import MetricFiles

KILLED = """
import os, sys
from pathlib import Path
from drumd.supervisor.observe import metricfiles
metricfiles._places = lambda _environ: [Path(sys.argv[1])]
files = metricfiles.MetricFiles.create({})
files.directory("web", 1)
print(files.home, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(metricfiles, "_places", lambda _environ: [tmp_path])
    return tmp_path


def _left_behind(place: Path) -> Path:
    """Let a process be killed that had a directory; return that."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(place)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -9, killed.stderr
    return Path(killed.stdout.strip())


def test_what_a_killed_daemon_left_is_removed_by_the_next(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory of a daemon that was killed is gone once the next one starts."""
    left = _left_behind(place)
    assert (left / "web" / "1").is_dir()
    monkeypatch.setattr(metricfiles, "_YOUNG", 0.0)
    MetricFiles.create({}).remove()
    assert not left.exists()


def test_a_living_daemons_directory_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second daemon leaves the directory of the first alone."""
    monkeypatch.setattr(metricfiles, "_YOUNG", 0.0)
    first, second = MetricFiles.create({}), MetricFiles.create({})
    try:
        assert first.home is not None
        assert first.home.is_dir()
        assert first.home != second.home
        assert first.home.stat().st_mode & 0o777 == 0o700
    finally:
        first.remove()
        second.remove()
    assert not first.home.exists()


def test_a_young_directory_stays(place: Path) -> None:
    """A directory that another daemon has only just made is not taken for a dead one's."""
    left = _left_behind(place)
    MetricFiles.create({}).remove()
    assert left.exists()


def test_without_a_place_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing can be written there is no directory, and no error."""
    monkeypatch.setattr(metricfiles, "_places", lambda _environ: [tmp_path / "absent"])
    files = MetricFiles.create(os.environ)
    assert files.directory("web", 1) is None
    files.remove()
