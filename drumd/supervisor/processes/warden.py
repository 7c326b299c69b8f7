"""The warden: a tiny process that ends a supervisor's workers when the supervisor is killed."""

import fcntl
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drumd.supervisor.processes.spawn import SpawnError

_PROGRAM = str(Path(__file__).with_name("wardenproc.py"))
_PIDFD = 3


@dataclass(frozen=True, slots=True)
class Warden:
    """A running warden. Watch `pid` (`Exits.watch`) and start another one if it ends."""

    pid: int

    def end(self) -> None:
        """Kill it: for a supervisor that hands over to another one. Else it ends by itself."""
        os.kill(self.pid, signal.SIGKILL)


def needed(environ: Mapping[str, str]) -> bool:
    """Say whether something else already cleans up after this process.

    As PID 1, the kernel ends all processes of the namespace (pid_namespaces(7)). As the main
    process of a systemd unit, systemd ends all of its cgroup (systemd.kill(5)); SYSTEMD_EXEC_PID
    tells that from a terminal's shell, which inherits the other variables of systemd's.
    """
    pid = os.getpid()
    if pid == 1:
        return False
    return not ("INVOCATION_ID" in environ and environ.get("SYSTEMD_EXEC_PID") == str(pid))


def start_warden(instance: str) -> Warden:
    """Start the warden of this process; raise `SpawnError`.

    It has a session of its own and an empty environment (so no mark), holds nothing but a pidfd,
    and ends by itself after this process: after a clean stop at once, since nothing is left. It
    goes on over a re-exec of this process.
    """
    try:
        pidfd = os.pidfd_open(os.getpid())
        high = fcntl.fcntl(pidfd, fcntl.F_DUPFD_CLOEXEC, _PIDFD + 1)
    except OSError as error:
        raise SpawnError(f"cannot start the warden: {error.strerror}") from error
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", _PROGRAM, str(_PIDFD), instance],
            # The library path, since an interpreter may need it to find its own libpython.
            {k: os.environ[k] for k in ("LD_LIBRARY_PATH",) if k in os.environ},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, high, _PIDFD),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
    except OSError as error:
        raise SpawnError(f"cannot start the warden: {error.strerror}") from error
    finally:
        os.close(pidfd)
        os.close(high)
    return Warden(pid)
