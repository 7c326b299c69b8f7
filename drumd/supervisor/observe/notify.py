"""What the service manager is told: sd_notify(3), as a few datagrams without a library."""

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping

_MICROSECONDS = 1_000_000


class Notifier:
    """Tell systemd how drumd is; without `NOTIFY_SOCKET` every call does nothing.

    No call waits or raises: a service manager that does not listen is no reason to stop serving.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        # A path, or "@" for the abstract namespace; vsock is for virtual machines only.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address.startswith(("@", "/")):
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )

    def send(self, **assignments: str | int) -> bool:
        """Send `KEY=value` lines as one datagram; say whether it was taken."""
        if self._socket is None:
            return False
        lines = (f"{key}={' '.join(str(value).split())}" for key, value in assignments.items())
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True

    def ready(self, status: str) -> bool:
        """Say that all pools serve; `status` is one line for `systemctl status`."""
        return self.send(READY=1, STATUS=status, MAINPID=os.getpid())

    def status(self, status: str) -> bool:
        """Change the one line that `systemctl status` shows."""
        return self.send(STATUS=status)

    def reloading(self) -> bool:
        """Say that the config is read again; `Type=notify-reload` wants the monotonic time too."""
        return self.send(
            RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        )

    def stopping(self, status: str) -> bool:
        """Say that the stop has begun."""
        return self.send(STOPPING=1, STATUS=status)

    def watchdog(self) -> bool:
        """Say that the owner task is alive."""
        return self.send(WATCHDOG=1)

    def extend_timeout(self, seconds: float) -> bool:
        """Say that starting or stopping goes on, and may take `seconds` more from now."""
        return self.send(EXTEND_TIMEOUT_USEC=math.ceil(seconds * _MICROSECONDS))

    def close(self) -> None:
        """Close the socket; later calls do nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def watchdog_interval(environ: Mapping[str, str] | None = None) -> float | None:
    """Return the seconds between two WATCHDOG=1: half of what systemd allows; None without one.

    WATCHDOG_PID says which process is meant (sd_watchdog_enabled(3)); another's is not ours.
    """
    environ = os.environ if environ is None else environ
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(KeyError, ValueError):
        allowed = int(environ["WATCHDOG_USEC"])
        if allowed > 0:
            return allowed / _MICROSECONDS / 2
    return None
