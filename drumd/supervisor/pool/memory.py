"""The memory of one pool: what its workers have for themselves, and how many more would fit."""

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from drumd.supervisor.core.events import RoomMeasured
from drumd.supervisor.core.model import Kind, Pool, Room, Tight, WorkerState
from drumd.supervisor.pool.crew import Crew
from drumd.supervisor.pool.generations import Generations
from drumd.supervisor.pool.surroundings import Surroundings
from drumd.supervisor.processes.memory_room import (
    Free,
    anonymous_memory,
    free_memory,
    in_words,
    private_memory,
)

WORKERS_EVERY = 10.0
"""Seconds between two readings for recycling: each walks a worker's page tables."""
ROOM_EVERY = 1.0
"""Least seconds between two measurements of the room that nobody asked for."""

_Place = tuple[Kind, WorkerState]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was read of a pool's processes: bytes."""

    ready: Collection[int] = ()
    """What is each ready worker's alone."""
    starting: Collection[int] = ()
    """The same of those that have not grown yet."""
    templates: Collection[int] = ()
    """What each template takes without anybody to share it with."""
    free: Free | None = None


class MemoryGauge:
    """Reads memory in threads; tells the owner how many further workers fit when that changes."""

    def __init__(self, crew: Crew, generations: Generations, around: Surroundings) -> None:
        self._crew = crew
        self._generations = generations
        self._around = around
        self._places: dict[int, _Place] = {}
        """What each process was at the last decision, by attempt."""
        self._wanted = False
        """The room matters to this pool."""
        self._scales = False
        self._known: Room | None = None
        """What the owner believes."""
        self._read_at = 0.0
        self._running: asyncio.Task[None] | None = None

    @property
    def _changes_by_itself(self) -> bool:
        """Whether workers may be started or replaced without anybody who asks, and is measured."""
        return self._scales or any(each.settings.recycle.planned for each in self._generations)

    def project(self, pool: Pool) -> None:
        """Measure the room soon, if a worker has started, become ready, or ended."""
        self._scales = pool.policy.scaling is not None
        self._wanted = pool.policy.tight is not Tight.IGNORE
        self._known = pool.room
        places = {worker.attempt: (worker.kind, worker.state) for worker in pool.workers.values()}
        changed = places != self._places
        self._places = places
        if changed and self._wanted:
            self._measure_after(max(0.0, self._read_at + ROOM_EVERY - time.monotonic()))

    def look(self, now: float) -> None:
        """Measure now and then: memory changes without us, and recycling may go by it."""
        if self._changes_by_itself and now - self._read_at >= WORKERS_EVERY:
            self._measure_after(0.0)

    async def measure(self, *, template: bool = False) -> None:
        """Have the owner know the room as it is now, before it is asked for what takes it.

        `template`: a new template comes first, and leaves less of it.
        """
        if self._wanted:
            self._tell(await self._read(), template=template)

    def close(self) -> None:
        """Measure no more."""
        if self._running is not None:
            self._running.cancel()

    def _measure_after(self, wait: float) -> None:
        if self._running is None:
            self._running = self._around.loop.create_task(self._measure_soon(wait))

    async def _measure_soon(self, wait: float) -> None:
        try:
            await asyncio.sleep(wait)
            reading = await self._read()
        finally:
            self._running = None
        if self._wanted:
            self._tell(reading, template=False)

    async def _read(self) -> Reading:
        self._read_at = time.monotonic()
        pids = {
            attempt: (place, handle.pid)
            for attempt, place in self._places.items()
            if (handle := self._crew.handles.get(attempt)) is not None
        }
        private, reading = await asyncio.to_thread(_read, pids)
        for attempt, amount in private.items():
            handle = self._crew.handles.get(attempt)
            if handle is not None:
                handle.private = amount
        return reading

    def _tell(self, reading: Reading, *, template: bool) -> None:
        room = room_of(reading, template=template)
        if room != self._known:
            self._around.post(self._crew.pool, RoomMeasured(room=room))


def room_of(reading: Reading, *, template: bool) -> Room | None:
    """Return how many further workers fit; None when nobody can tell.

    Each takes as much as the largest ready one has for itself. What is starting will grow to that
    too. With `template` a new template comes before them: it takes as much as the largest one that
    there is, or, without any, as a worker.
    """
    need = max(reading.ready, default=0)
    if reading.free is None or not need:
        return None
    words = [f"{in_words(reading.free.amount)} left by {reading.free.bound}"]
    growing = sum(max(0, need - amount) for amount in reading.starting)
    if growing:
        words.append(f"{in_words(growing)} of it for those that start")
    first = max(reading.templates, default=need) if template else 0
    if template:
        words.append(f"a template takes {in_words(first)}")
    words.append(f"a worker takes {in_words(need)}")
    left = max(0, reading.free.amount - growing - first)
    return Room(workers=left // need, why=", ".join(words))


def _read(pids: Mapping[int, tuple[_Place, int]]) -> tuple[Mapping[int, int], Reading]:
    """Return the private memory of the ready workers by attempt, and all that there is to read."""
    ready: dict[int, int] = {}
    starting: list[int] = []
    templates: list[int] = []
    for attempt, ((kind, state), pid) in pids.items():
        if kind is Kind.TEMPLATE:
            templates.append(anonymous_memory(pid) or 0)
        elif state is WorkerState.STARTING:
            starting.append(private_memory(pid) or 0)
        elif state is WorkerState.READY and (amount := private_memory(pid)) is not None:
            ready[attempt] = amount
    return ready, Reading(
        ready=ready.values(), starting=starting, templates=templates, free=free_memory()
    )
