"""Recycling: which ready workers have served their requests, their time, or use too much memory."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from drumd.config.sections import Recycle
from drumd.supervisor.core.events import RecycleDue
from drumd.supervisor.core.model import Kind, Pool, Worker
from drumd.supervisor.pool.crew import Crew
from drumd.supervisor.pool.generations import Generations
from drumd.supervisor.pool.handle import Handle
from drumd.supervisor.pool.watching import ready_workers, record_of
from drumd.supervisor.processes.memory_room import in_words
from drumd.wire.scoreboard import Scoreboard

SAY_AGAIN_AFTER = 5.0
"""Seconds until a worker that is due, and not marked as such, is told of again."""


@dataclass(slots=True)
class _Share:
    """How much of each jitter a worker gets, in [0, 1): drawn once, so that limits hold still."""

    requests: float
    age: float
    told_at: float | None = None


@dataclass(frozen=True, slots=True)
class KeptShare:
    """A worker's share of each jitter, over a re-exec."""

    requests: float
    age: float


class Recycling:
    """Finds the workers that are due."""

    def __init__(self, crew: Crew, generations: Generations, board: Scoreboard) -> None:
        self._crew = crew
        self._generations = generations
        self._board = board
        self._chance = random.Random()  # noqa: S311 - jitter, no secret
        self._shares: dict[int, _Share] = {}

    def keep(self) -> Mapping[int, KeptShare]:
        """Return what `resume` needs."""
        return {key: KeptShare(share.requests, share.age) for key, share in self._shares.items()}

    def resume(self, kept: Mapping[int, KeptShare]) -> None:
        """Go on from before a re-exec."""
        self._shares = {key: _Share(share.requests, share.age) for key, share in kept.items()}

    def look(self, pool: Pool, now: float) -> Iterator[RecycleDue]:
        """Yield each ready worker in a slot that is due, now and then until it is marked."""
        for attempt in self._shares.keys() - self._crew.handles.keys():
            del self._shares[attempt]
        for worker, handle in ready_workers(pool, self._crew):
            if worker.kind is not Kind.SLOT or worker.outdated:
                continue
            share = self._shares.get(worker.attempt)
            if share is None:
                share = _Share(self._chance.random(), self._chance.random())
                self._shares[worker.attempt] = share
            if share.told_at is not None and now - share.told_at < SAY_AGAIN_AFTER:
                continue
            recycle = self._generations[handle.generation].settings.recycle
            why = self._due(recycle, share, worker, handle, now)
            if why:
                share.told_at = now
                yield RecycleDue(attempt=worker.attempt, why=why)

    def _due(
        self, recycle: Recycle, share: _Share, worker: Worker, handle: Handle, now: float
    ) -> str:
        if recycle.max_requests is not None:
            limit = recycle.max_requests + int(share.requests * (recycle.max_requests_jitter + 1))
            finished = record_of(self._board, handle).finished - handle.probed
            if finished >= limit:
                return f"has answered {finished} requests (recycle.max_requests)"
        if recycle.max_age is not None and worker.ready_at is not None:
            age = now - worker.ready_at
            if age >= recycle.max_age + share.age * recycle.max_age_jitter:
                return f"has served for {age:.0f} s (recycle.max_age)"
        if recycle.max_memory is not None and (handle.private or 0) > recycle.max_memory:
            return (
                f"uses {in_words(handle.private or 0)} of private memory "
                f"(recycle.max_memory {in_words(recycle.max_memory)})"
            )
        return ""
