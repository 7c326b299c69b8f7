"""The warden's program: `python -I -S wardenproc.py PIDFD INSTANCE`.

Waits for the process behind PIDFD to die, without a wake-up until then, and SIGKILLs every process
that carries the mark of INSTANCE, in whatever session. Only built-in modules are imported: it lives
as long as the supervisor and shall weigh next to nothing. Nothing of drumd is imported either.
"""

import _signal  # type: ignore[import-not-found]  # built in, unlike `signal`, which pulls in enum
import posix  # built in, unlike `os`
import select
import sys

QUICK, PATIENT = (50, 2), (600, 100)
"""Looks and the milliseconds between them: dying takes a moment. Then a process that will not die
(it hangs in the kernel, on a dead disk) is left to its fate."""


def is_marked(pid: str, entry: bytes) -> bool:
    """Say whether a process was started with the mark; raise OSError when that can't be read."""
    with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:  # noqa: PTH123 - no pathlib here
        environment = file.readall()
    return any(v == entry or v.startswith(entry + b"/") for v in environment.split(b"\0"))


def kill_if_marked(pid: str, entry: bytes) -> bool:
    """SIGKILL a marked process; the second look makes sure that the pid is not another's by now."""
    try:
        if not is_marked(pid, entry):
            return False
        pidfd = posix.pidfd_open(int(pid))
        try:
            if not is_marked(pid, entry):
                return False
            _signal.pidfd_send_signal(pidfd, _signal.SIGKILL)
        finally:
            posix.close(pidfd)
    except OSError:  # gone, or another user's
        return False
    return True


def main(pidfd: int, instance: str) -> None:
    """Wait, then kill until nothing is left."""
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_IGN)  # a stop of everything must not stop the warden
    entry = f"DRUMD_INSTANCE={instance}".encode()
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    waiting.poll()
    idle = select.poll()
    for looks, pause in (QUICK, PATIENT):
        for _ in range(looks):
            pids = [name for name in posix.listdir("/proc") if name.isdigit()]
            if not sum([kill_if_marked(pid, entry) for pid in pids]):
                return
            idle.poll(pause)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
