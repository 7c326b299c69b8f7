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


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a thread has read."""

    private: Mapping[int, int]
    """Bytes that are each worker's alone, by attempt."""
    templates: tuple[int, ...]
    """Bytes that a template of this pool takes without anybody to share them with."""
    free: Free | None


class MemoryGauge:
    """Reads memory in threads; tells the owner how many further workers fit when that changes."""

    def __init__(self, crew: Crew, generations: Generations, around: Surroundings) -> None:
        self._crew = crew
        self._generations = generations
        self._around = around
        self._workers: dict[int, Kind] = {}
        """Who was ready at the last measurement of the room, by attempt."""
        self._wanted = False
        """The room matters to this pool."""
        self._room: Room | None = None
        self._measured_at = 0.0
        self._read_at = 0.0
        self._running: asyncio.Task[None] | None = None

    def project(self, pool: Pool) -> None:
        """Measure the room soon, if a worker has become ready or ended since the last time."""
        self._wanted = pool.policy.tight is not Tight.IGNORE
        ready = {
            worker.attempt: worker.kind
            for worker in pool.workers.values()
            if worker.state is WorkerState.READY
        }
        changed = ready != self._workers
        self._workers = ready
        if changed and self._wanted and self._running is None:
            wait = max(0.0, self._measured_at + ROOM_EVERY - time.monotonic())
            self._running = self._around.loop.create_task(self._measure_after(wait))

    def look(self, now: float) -> None:
        """Read the workers' memory, now and then, where recycling goes by it."""
        if now - self._read_at < WORKERS_EVERY or self._running is not None:
            return
        if any(each.settings.recycle.max_memory is not None for each in self._generations):
            self._running = self._around.loop.create_task(self._measure_after(0.0))

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

    async def _measure_after(self, wait: float) -> None:
        try:
            await asyncio.sleep(wait)
            reading = await self._read()
        finally:
            self._running = None
        if self._wanted:
            self._tell(reading, template=False)

    async def _read(self) -> _Reading:
        pids = {
            attempt: (kind, handle.pid)
            for attempt, kind in self._workers.items()
            if (handle := self._crew.handles.get(attempt)) is not None
        }
        reading = await asyncio.to_thread(_read, pids)
        self._measured_at = self._read_at = time.monotonic()
        for attempt, amount in reading.private.items():
            handle = self._crew.handles.get(attempt)
            if handle is not None:
                handle.private = amount
        return reading

    def _tell(self, reading: _Reading, *, template: bool) -> None:
        room = room_of(reading.private.values(), reading.templates, reading.free, template=template)
        if room != self._room:
            self._room = room
            self._around.post(self._crew.pool, RoomMeasured(room=room))


def room_of(
    private: Collection[int], templates: Collection[int], free: Free | None, *, template: bool
) -> Room | None:
    """Return how many further workers fit beside those that take `private` bytes each.

    With `template` a new template comes before them; it takes as much as the largest of
    `templates`, or, without any, as a worker. None where nobody can tell.
    """
    need = max(private, default=0)
    if free is None or not need:
        return None
    amount, words = free.amount, [f"{in_words(free.amount)} left by {free.bound}"]
    if template:
        first = max(templates, default=need)
        amount = max(0, amount - first)
        words.append(f"a template takes {in_words(first)}")
    words.append(f"a worker takes {in_words(need)}")
    return Room(workers=amount // need, why=", ".join(words))


def _read(pids: Mapping[int, tuple[Kind, int]]) -> _Reading:
    private = {
        attempt: amount
        for attempt, (kind, pid) in pids.items()
        if kind is not Kind.TEMPLATE and (amount := private_memory(pid)) is not None
    }
    templates = tuple(
        amount
        for kind, pid in pids.values()
        if kind is Kind.TEMPLATE and (amount := anonymous_memory(pid)) is not None
    )
    return _Reading(private, templates, free_memory())
