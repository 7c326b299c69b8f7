"""The announcer: journal, log, tallies and systemd hear from here what happened."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from drumd.supervisor.admin.desk import Desk
from drumd.supervisor.admin.picture import picture
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import Operation, Pool
from drumd.supervisor.core.rollouts import FAILURES
from drumd.supervisor.core.views import pool_reason, pool_state
from drumd.supervisor.observe.journal import Journal
from drumd.supervisor.observe.logging import Logs
from drumd.supervisor.observe.notify import Notifier, watchdog_interval
from drumd.supervisor.owner import all_ready
from drumd.supervisor.pool.hands import Hands
from drumd.supervisor.pool.tally import Tally

EXTENSION = 15.0
"""Seconds that systemd is asked for at a time while apps load or drain; well above a look."""
EXTEND_EVERY = 5.0
_ENDS = (Happened.WORKER_EXITED, Happened.TEMPLATE_EXITED)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnnouncer:
    """What systemd has been told, which hears nothing of it twice, and what is counted."""

    status: str
    ready_told: bool
    reloading: bool = False
    rolling: frozenset[str] = frozenset()
    """Pools with a rollout that has not ended."""


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
        self._pools: Mapping[str, Pool] = {}
        self._last_lines: dict[str, tuple[str, ...]] = {}
        """By pool: of the worker whose failure is just being decided about."""
        self._rolling: set[str] = set()
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
            status=self._status,
            ready_told=self._ready_told,
            reloading=self._reloading,
            rolling=frozenset(self._rolling),
        )

    def resume(self, kept: KeptAnnouncer) -> None:
        """Go on from what was told before a re-exec."""
        self._status = kept.status
        self._ready_told = kept.ready_told
        self._reloading = kept.reloading
        self._rolling = set(kept.rolling)

    def tell(self, fact: Fact) -> None:
        """Record a fact, log it, and count it where it counts."""
        hands = None if fact.pool is None else self._hands.get(fact.pool)
        if hands is not None and fact.event in _ENDS and fact.attempt is not None:
            lines = hands.crew.last_lines.pop(fact.attempt, ())
            if fact.extra.get("cause") in FAILURES:
                self._last_lines[hands.crew.pool] = lines
        self._logs.log_fact(self._journal.record(self._with_pid(self._explained(fact))))
        if fact.event is Happened.DAEMON_STOPPING:
            self._stopping = True
            self._notifier.stopping(fact.reason)
        elif hands is not None:
            self._count(fact, hands.crew.pool, hands.crew.tally)

    def _count(self, fact: Fact, pool: str, tally: Tally) -> None:
        match fact.event:
            case Happened.WORKER_EXITED:
                tally.exits[str(fact.extra["cause"])] += 1
            case Happened.WORKER_READY:
                tally.started(float(fact.extra["took"] or 0.0))
            case Happened.ROLLOUT_STARTED:
                if pool in self._rolling:  # nobody told how that one ended: it made way for this
                    tally.rollouts["superseded"] += 1
                self._rolling.add(pool)
            case Happened.ROLLOUT_DONE | Happened.ROLLOUT_ABORTED:
                done = fact.event is Happened.ROLLOUT_DONE
                tally.rollouts["done" if done else "aborted"] += 1
                self._rolling.discard(pool)

    def _explained(self, fact: Fact) -> Fact:
        """Add what decisions do not know: a failed worker's last lines, and why stacks came."""
        if fact.event is Happened.ROLLOUT_ABORTED:
            lines = self._last_lines.get(str(fact.pool), ())
            return replace(fact, extra={**fact.extra, "last_lines": "\n".join(lines) or None})
        if fact.event is Happened.WORKER_STACKS:
            return replace(fact, reason=f"{self._why_stacks(fact)}\n{fact.reason}")
        return fact

    def _why_stacks(self, fact: Fact) -> str:
        pool = self._pools.get(str(fact.pool))
        worker = None if pool is None or fact.attempt is None else pool.workers.get(fact.attempt)
        if worker is None or worker.cause is None:
            return "where its threads are, since somebody asked by a signal"
        return f"where its threads were, since it is {worker.reason}"

    def _with_pid(self, fact: Fact) -> Fact:
        """Add the worker's pid, which decisions do not know, once there is one."""
        # What is cleared away after the workers of a pool that is gone is told of, too.
        hands = self._hands.get(fact.pool or "")
        if hands is None or fact.attempt is None or "pid" in fact.extra:
            return fact
        pids = hands.crew.pids
        pid = pids.pop(fact.attempt, None) if fact.event in _ENDS else pids.get(fact.attempt)
        return fact if pid is None else replace(fact, extra={"pid": pid, **fact.extra})

    def operations(self, pool: str, operations: Iterable[Operation]) -> None:
        """Let the desk know how operations stand."""
        self._desk.update(pool, operations, last_lines=self._last_lines.pop(pool, ()))

    def changed(self, pools: Mapping[str, Pool]) -> None:
        """Have the desk draw what goes on; tell systemd the state, and once that all are ready."""
        self._pools = pools
        for pool in pools.values():
            for operation in pool.operations[:1]:
                self._desk.draw(operation.id, picture(pool, operation))
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
