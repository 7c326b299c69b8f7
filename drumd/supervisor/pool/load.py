"""The load of one pool: how busy its workers are, and how many connections wait for them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drumd.supervisor.core.events import LoadMeasured
from drumd.supervisor.core.model import Kind, Pool
from drumd.supervisor.pool.crew import Crew
from drumd.supervisor.pool.watching import ready_workers, record_of
from drumd.wire.scoreboard import Scoreboard

TELL_EVERY = 1.0
"""Seconds over which the load is averaged: the kernel counts CPU time in hundredths."""
BEAT_INTERVAL = 0.25
"""Seconds between two heartbeats (`drumd.wire.spec.WorkerSpec.beat_interval`)."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class _Worker:
    """What was seen of one worker since the load was last told."""

    cpu: float | None
    """Seconds of CPU time that it had used by then."""
    filled: float = 0.0
    """Sum of the shares of its threads that were in requests, over `looks`."""
    late: float = 0.0
    """Sum of the shares of time that its loop was late by."""
    looks: int = 0


class LoadGauge:
    """Watches the load of a pool that scales by itself."""

    def __init__(self, crew: Crew, board: Scoreboard, queued: Callable[[], int]) -> None:
        self._crew = crew
        self._board = board
        self._queued = queued
        self._since: float | None = None
        self._workers: dict[int, _Worker] = {}

    def look(self, pool: Pool, now: float) -> LoadMeasured | None:
        """Look at all ready workers in slots; return the load once a second."""
        if pool.policy.scaling is None:
            self._since = None
            return None
        pids = {}
        for worker, handle in ready_workers(pool, self._crew):
            if worker.kind is not Kind.SLOT:
                continue
            pids[worker.attempt] = handle.pid
            record = record_of(self._board, handle)
            seen = self._workers.get(worker.attempt)
            if seen is None:
                seen = self._workers[worker.attempt] = _Worker(cpu_seconds(handle.pid))
            # The lag is told by the beat after it; while the loop is blocked there is none.
            lag = max(record.lag_ns / 1e9, now - record.beat_ns / 1e9 - BEAT_INTERVAL)
            seen.looks += 1
            seen.filled += min(1.0, record.in_flight / record.capacity) if record.capacity else 0.0
            seen.late += lag / (lag + BEAT_INTERVAL)
        if self._since is None:
            self._since, self._workers = now, {}
            return None
        if now - self._since < TELL_EVERY or not pids:
            return None
        elapsed, self._since = now - self._since, now
        shares, seen_before, self._workers = [], self._workers, {}
        for attempt, pid in pids.items():
            cpu = cpu_seconds(pid)
            shares.append(_busy(seen_before[attempt], cpu, elapsed))
            self._workers[attempt] = _Worker(cpu)
        return LoadMeasured(busy=sum(shares) / len(shares), queued=self._queued())


def _busy(seen: _Worker, cpu: float | None, elapsed: float) -> float:
    """Return the largest of what tells that a worker is busy, from 0 to 1."""
    used = 0.0 if cpu is None or seen.cpu is None else max(0.0, cpu - seen.cpu) / elapsed
    looks = max(1, seen.looks)
    return min(1.0, max(used, seen.filled / looks, seen.late / looks))


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time that a process has used (proc_pid_stat(5)); None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name is in parentheses and may itself hold some.
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS
