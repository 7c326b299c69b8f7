"""The crew: a pool's processes as the supervisor holds them, and what they add up to."""

from dataclasses import dataclass, field

from drumd.supervisor.core.model import Pool
from drumd.supervisor.pool.handle import Handle
from drumd.supervisor.pool.tally import Tally


@dataclass(slots=True, kw_only=True)
class Crew:
    """One pool's handles, by attempt, and what outlives each of them."""

    pool: str
    runtime: str = ""
    """What serves in the workers; "" until the first one has looked at its app."""
    handles: dict[int, Handle] = field(default_factory=dict)
    pids: dict[int, int] = field(default_factory=dict)
    """Pids by attempt, kept until the worker's end has been told."""
    tally: Tally = field(default_factory=Tally)
    last_words: list[str] = field(default_factory=list)
    """Of the worker that ended last, the last lines on stderr; not if its failure was final."""
    last_lines: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """The same of each worker, by attempt, from its end until that has been told."""

    def assign(self, pool: Pool) -> None:
        """Have each handle know the place that its worker has now: a spare may have got a slot."""
        for attempt, handle in self.handles.items():
            worker = pool.workers.get(attempt)
            if worker is not None:
                handle.kind, handle.slot = worker.kind, worker.slot
