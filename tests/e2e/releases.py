"""Releases of an app (apps/steady.py), as a deployment leaves them on disk."""

import shutil
from pathlib import Path

STEADY = Path(__file__).with_name("apps") / "steady.py"


class Releases:
    """Directories with a release each, and `current`, a symlink to the one that is to serve."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._directory.mkdir()
        self.current = directory / "current"
        self._count = 0

    def make(self, version: str, ailment: str = "") -> Path:
        """Make a release; `ailment`: see apps/steady.py."""
        self._count += 1
        release = self._directory / f"release-{self._count}"
        release.mkdir()
        shutil.copy(STEADY, release)
        self.rewrite(release, version, ailment)
        return release

    def rewrite(self, release: Path, version: str, ailment: str = "") -> None:
        """Put another version in place of what is there."""
        fresh = release / "release.new"
        fresh.write_text(f"{version}\n{ailment}")
        fresh.rename(release / "release.txt")  # nobody reads half of it
        (release / "part.py").write_text(f"NAME = {version!r}\n")

    def deploy(self, version: str, ailment: str = "") -> Path:
        """Make a release, and have `current` point to it from one instant to the next."""
        release = self.make(version, ailment)
        link = self._directory / "link"
        link.symlink_to(release)
        link.rename(self.current)
        return release
