"""What follows from a pool's state: pure functions, no state of their own."""

from collections.abc import Iterable, Mapping

from drumd.supervisor.core.model import Pool, PoolState, Slot, SlotState, Worker, WorkerState


def wanted_slots(pool: Pool) -> tuple[Slot, ...]:
    """Return the slots that shall hold a worker when the pool is up."""
    return pool.slots[: pool.size]


def incumbent(pool: Pool, slot: Slot) -> Worker | None:
    """Return the slot's incumbent worker."""
    return None if slot.incumbent is None else pool.workers.get(slot.incumbent)


def serves(pool: Pool, slot: Slot) -> bool:
    """Say whether the slot's incumbent is ready (stalled or not)."""
    worker = incumbent(pool, slot)
    return worker is not None and worker.state is WorkerState.READY


def pool_state(pool: Pool) -> PoolState:
    """Return what the pool is as a whole."""
    if not pool.up:
        return PoolState.STOPPING if pool.workers else PoolState.STOPPED
    slots = wanted_slots(pool)
    serving = [serves(pool, slot) for slot in slots]
    if all(serving):
        return PoolState.READY
    if all(slot.state is SlotState.FAILED for slot in slots):
        return PoolState.FAILED
    if pool.was_whole or any(slot.state is SlotState.FAILED for slot in slots):
        return PoolState.DEGRADED
    return PoolState.STARTING


def pool_reason(pool: Pool) -> str:
    """Say why the pool is in its state."""
    state = pool_state(pool)
    slots = wanted_slots(pool)
    ready = sum(serves(pool, slot) for slot in slots)
    text = f"{ready} of {len(slots)} ready"
    if state in (PoolState.STOPPING, PoolState.STOPPED):
        if pool.closing:
            return "drumd stops"
        return "stopped by an operator" if pool.slots else "not started yet"
    troubled = [slot for slot in slots if slot.state in (SlotState.BACKOFF, SlotState.FAILED)]
    if state is PoolState.DEGRADED and not troubled:  # such as one that is just being replaced
        troubled = [slot for slot in slots if not serves(pool, slot)]
    if troubled:
        worst = max(troubled, key=lambda slot: (slot.state is SlotState.FAILED, slot.since))
        text += f"; slot {worst.number}: {worst.reason}"
    return text


def next_deadline(pool: Pool) -> float | None:
    """Return the earliest instant at which `TimePassed` has something to do."""
    instants = [w.deadline for w in pool.workers.values() if w.deadline is not None]
    instants += [s.retry_at for s in pool.slots if s.retry_at is not None]
    return min(instants, default=None)


def _ready_workers(pool: Pool) -> Mapping[int, Worker]:
    return {
        slot.number: worker
        for slot in pool.slots
        if (worker := incumbent(pool, slot)) and worker.state is WorkerState.READY
    }


def _attentive(worker: Worker) -> bool:
    """Say whether a ready worker is free of trouble: it beats, and its exit is not awaited."""
    return not worker.stalled and not worker.overdue


def acceptors(pool: Pool, queues: Iterable[int]) -> Mapping[int, frozenset[int]]:
    """Return, for each worker that accepts, the slots whose queues it accepts from.

    `queues` are the numbers of all slots that have open listeners, those of a scale-down
    included. Each queue has an acceptor as long as there is a ready worker at all: its slot's own
    incumbent, or, while that is down or stalled, a sibling that adopts it. Workers in the result
    also accept from listeners that all share.
    """
    ready = _ready_workers(pool)
    numbers = sorted(queues)
    taken = {w.attempt: {number} & set(numbers) for number, w in ready.items()}
    # A stalled worker is asked last: it may be only busy, but it does not hear us now.
    helpers = [w for w in ready.values() if _attentive(w)] or list(ready.values())
    for number in numbers:
        own = ready.get(number)
        if helpers and (own is None or not _attentive(own)):
            helper = min(helpers, key=lambda w: (len(taken[w.attempt]), w.attempt))
            taken[helper.attempt].add(number)
    return {attempt: frozenset(slots) for attempt, slots in taken.items()}


def steering(pool: Pool, queues: Iterable[int]) -> tuple[int, ...]:
    """Return the slots that new connections are steered to; never empty while there are queues.

    Without a worker that is free of trouble every live slot stays in, and without a live one
    every wanted slot: connections wait with the kernel for whoever comes.
    """
    numbers = sorted(queues)
    live = _ready_workers(pool)
    for choice in (
        [n for n in numbers if n in live and _attentive(live[n])],
        [n for n in numbers if n in live],
        [n for n in numbers if n < pool.size],
    ):
        if choice:
            return tuple(choice)
    return tuple(numbers)
