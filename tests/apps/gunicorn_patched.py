"""Apps that tell what they were given."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

SOCKET = socket.socket.__module__

LIST = """
import os
for fd in os.listdir("/proc/self/fd"):
    if os.path.lexists(f"/proc/self/fd/{fd}"):
        print(os.readlink(f"/proc/self/fd/{fd}"))
"""


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [f"patched={SOCKET.startswith('gevent')}".encode()]


def spawns(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    names = subprocess.run(
        [sys.executable, "-c", LIST], stdout=subprocess.PIPE, close_fds=False, check=True
    ).stdout
    start_response("200 OK", [])
    return [names]
