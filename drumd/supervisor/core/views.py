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
    return PoolState.DEGRADED if pool.was_ready else PoolState.STARTING


def pool_reason(pool: Pool) -> str:
    """Say why the pool is in its state."""
    state = pool_state(pool)
    slots = wanted_slots(pool)
    ready = sum(serves(pool, slot) for slot in slots)
    text = f"{ready} of {len(slots)} ready"
    if state in (PoolState.STOPPING, PoolState.STOPPED):
        return "stopped by an operator" if not pool.closing else "drumd stops"
    troubled = [slot for slot in slots if slot.state in (SlotState.BACKOFF, SlotState.FAILED)]
    if troubled:
        worst = max(troubled, key=lambda slot: (slot.state is SlotState.FAILED, slot.since))
        text += f"; slot {worst.number}: {worst.reason}"
    return text


def next_deadline(pool: Pool) -> float | None:
    """Return the earliest instant at which `TimePassed` has something to do."""
    instants = [w.deadline for w in pool.workers.values() if w.deadline is not None]
    if pool.up and not pool.closing:
        instants += [s.retry_at for s in wanted_slots(pool) if s.retry_at is not None]
    return min(instants, default=None)


def acceptors(pool: Pool, queues: Iterable[int]) -> Mapping[int, frozenset[int]]:
    """Return, for each worker that accepts, the slots whose queues it accepts from.

    `queues` are the numbers of all slots that have open listeners, those of a scale-down
    included. Each queue has an acceptor as long as there is a ready worker at all: its slot's own
    incumbent, or, while that is down or stalled, a sibling that adopts it. Workers in the result
    also accept from listeners that all share.
    """
    ready = {
        slot.number: worker
        for slot in pool.slots
        if (worker := incumbent(pool, slot)) and worker.state is WorkerState.READY
    }
    taken: dict[int, set[int]] = {worker.attempt: set() for worker in ready.values()}
    # A stalled worker is asked last: it may be only busy, but it does not hear us now.
    helpers = [w for w in ready.values() if not w.stalled] or list(ready.values())
    for number in sorted(queues):
        own = ready.get(number)
        if own is not None:
            taken[own.attempt].add(number)
        if (own is None or own.stalled) and helpers:
            helper = min(helpers, key=lambda w: (len(taken[w.attempt]), w.attempt))
            taken[helper.attempt].add(number)
    return {attempt: frozenset(slots) for attempt, slots in taken.items()}


def steering(pool: Pool, queues: Iterable[int]) -> tuple[int, ...]:
    """Return the slots that new connections are steered to; never empty while there are queues.

    Without a worker that is free of trouble every live slot stays in, and without a live one
    every wanted slot: connections wait with the kernel for whoever comes.
    """
    numbers = sorted(queues)
    live = {
        slot.number: worker
        for slot in pool.slots
        if (worker := incumbent(pool, slot)) and worker.state is WorkerState.READY
    }
    for choice in (
        [n for n in numbers if n in live and not live[n].stalled],
        [n for n in numbers if n in live],
        [n for n in numbers if n < pool.size],
    ):
        if choice:
            return tuple(choice)
    return tuple(numbers)
