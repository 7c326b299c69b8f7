"""What the Makefile says to somebody whose machine lacks something."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.daemon import CHECKOUT
from tests.needs import needs

# A Python as Debian has it without python3-venv: `ensurepip` is missing.
WITHOUT_VENV = f"""\
#!/bin/sh
case "$2" in *ensurepip*) exit 1 ;; esac
exec {sys.executable} "$@"
"""

TOO_OLD = "#!/bin/sh\nexit 1\n"


@pytest.fixture
def bin_directory(tmp_path: Path) -> Path:
    """Return a directory that is the whole PATH: with a shell, and Pythons that cannot be used."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for version in ("3.11", "3.12", "3.13", "3.14"):
        _write_command(directory / f"python{version}", TOO_OLD)
    return directory


def _write_command(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def make_venv(bin_directory: Path, venv: Path) -> str:
    """Run make with that PATH, expect it to fail, and return what it said."""
    done = subprocess.run(
        [needs("make", "make"), f"VENV={venv}", f"{venv}/bin/python"],
        cwd=CHECKOUT,
        env={**os.environ, "PATH": str(bin_directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert not venv.exists()
    return done.stderr


def test_missing_venv_names_the_package(bin_directory: Path, tmp_path: Path) -> None:
    """A Python without venv is told of together with the command that installs it."""
    _write_command(bin_directory / "python3", WITHOUT_VENV)
    said = make_venv(bin_directory, tmp_path / "venv")
    package = f"python3.{sys.version_info.minor}-venv"
    assert "cannot make a virtual environment: python3 comes without venv" in said
    assert f"apt-get install {package}" in said


def test_missing_python_names_the_package(bin_directory: Path, tmp_path: Path) -> None:
    """A machine whose Pythons are all too old is told which one is needed."""
    _write_command(bin_directory / "python3", TOO_OLD)
    said = make_venv(bin_directory, tmp_path / "venv")
    assert (
        "cannot find Python 3.11 or later; run: sudo apt-get install python3 python3-venv" in said
    )
