"""The machine: its CPUs and who of them serves, and what the figures hold for."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("drumd", "gunicorn", "uvicorn", "uvicorn-worker", "granian", "uvloop", "httptools")

CPUS = sorted(os.sched_getaffinity(0))
LOAD_CPUS = frozenset(CPUS[:1])
"""The load generator's own CPU, so that it takes none of the servers' time."""
SERVER_CPUS = frozenset(CPUS[1:] or CPUS)


@contextmanager
def on(cpus: frozenset[int]) -> Iterator[None]:
    """Start processes on `cpus`: an affinity is inherited."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe() -> dict[str, str]:
    """Return what the figures depend on, by name."""
    return {
        "CPUs": f"{len(CPUS)} x {_cpu_model()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "load average at the start": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # drumd is found without being installed when this runs in its checkout.
        return "from the checkout" if package == "drumd" else "not installed"
