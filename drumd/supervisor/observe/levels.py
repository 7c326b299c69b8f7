"""How much an event matters: the level that it is logged and shown at."""

from drumd.supervisor.core.facts import Happened
from drumd.supervisor.core.model import Cause
from drumd.supervisor.observe.journal import Entry

_LEVELS = {
    Happened.CONFIG_WARNING: "warning",
    Happened.POOL_DEGRADED: "warning",
    Happened.POOL_LOST: "error",
    Happened.SLOT_BACKOFF: "warning",
    Happened.SLOT_FAILED: "error",
    Happened.WORKER_STALLED: "warning",
    Happened.WORKER_HUNG: "error",
    Happened.WORKER_STACKS: "warning",
    Happened.WORKER_KILLING: "warning",
    Happened.WORKER_FAILED: "error",
    Happened.WORKER_STRAYS: "warning",
    Happened.ROLLOUT_ABORTED: "error",
    Happened.OPERATION_FAILED: "error",
}
"""Events that are not `info`."""
_EXITS = frozenset({Happened.WORKER_EXITED, Happened.TEMPLATE_EXITED})
_EXPECTED_CAUSES = frozenset({Cause.OPERATOR, Cause.SHUTDOWN, Cause.ROLLOUT, Cause.RECYCLED})
"""Values of such a fact's `cause` with which it is no warning."""
_ENDINGS = frozenset({Happened.DAEMON_STOPPING, Happened.DAEMON_STOPPED})
"""Events whose `exit`, where it is there and not 0, tells that nobody asked for the end."""


def level_of(entry: Entry) -> str:
    """Return the log level of an entry's event."""
    if entry.fact.event in _EXITS:
        return "info" if entry.fact.extra.get("cause") in _EXPECTED_CAUSES else "warning"
    if entry.fact.event in _ENDINGS:
        return "error" if entry.fact.extra.get("exit", 0) else "info"
    return _LEVELS.get(entry.fact.event, "info")
