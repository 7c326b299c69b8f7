"""A pool in the middle of a decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from drumd.supervisor.core.actions import Action
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import (
    ALLOWED,
    Operation,
    Pool,
    Slot,
    SlotState,
    Worker,
    WorkerState,
)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a decision is made, and its share of chance: all that `decide` may know of outside."""

    at: float
    """Monotonic seconds."""
    chance: float
    """In [0, 1): the jitter of the waits that this decision begins."""


@dataclass(slots=True)
class Draft:
    """The working copy of a pool; values in it are replaced, never changed."""

    pool: Pool
    now: float
    chance: float
    actions: list[Action] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    finished: list[Operation] = field(default_factory=list)

    def change(self, **fields: Any) -> None:
        """Replace fields of the pool."""
        self.pool = replace(self.pool, **fields)

    def act(self, action: Action) -> None:
        """Add an action."""
        self.actions.append(action)

    # --- workers --------------------------------------------------------------------------------

    def worker(self, attempt: int) -> Worker | None:
        """Return the worker, None when it is gone."""
        return self.pool.workers.get(attempt)

    def put(self, worker: Worker) -> Worker:
        """Store `worker` in place of its former value."""
        self.change(workers={**self.pool.workers, worker.attempt: worker})
        return worker

    def transition(
        self,
        worker: Worker,
        state: WorkerState,
        reason: str,
        *,
        deadline: float | None,
        event: Happened,
        told: Mapping[str, float | str] | None = None,
        **fields: Any,
    ) -> Worker:
        """Move a worker to `state`: the only place that does; checks, stamps, and tells why."""
        if state not in ALLOWED[worker.state]:
            raise AssertionError(f"no way from {worker.state} to {state}: {worker}")
        worker = self.put(
            replace(worker, state=state, since=self.now, reason=reason, deadline=deadline, **fields)
        )
        self.tell(event, reason, worker=worker, slot=None, **(told or {}))
        return worker

    def forget(self, worker: Worker) -> None:
        """Drop an exited worker from the pool."""
        self.change(workers={a: w for a, w in self.pool.workers.items() if a != worker.attempt})

    def vacate(self, worker: Worker) -> None:
        """Take a worker out of its slot; it may live on without one."""
        slot = self.slot(worker.slot)
        if slot is None:
            return
        if slot.successor == worker.attempt:
            self.put_slot(replace(slot, successor=None))
        elif slot.incumbent == worker.attempt and slot.successor is not None:
            self.put_slot(replace(slot, incumbent=slot.successor, successor=None))
        elif slot.incumbent == worker.attempt:
            self.put_slot(replace(slot, incumbent=None, state=SlotState.EMPTY, since=self.now))

    # --- slots ----------------------------------------------------------------------------------

    def slot(self, number: int) -> Slot | None:
        """Return the slot, None when it is gone."""
        return self.pool.slots[number] if number < len(self.pool.slots) else None

    def put_slot(self, slot: Slot) -> Slot:
        """Store `slot` in place of its former value."""
        slots = list(self.pool.slots)
        slots[slot.number] = slot
        self.change(slots=tuple(slots))
        return slot

    def wanted(self, slot: Slot) -> bool:
        """Say whether the slot shall hold a worker."""
        return self.pool.up and not self.pool.closing and slot.number < self.pool.size

    # --- facts ----------------------------------------------------------------------------------

    def tell(
        self,
        event: Happened,
        reason: str,
        *,
        worker: Worker | None = None,
        slot: Slot | None = None,
        **extra: float | str | None,
    ) -> None:
        """Add a fact."""
        self.facts.append(
            Fact(
                event=event,
                reason=reason,
                pool=self.pool.name,
                slot=worker.slot if worker else slot.number if slot else None,
                generation=worker.generation if worker else None,
                attempt=worker.attempt if worker else None,
                extra=extra,
            )
        )
