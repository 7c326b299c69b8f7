"""A pool in the middle of a decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from drumd.supervisor.core.actions import Action
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import (
    ALLOWED,
    Kind,
    Operation,
    Pool,
    Slot,
    SlotState,
    Worker,
    WorkerState,
)
from drumd.supervisor.core.views import templated

_PLACES = {Kind.SLOT: "slots", Kind.SPARE: "spares", Kind.TEMPLATE: "templates"}
"""The pool's field that holds the places of a kind."""
_OF_TEMPLATES = {
    Happened.WORKER_SPAWNED: Happened.TEMPLATE_SPAWNED,
    Happened.WORKER_READY: Happened.TEMPLATE_READY,
    Happened.WORKER_EXITED: Happened.TEMPLATE_EXITED,
}
"""What counts as a worker's in metrics is told of a template by another name."""


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
        """Take a worker out of its place; it may live on without one."""
        slot = self.home(worker)
        if slot is None:
            return
        if slot.successor == worker.attempt:
            self.put_slot(replace(slot, successor=None))
        elif slot.incumbent == worker.attempt and slot.successor is not None:
            self.put_slot(replace(slot, incumbent=slot.successor, successor=None))
        elif slot.incumbent == worker.attempt:
            self.put_slot(replace(slot, incumbent=None, state=SlotState.EMPTY, since=self.now))

    # --- places ---------------------------------------------------------------------------------

    @property
    def places(self) -> tuple[Slot, ...]:
        """All places: slots, and those of spares and templates."""
        return (*self.pool.slots, *self.pool.spares, *self.pool.templates)

    def home(self, worker: Worker) -> Slot | None:
        """Return the place that a worker was started for or promoted to, None when it is gone."""
        return self.place(worker.kind, worker.slot)

    def place(self, kind: Kind, number: int) -> Slot | None:
        """Return a place as it is now, None when it is gone."""
        of_its_kind = getattr(self.pool, _PLACES[kind])
        return next((place for place in of_its_kind if place.number == number), None)

    def put_slot(self, slot: Slot) -> Slot:
        """Store a place instead of its former value; as the last one if it is new."""
        name = _PLACES[slot.kind]
        places = {place.number: place for place in getattr(self.pool, name)}
        places[slot.number] = slot
        self.change(**{name: tuple(places.values())})
        return slot

    def drop_slot(self, slot: Slot) -> None:
        """Forget a place."""
        name = _PLACES[slot.kind]
        self.change(**{name: tuple(p for p in getattr(self.pool, name) if p.number != slot.number)})

    def wanted(self, slot: Slot) -> bool:
        """Say whether the place shall hold a worker."""
        if not self.pool.up or self.pool.closing:
            return False
        match slot.kind:
            case Kind.SLOT:
                return slot.number < self.pool.size
            case Kind.SPARE:
                return slot.number < self.pool.policy.spares
            case Kind.TEMPLATE:
                return slot.number in templated(self.pool)

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
        kind = worker.kind if worker else slot.kind if slot else Kind.SLOT
        if kind is Kind.TEMPLATE:
            event = _OF_TEMPLATES.get(event, event)
        if kind is not Kind.SLOT:
            extra["kind"] = kind.value
        number = worker.slot if worker else slot.number if slot else None
        self.facts.append(
            Fact(
                event=event,
                reason=reason,
                pool=self.pool.name,
                slot=number if kind is Kind.SLOT else None,
                generation=worker.generation if worker else None,
                attempt=worker.attempt if worker else None,
                extra=extra,
            )
        )
