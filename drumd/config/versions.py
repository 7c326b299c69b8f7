"""Libraries that are too old for Pydantic 2, which drumd's servers bring along."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from drumd.config.problems import Problem

FIRST_WITH_PYDANTIC_2 = {"langchain": "0.1.0", "mlflow": "2.9.0", "ray": "2.8.0"}

_VERSION = re.compile(r"v?(?:\d+!)?(\d+(?:\.\d+)*)[._-]?([a-z]*)")
_BEFORE_RELEASE = frozenset({"a", "alpha", "b", "beta", "c", "rc", "pre", "preview", "dev"})


def too_old() -> Iterator[Problem]:
    """Yield what is installed here and too old. Nothing of it is imported."""
    for name, first in FIRST_WITH_PYDANTIC_2.items():
        installed = _installed(name)
        if installed and _parsed(installed) < _parsed(first):
            extra = "[serve]" if name == "ray" else ""
            yield Problem(
                key=f"{name} {installed}",
                message=f"is too old for Pydantic 2: {first} is the first that supports it",
                suggestion=f"pip install '{name}{extra}>={first}'",
            )


def _installed(name: str) -> str:
    try:
        return version(name) or ""
    except (PackageNotFoundError, KeyError):  # KeyError: a dist-info without a version
        return ""


def _parsed(text: str) -> tuple[list[int], bool]:
    """Return what compares as versions do (PEP 440): a pre-release is less than its release."""
    found = _VERSION.match(text.strip().lower())
    if found is None:
        return [], False
    release = [int(part) for part in found[1].split(".")]
    while release and release[-1] == 0:
        release.pop()
    return release, found[2] not in _BEFORE_RELEASE
