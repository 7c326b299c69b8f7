"""What is built and installed: the sdist, the wheel from it, and an environment with it."""

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from drumd import __version__

CHECKOUT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command; its output goes with the failure."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, output: Path) -> Path:
    """Build one distribution with what is installed here, without a network."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", str(source)]
    run(*command, "--outdir", output, cwd=output)
    (built,) = output.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", CHECKOUT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the sdist's own files: what the sdist lacks is missed here."""
    unpacked = tmp_path_factory.mktemp("source")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment of its own; return that environment's directory.

    The dependencies come from the environment that runs the tests, by a .pth file: fetching them
    anew would test the network. An editable drumd of that environment is shadowed by the wheel,
    since a .pth file's directories come after site-packages.
    """
    directory = tmp_path_factory.mktemp("clean")
    venv.create(directory, symlinks=True, with_pip=False)
    python = directory / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=directory)
    site_packages = Path(run(python, "-c", _PURELIB, cwd=directory).strip())
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return directory


_PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"

_IMPORT_ALL = """
import importlib, pkgutil, sys, drumd
for module in pkgutil.walk_packages(drumd.__path__, "drumd."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
assert drumd.__file__.startswith(sys.prefix), drumd.__file__
"""


def test_sdist_has_what_it_takes_to_test_and_run(sdist: Path) -> None:
    """The sdist holds the tests, the units, the examples, the locked versions and the licence."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "Makefile",
        "examples/diabetes/train.py",
        "requirements/serve.txt",
        "systemd/drumd.service",
        "tests/e2e/test_packaging.py",
    } <= names


def test_wheel_holds_drumd_alone(wheel: Path) -> None:
    """The wheel installs one top-level package, with its type marker and the licence."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = f"drumd-{__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"drumd", metadata}
    assert {"drumd/py.typed", f"{metadata}/licenses/LICENSE"} <= names


def test_every_module_imports_when_installed(clean: Path) -> None:
    """Each module of the installed wheel imports, and none is missing from it."""
    imported = set(run(clean / "bin/python", "-c", _IMPORT_ALL, cwd=clean).split())
    written = {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
        for path in (CHECKOUT / "drumd").rglob("*.py")
        if path.name != "__main__.py"
    }
    assert imported == written - {"drumd"}


@pytest.mark.parametrize("command", ["drumd", "drumctl"])
def test_commands_are_installed(clean: Path, command: str) -> None:
    """Both commands are on the PATH after an installation, and tell their version."""
    assert __version__ in run(clean / "bin" / command, "--version", cwd=clean)


def test_installed_package_runs_as_a_module(clean: Path) -> None:
    """`python -m drumd` is the command drumd."""
    assert __version__ in run(clean / "bin/python", "-m", "drumd", "--version", cwd=clean)
