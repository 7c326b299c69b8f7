"""What is built and installed: the sdist, the wheel from it, and an environment with it."""

import email
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from drumd import __version__
from tests.e2e.daemon import APPS, Daemon, free_port
from tests.e2e.interpreters import interpreter_without
from tests.e2e.visitor import Address

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


@pytest.fixture(scope="module")
def required(wheel: Path) -> list[Requirement]:
    """Return what the wheel says that it requires."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"drumd-{__version__}.dist-info/METADATA").decode()
    return [
        Requirement(line) for line in email.message_from_string(text).get_all("Requires-Dist", [])
    ]


def names_of(requirements: Iterable[Requirement], extra: str = "") -> set[str]:
    """Return what is installed with that extra, or with none."""
    return {
        each.name
        for each in requirements
        if each.marker is None or each.marker.evaluate({"extra": extra})
    }


@pytest.mark.parametrize(
    ("name", "lowest"),
    [
        ("pydantic", "2.5"),
        ("fastapi", "0.109"),
        ("starlette", "0.36"),
        ("uvicorn", "0.27"),
        ("httpx", "0.27"),
        ("prometheus-client", "0.19"),
        ("uvloop", "0.19"),
    ],
)
def test_no_older_version_is_taken(required: list[Requirement], name: str, lowest: str) -> None:
    """These packages have a lowest version, wherever they are required."""
    found = [each for each in required if each.name == name]
    assert found
    for each in found:
        bounds = [Version(one.version) for one in each.specifier if one.operator in (">=", "==")]
        assert bounds, each
        assert max(bounds) >= Version(lowest)
        assert name != "uvicorn" or each.marker is None or each.extras == {"standard"}


def test_each_extra_brings_what_it_is_for(required: list[Requirement]) -> None:
    """The base has no data library; those of a server or a kind of model bring these as well."""
    extras = ("model", "sklearn", "onnx", "flask", "gunicorn", "fastapi", "otel")
    brought = {extra: names_of(required, extra) for extra in extras}
    data = {"pandas", "scipy", "pyarrow", "httpx", "pyyaml", "python-multipart"}
    for extra in extras:
        assert (data <= brought[extra]) == (extra != "otel"), extra
    assert {"scikit-learn", "joblib"} <= brought["sklearn"]
    assert "onnxruntime" in brought["onnx"]
    assert {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"} <= brought["otel"]
    apart = {*data, "scikit-learn", "onnxruntime", "opentelemetry-sdk", "gevent", "watchfiles"}
    assert names_of(required).isdisjoint(apart)


def test_each_extra_that_is_named_exists(wheel: Path) -> None:
    """What messages and documents tell to install, pip knows."""
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"drumd-{__version__}.dist-info/METADATA").decode()
    extras = set(email.message_from_string(text).get_all("Provides-Extra", []))
    server_types = {"flask", "gunicorn", "fastapi"}
    sources = [*(CHECKOUT / "drumd").rglob("*.py"), *(CHECKOUT / "docs").glob("*.md")]
    named = {
        extra
        for path in (*sources, CHECKOUT / "README.md")
        for found in re.findall(r"drumd\[([a-z,]+)\]", path.read_text())
        for extra in found.split(",")
    }
    assert {"model", "sklearn", "onnx", "otel", "gevent", "reload"} <= named
    assert named | server_types <= extras


OF_EXTRAS = (
    "gevent", "httpcore", "httpx", "joblib", "multipart", "numpy", "onnxruntime", "pandas",
    "pyarrow", "python_multipart", "scipy", "sklearn", "watchfiles", "yaml",
)  # fmt: skip


def test_the_base_install_supervises_any_app(tmp_path: Path, daemon: Callable[..., Daemon]) -> None:
    """Without the packages of any extra, ASGI and WSGI apps are served."""
    python = interpreter_without(tmp_path / "venv", OF_EXTRAS)
    for app in ("unruly:asgi", "unruly:wsgi"):
        port = free_port()
        bind = ("--bind", f"127.0.0.1:{port}")
        started = daemon("serve", app, "--app-dir", str(APPS), *bind, python=python)
        started.wait_ready(1, "web")
        with Address(port).connect() as connection:
            assert connection.get("/").status == 200
