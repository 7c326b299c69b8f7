"""What a test needs from the machine: skip with the command that helps, or fail where all is due.

With `STRICT_TESTS=1`, as in CI, nothing is skipped: a missing tool is a failure, so that a
test that silently stopped running is noticed. (Not `DRUMD_…`: those are drumd's own settings.)
"""

import functools
import os
import shutil
import subprocess
from typing import NoReturn

import pytest


def needs(tool: str, package: str) -> str:
    """Return the path of a command; without it, name the Debian package that has it."""
    path = shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        _lacks(f"no {tool} here; to run this test: apt-get install {package}")
    return path


def needs_root() -> None:
    """Go on only as root: namespaces and mounts are not for everyone."""
    if os.geteuid() != 0:
        _lacks("not root; to run this test: sudo make test")


def needs_namespaces() -> None:
    """Go on only where namespaces can be made; containers often forbid it."""
    needs("unshare", "util-linux")
    needs("nsenter", "util-linux")
    needs_root()
    refusal = _namespaces_refusal()
    if refusal:
        _lacks(f"no namespaces here ({refusal}); run the tests outside of a container")


@functools.cache
def _namespaces_refusal() -> str:
    attempt = subprocess.run(
        ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return attempt.stderr.strip()


def _lacks(reason: str) -> NoReturn:
    if os.environ.get("STRICT_TESTS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
