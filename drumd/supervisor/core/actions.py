"""Actions: what to do, in the imperative. The shell carries them out in their order."""

from dataclasses import dataclass

from drumd.exitcodes import DaemonExit
from drumd.supervisor.core.model import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn:
    """Start a worker, or a template. Its deadline is armed already."""

    attempt: int
    slot: int
    generation: int
    kind: Kind = Kind.SLOT
    template: int | None = None
    """The attempt of the ready template to fork it from; None: a fresh interpreter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Tell a worker to finish what it has, until `deadline` (monotonic seconds)."""

    attempt: int
    deadline: float
    linger: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpStacks:
    """Have a worker write the stacks of all its threads."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminate:
    """Send SIGTERM to a worker's process group."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Send SIGKILL to a worker's process group, and to what left the group."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndDaemon:
    """Stop the daemon, which then exits with `code`."""

    code: DaemonExit
    reason: str


Action = Spawn | Drain | DumpStacks | Terminate | Kill | EndDaemon
