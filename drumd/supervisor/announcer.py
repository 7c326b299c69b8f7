"""The announcer: journal, log, tallies and systemd hear from here what happened."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from drumd.supervisor.admin.desk import Desk
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import Operation, Pool
from drumd.supervisor.core.views import pool_reason, pool_state
from drumd.supervisor.observe.journal import Journal
from drumd.supervisor.observe.logging import Logs
from drumd.supervisor.observe.notify import Notifier, watchdog_interval
from drumd.supervisor.owner import all_ready
from drumd.supervisor.pool.hands import Hands

EXTENSION = 15.0
"""Seconds that systemd is asked for at a time while apps load or drain; well above a look."""
EXTEND_EVERY = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnnouncer:
    """What systemd has been told, over a re-exec: it hears nothing of that twice."""

    status: str
    ready_told: bool
    reloading: bool = False


class Announcer:
    """Tells everyone who listens (`owner.Audience`). Nothing here waits."""

    def __init__(
        self,
        journal: Journal,
        logs: Logs,
        notifier: Notifier,
        desk: Desk,
        hands: Mapping[str, Hands],
    ) -> None:
        self._journal = journal
        self._logs = logs
        self._notifier = notifier
        self._desk = desk
        self._hands = hands
        self._status = ""
        self._ready_told = False
        self._stopping = False
        self._reloading = False
        self._watchdog_every = watchdog_interval()
        self._watchdog_due = 0.0
        self._extension_due = 0.0

    def keep(self) -> KeptAnnouncer:
        """Return what `resume` needs."""
        return KeptAnnouncer(
            status=self._status, ready_told=self._ready_told, reloading=self._reloading
        )

    def resume(self, kept: KeptAnnouncer) -> None:
        """Go on from what was told before a re-exec."""
        self._status = kept.status
        self._ready_told = kept.ready_told
        self._reloading = kept.reloading

    def tell(self, fact: Fact) -> None:
        """Record a fact, log it, and count it where it counts."""
        self._logs.log_fact(self._journal.record(self._with_pid(fact)))
        if fact.event is Happened.WORKER_EXITED:
            self._hands[str(fact.pool)].crew.tally.exits[str(fact.extra["cause"])] += 1
        elif fact.event is Happened.WORKER_READY:
            self._hands[str(fact.pool)].crew.tally.started(float(fact.extra["took"] or 0.0))
        elif fact.event is Happened.DAEMON_STOPPING:
            self._stopping = True
            self._notifier.stopping(fact.reason)

    def _with_pid(self, fact: Fact) -> Fact:
        """Add the worker's pid, which decisions do not know, once there is one."""
        if fact.pool is None or fact.attempt is None or "pid" in fact.extra:
            return fact
        pids = self._hands[fact.pool].crew.pids
        ended = fact.event in (Happened.WORKER_EXITED, Happened.TEMPLATE_EXITED)
        pid = pids.pop(fact.attempt, None) if ended else pids.get(fact.attempt)
        return fact if pid is None else replace(fact, extra={"pid": pid, **fact.extra})

    def operations(self, pool: str, operations: Iterable[Operation]) -> None:
        """Let the desk know how operations stand."""
        self._desk.update(pool, operations)

    def changed(self, pools: Mapping[str, Pool]) -> None:
        """Tell systemd the state in words, and once that all pools are ready."""
        if not self._ready_told and all_ready(pools):
            self._ready_told = True
            self._notifier.ready(_status_line(pools))
            self.tell(Fact(event=Happened.DAEMON_READY, reason=_status_line(pools)))
        line = _status_line(pools)
        if line != self._status:
            self._status = line
            self._notifier.status(line)

    def alive(self, pools: Mapping[str, Pool]) -> None:
        """Feed systemd's watchdog, and ask it for patience while apps load or drain."""
        now = time.monotonic()
        if self._watchdog_every is not None and now >= self._watchdog_due:
            self._watchdog_due = now + self._watchdog_every / 2
            self._notifier.watchdog()
        waiting = self._stopping or self._reloading or not self._ready_told
        if waiting and now >= self._extension_due and any(p.workers for p in pools.values()):
            self._extension_due = now + EXTEND_EVERY
            self._notifier.extend_timeout(EXTENSION)

    def reloading(self) -> None:
        """Tell systemd that a reload has begun; before it is ready it expects none."""
        if self._ready_told:
            self._reloading = True
            self._notifier.reloading()

    def reloaded(self) -> None:
        """Tell systemd that it is over."""
        if self._reloading and not self._stopping:
            self._notifier.ready(self._status)
        self._reloading = False


def _status_line(pools: Mapping[str, Pool]) -> str:
    return "; ".join(
        f"{name} {pool_state(pool).value}: {pool_reason(pool)}" for name, pool in pools.items()
    )
