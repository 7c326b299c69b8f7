"""The watch over one pool's ready workers: from looks at their instruments to events."""

import time
from collections.abc import Iterator

from drumd.supervisor.core.events import Event, Hung, Recovered, Stalled
from drumd.supervisor.core.model import Kind, Pool, Worker, WorkerState
from drumd.supervisor.health.watch import AwakeClock, Limits, Pulse, feel, judge
from drumd.supervisor.pool.crew import Crew
from drumd.supervisor.pool.generations import Generations
from drumd.supervisor.pool.handle import Handle
from drumd.wire.records import Record, read_record
from drumd.wire.scoreboard import Scoreboard


def ready_workers(pool: Pool, crew: Crew) -> Iterator[tuple[Worker, Handle]]:
    """Yield the ready workers, spares included, templates not, with their handles."""
    for attempt, handle in crew.handles.items():
        worker = pool.workers.get(attempt)
        if (
            worker is not None
            and worker.state is WorkerState.READY
            and worker.kind is not Kind.TEMPLATE
        ):
            yield worker, handle


def record_of(board: Scoreboard, handle: Handle) -> Record:
    """Return what a worker's record says now; an empty one for a template, which has no lease."""
    return Record() if handle.lease is None else read_record(board, handle.lease)


class Watch:
    """Judges heartbeats."""

    def __init__(
        self, crew: Crew, generations: Generations, board: Scoreboard, interval: float
    ) -> None:
        self._crew = crew
        self._generations = generations
        self._board = board
        self._clock = AwakeClock(interval, time.monotonic())

    @property
    def awake(self) -> float:
        """Seconds in which the supervisor has run, as pulses count them."""
        return self._clock.awake

    def resume(self, awake: float) -> None:
        """Go on from before a re-exec: what passed between is nobody's lateness."""
        self._clock = AwakeClock(self._clock.interval, time.monotonic(), awake)

    def look(self, pool: Pool, now: float) -> Iterator[Event]:
        """Yield what is to be decided about workers that stall, recover or hang."""
        awake = self._clock.look(now)
        for worker, handle in ready_workers(pool, self._crew):
            limits = self._generations[handle.generation].limits
            event = self._judge(handle, worker, limits, now, awake)
            if event is not None:
                yield event

    def _judge(
        self, handle: Handle, worker: Worker, limits: Limits, now: float, awake: float
    ) -> Event | None:
        record = record_of(self._board, handle)
        if handle.pulse is None:
            # It has just become ready: its lateness counts from here.
            handle.pulse = Pulse(record.beat_ns, awake)
        handle.pulse = feel(
            handle.pulse, record, now=now, awake=awake, interval=self._clock.interval
        )
        verdict = judge(handle.pulse, record, limits, now=now, awake=awake)
        if verdict.hung:
            return Hung(attempt=worker.attempt, why=verdict.hung)
        if verdict.stalled and not worker.stalled:
            return Stalled(attempt=worker.attempt, late=verdict.late, busy=verdict.busy)
        if worker.stalled and not verdict.stalled:
            return Recovered(attempt=worker.attempt)
        return None
