"""What follows from a pool's state: pure functions, no state of their own."""

from collections.abc import Iterable, Mapping

from drumd.supervisor.core.model import (
    Kind,
    Pool,
    PoolState,
    Slot,
    SlotState,
    Tight,
    Worker,
    WorkerState,
)

MAX_HEIRS = 4
"""Siblings that share the idle connections of a worker whose slot goes."""


def wanted_slots(pool: Pool) -> tuple[Slot, ...]:
    """Return the slots that shall hold a worker when the pool is up."""
    return pool.slots[: pool.size]


def places_of(pool: Pool, kind: Kind) -> tuple[Slot, ...]:
    """Return the places of a kind."""
    match kind:
        case Kind.SLOT:
            return pool.slots
        case Kind.SPARE:
            return pool.spares
        case Kind.TEMPLATE:
            return pool.templates


def incumbent(pool: Pool, slot: Slot) -> Worker | None:
    """Return the slot's incumbent worker."""
    return None if slot.incumbent is None else pool.workers.get(slot.incumbent)


def serves(pool: Pool, slot: Slot) -> bool:
    """Say whether the slot's incumbent is ready (stalled or not)."""
    worker = incumbent(pool, slot)
    return worker is not None and worker.state is WorkerState.READY


# --- generations --------------------------------------------------------------------------------


def target_generation(pool: Pool) -> int:
    """Return the generation that all workers shall be of in the end."""
    return pool.generation if pool.rollout is None else pool.rollout.generation


def is_unproven(pool: Pool) -> bool:
    """Say whether a rollout is on its way of whose generation no worker has been ready yet."""
    return pool.rollout is not None and not pool.rollout.proven


def vacancy_generation(pool: Pool) -> int:
    """Return the generation that fills a slot without a worker: one that has proved to work."""
    rollout = pool.rollout
    return rollout.generation if rollout is not None and rollout.proven else pool.generation


def templated(pool: Pool) -> frozenset[int]:
    """Return the generations that shall have a template."""
    found = {pool.generation} if pool.preload else set()
    if pool.rollout is not None and pool.rollout.preload:
        found.add(pool.rollout.generation)
    return frozenset(found)


def ready_template(pool: Pool, generation: int) -> Worker | None:
    """Return the template that forks workers of `generation`, None while there is none."""
    for place in pool.templates:
        worker = incumbent(pool, place)
        if place.number != generation or worker is None:
            continue
        if worker.state is WorkerState.READY and not worker.overdue:
            return worker
    return None


def ready_spare(pool: Pool, generation: int) -> Worker | None:
    """Return the oldest spare of `generation` that could serve at once, and is not outdated."""
    fit = [
        worker
        for worker in pool.workers.values()
        if worker.kind is Kind.SPARE
        and worker.state is WorkerState.READY
        and worker.generation == generation
        and not worker.outdated
        and _attentive(worker)
    ]
    return min(fit, key=lambda worker: worker.attempt, default=None)


def outdated(pool: Pool, worker: Worker) -> str:
    """Return why a worker is to be replaced, "" when it is not."""
    target = target_generation(pool)
    if worker.generation != target:
        what = "rollout" if worker.generation < target else "rolled back"
        return f"{what} to generation {target}"
    return worker.outdated


def first_settles_at(pool: Pool) -> float | None:
    """Return when the first of the new workers will have served for long enough to go on.

    None when no worker is outdated, or none is new.
    """
    workers = [w for slot in wanted_slots(pool) if (w := incumbent(pool, slot)) is not None]
    old = [worker for worker in workers if outdated(pool, worker)]
    new = [w.ready_at for w in workers if w.ready_at is not None and not outdated(pool, w)]
    if not old or not new or not pool.up:
        return None
    return min(new) + pool.policy.min_ready


def has_room(pool: Pool) -> bool:
    """Say whether the memory takes another worker beside those that there are."""
    return pool.room is None or pool.policy.tight is Tight.IGNORE or pool.room.workers > 0


def can_spare(pool: Pool) -> bool:
    """Say whether spares may start: the pool serves, and they take nothing that it needs itself."""
    whole = pool.was_whole or all(serves(pool, slot) for slot in wanted_slots(pool))
    return whole and pool.rollout is None and has_room(pool)


# --- the pool as a whole ------------------------------------------------------------------------


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
    target = target_generation(pool)
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
    for place in pool.templates:
        # A slot that failed with its template has said why already.
        if place.state in (SlotState.BACKOFF, SlotState.FAILED) and place.reason not in text:
            text += f"; template of generation {place.number}: {place.reason}"
    if pool.rollout is not None:
        new = [s for s in slots if serves(pool, s) and _generation(pool, s) == target]
        text += f"; rollout to generation {target}: {len(new)} of {len(slots)}"
    elif pool.aborted:
        text += f"; {pool.aborted}"
    return text


def _generation(pool: Pool, slot: Slot) -> int | None:
    worker = incumbent(pool, slot)
    return None if worker is None else worker.generation


def next_deadline(pool: Pool) -> float | None:
    """Return the earliest instant at which `TimePassed` has something to do."""
    instants = [w.deadline for w in pool.workers.values() if w.deadline is not None]
    for place in (*pool.slots, *pool.spares, *pool.templates):
        instants += [at for at in (place.retry_at, place.renew_at) if at is not None]
    if pool.renewal_at is not None:
        instants.append(pool.renewal_at)
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


def heirs(pool: Pool) -> Mapping[int, tuple[int, ...]]:
    """Return, for each draining worker, those that its idle connections go to; at a stop nobody."""
    if not pool.up or pool.closing:
        return {}
    ready = {
        number: worker
        for number, worker in _ready_workers(pool).items()
        if number < pool.size and _attentive(worker)
    }
    found: dict[int, tuple[int, ...]] = {}
    for worker in pool.workers.values():
        if worker.state is not WorkerState.DRAINING or worker.kind is not Kind.SLOT:
            continue
        successor = ready.get(worker.slot)
        if successor is not None:
            found[worker.attempt] = (successor.attempt,)
        elif ready:
            # Not the same ones for each leaver: several may go at once.
            siblings = [ready[number].attempt for number in sorted(ready)]
            first = worker.slot % len(siblings)
            found[worker.attempt] = tuple((siblings[first:] + siblings[:first])[:MAX_HEIRS])
    return found
