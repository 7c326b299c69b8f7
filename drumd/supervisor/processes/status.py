"""How a process ended."""

import os
import signal
from dataclasses import dataclass
from resource import struct_rusage


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """An exit code or a signal, never both, and what the process had used.

    Neither: somebody else has waited for it.
    """

    code: int | None = None
    signal: int | None = None
    core_dumped: bool = False
    cpu: float = 0.0
    """Seconds of CPU time, its waited-for children's included."""

    @classmethod
    def of(cls, wait_status: int, usage: struct_rusage | None = None) -> "ExitStatus":
        """Read a status as wait4(2) gives it."""
        signalled = os.WIFSIGNALED(wait_status)
        return cls(
            code=None if signalled else os.WEXITSTATUS(wait_status),
            signal=os.WTERMSIG(wait_status) if signalled else None,
            core_dumped=signalled and os.WCOREDUMP(wait_status),
            cpu=usage.ru_utime + usage.ru_stime if usage else 0.0,
        )

    def describe(self) -> str:
        """Return `exit 3` or `killed by SIGSEGV (core dumped)`."""
        if self.signal is None and self.code is None:
            return "its end went unseen"
        if self.signal is None:
            return f"exit {self.code}"
        return f"killed by {signal_name(self.signal)}{' (core dumped)' * self.core_dumped}"


def signal_name(number: int) -> str:
    """Return a signal's name: `SIGTERM`, `SIGRTMIN+5`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else str(number)
