"""Interpreters that lack some of the packages that are installed here."""

import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path


def interpreter_without(directory: Path, hidden: Sequence[str]) -> Path:
    """Return a Python with all that is installed here, but these packages."""
    venv.create(directory, symlinks=True, with_pip=False)
    [target] = (directory / "lib").glob("python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name.partition("-")[0].partition(".")[0] not in hidden:
            (target / entry.name).symlink_to(entry)
    return directory / "bin/python"
