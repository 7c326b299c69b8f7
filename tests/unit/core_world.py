"""A pool under test: decides, checks what must hold after each step, keeps what came out."""

import copy
from collections.abc import Callable, Iterable

from drumd.supervisor.core.actions import Action, Drain, Kill, Spawn, Terminate
from drumd.supervisor.core.decide import Decision, decide
from drumd.supervisor.core.draft import Moment
from drumd.supervisor.core.events import (
    BecameReady,
    Began,
    Event,
    Exited,
    RoomMeasured,
    Submitted,
    TimePassed,
)
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import (
    ALLOWED,
    Kind,
    Operation,
    OperationKind,
    OperationState,
    Policy,
    Pool,
    Room,
    Slot,
    SlotState,
    Tight,
    Worker,
    WorkerState,
)
from drumd.supervisor.core.views import (
    acceptors,
    can_spare,
    has_room,
    heirs,
    next_deadline,
    outdated,
    pool_reason,
    pool_state,
    ready_template,
    serves,
    steering,
    target_generation,
    templated,
    wanted_slots,
)

STAYING = (WorkerState.STARTING, WorkerState.READY)
FINAL = {OperationState.DONE, OperationState.FAILED, OperationState.CANCELLED}


class World:
    """One pool with its time. Processes behave as the test says; the checks run by themselves."""

    def __init__(
        self,
        *,
        size: int = 2,
        policy: Policy | None = None,
        chance: float = 0.5,
        preload: bool = False,
    ) -> None:
        self.pool = Pool(name="model", policy=policy or Policy(), size=size, preload=preload)
        self.next_generation = 2
        self.now = 100.0
        self.chance = chance
        self.actions: list[Action] = []
        self.facts: list[Fact] = []
        self.finished: dict[str, Operation] = {}
        self.submitted: set[str] = set()

    # --- what happens ---------------------------------------------------------------------------

    def post(self, event: Event) -> Decision:
        """Decide about one event; its actions, facts and ended operations are added to ours."""
        moment = Moment(at=self.now, chance=self.chance)
        before = copy.deepcopy(self.pool)
        decision = decide(self.pool, event, moment)
        assert self.pool == before, "decide changed its input"
        assert decide(self.pool, event, moment) == decision, "decide is not deterministic"
        self.pool = decision.pool
        self.actions += decision.actions
        self.facts += decision.facts
        for operation in decision.finished:
            assert operation.id not in self.finished, "an operation ended twice"
            self.finished[operation.id] = operation
        check_decision(before, decision)
        check_choice(before, event, decision)
        check_pool(self.pool)
        return decision

    def begin(self) -> "World":
        """Start the pool and let all its workers get ready, template and spares included."""
        self.post(Began())
        while self.workers(WorkerState.STARTING):
            self.all_ready()
        return self

    def all_ready(self) -> None:
        """Let all get ready that start now."""
        for worker in self.workers(WorkerState.STARTING):
            if worker.attempt in self.pool.workers:
                self.ready(worker.attempt)

    def ready(self, attempt: int) -> Decision:
        return self.post(BecameReady(attempt=attempt))

    def exit(
        self,
        attempt: int,
        description: str = "exit 1",
        *,
        foreign: bool = False,
        answered: bool = False,
    ) -> Decision:
        return self.post(
            Exited(
                attempt=attempt,
                description=description,
                foreign_signal=foreign,
                answered=answered,
            )
        )

    def submit(
        self,
        kind: OperationKind,
        *,
        slot: int | None = None,
        size: int | None = None,
        preload: bool = False,
    ) -> str:
        """Submit an operation and return its id; a reload gets the next generation."""
        number = f"op-{len(self.submitted) + 1}"
        self.submitted.add(number)
        generation = None
        if kind is OperationKind.RELOAD:
            generation = self.next_generation
            self.next_generation += 1
        operation = Operation(
            id=number, kind=kind, slot=slot, size=size, generation=generation, preload=preload
        )
        self.post(Submitted(operation=operation))
        return number

    def reload(self, *, preload: bool = False) -> str:
        """Submit a reload and return its id."""
        return self.submit(OperationKind.RELOAD, preload=preload)

    def pass_time(self, seconds: float) -> Decision:
        self.now += seconds
        return self.post(TimePassed())

    def to_deadline(self) -> Decision:
        """Let time pass up to the next deadline."""
        deadline = next_deadline(self.pool)
        assert deadline is not None, "nothing waits for time"
        self.now = max(self.now, deadline)
        return self.post(TimePassed())

    # --- what there is --------------------------------------------------------------------------

    def workers(self, *states: WorkerState) -> list[Worker]:
        return [w for w in self.pool.workers.values() if not states or w.state in states]

    def worker(self, attempt: int) -> Worker:
        return self.pool.workers[attempt]

    def slot(self, number: int) -> Slot:
        return self.pool.slots[number]

    def operation(self, number: str) -> Operation:
        """Return an operation, ended or not."""
        if number in self.finished:
            return self.finished[number]
        return next(o for o in self.pool.operations if o.id == number)

    def told(self, event: Happened) -> list[str]:
        """Return the reasons of all facts of a kind."""
        return [fact.reason for fact in self.facts if fact.event is event]


def actions_of(decision: Decision, *kinds: type[Action]) -> list[Action]:
    return [action for action in decision.actions if isinstance(action, kinds)]


def settle(world: World, *, steps: int = 500) -> None:
    """Let every process behave well from now on, until nothing is left to happen."""
    for _ in range(steps):
        leaving = world.workers(WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLING)
        starting = world.workers(WorkerState.STARTING)
        if leaving:
            world.exit(leaving[0].attempt, "exit 0")
        elif starting and not starting[0].overdue:
            world.ready(starting[0].attempt)
        elif next_deadline(world.pool) is not None:
            world.to_deadline()
        else:
            return
    raise AssertionError(f"not settled after {steps} steps: {world.pool}")


# --- what must hold -------------------------------------------------------------------------------


def check_decision(before: Pool, decision: Decision) -> None:
    """Check what must hold of a step."""
    pool = decision.pool
    for attempt, worker in pool.workers.items():
        former = before.workers.get(attempt)
        if former is None:
            spawns = [a for a in decision.actions if isinstance(a, Spawn) and a.attempt == attempt]
            assert len(spawns) == 1, f"{worker} came without its spawn"
            assert worker.state is WorkerState.STARTING
            assert attempt >= before.next_attempt
        elif former.state is not worker.state:
            assert _reachable(former.state, worker.state), f"{former} became {worker}"
    for action in decision.actions:
        if isinstance(action, (Drain, Terminate, Kill)):
            assert action.attempt in before.workers, f"{action} for nobody"
        if isinstance(action, Spawn):
            assert not pool.closing, "spawned although the daemon stops"
    for fact in decision.facts:
        assert fact.reason, f"{fact} has no reason"
        assert fact.pool == pool.name
    assert all(operation.state in FINAL for operation in decision.finished)


def check_choice(before: Pool, event: Event, decision: Decision) -> None:
    """Check what drumd did to workers that served, and that nothing had happened to."""
    pool = decision.pool
    for spawn in (action for action in decision.actions if isinstance(action, Spawn)):
        assert spawn.generation in (pool.generation, target_generation(pool)), f"{spawn} for nobody"
        forks = spawn.kind is not Kind.TEMPLATE and spawn.generation in templated(pool)
        assert (spawn.template is not None) == forks
        assert spawn.template is None or ready_template(pool, spawn.generation) is not None
    if not pool.up:
        return
    sizes = [fact.extra["size"] for fact in decision.facts if fact.event is Happened.POOL_SCALED]
    least = min(pool.size, *(size for size in sizes if isinstance(size, int)), pool.size)
    ended = [
        worker
        for worker in before.workers.values()
        if worker.state is WorkerState.READY
        and worker.kind is Kind.SLOT
        and worker.slot < least
        and worker.attempt != getattr(event, "attempt", None)
        and worker.deadline is None
        and not _is_ready(pool, worker.attempt)
    ]
    aborted = any(fact.event is Happened.ROLLOUT_ABORTED for fact in decision.facts)
    for worker in ended:
        marked = pool.workers[worker.attempt]
        assert outdated(before, worker) or outdated(pool, marked), f"{worker} was ended for nothing"
        assert not aborted or marked.outdated or worker.generation != pool.generation
    down = [slot for slot in wanted_slots(pool) if not serves(pool, slot)]
    if any(slot.number == worker.slot for slot in down for worker in ended):
        allowed = pool.policy.max_unavailable
        if pool.policy.tight is Tight.NO_SURGE and not (has_room(before) and has_room(pool)):
            allowed = max(1, allowed)
        assert len(down) <= allowed, f"{len(down)} slots are down by choice"


def _is_ready(pool: Pool, attempt: int) -> bool:
    return attempt in pool.workers and pool.workers[attempt].state is WorkerState.READY


def check_pool(pool: Pool) -> None:
    """Check what must hold of every state."""
    for worker in pool.workers.values():
        if worker.state is not WorkerState.READY:
            assert worker.deadline is not None, f"{worker} waits without a deadline"
        assert (worker.deadline is not None) or not worker.overdue
        assert worker.reason
        if worker.state in STAYING:
            slot = home(pool, worker)
            assert slot is not None
            assert worker.attempt in (slot.incumbent, slot.successor), f"{worker} has no slot"
    wanted = pool.up and not pool.closing
    for number, slot in enumerate(pool.slots):
        assert slot.number == number
        _check_slot(pool, slot, wanted=wanted and number < pool.size)
    for slot in pool.spares:
        _check_slot(pool, slot, wanted=wanted and slot.number < pool.policy.spares)
    for slot in pool.templates:
        _check_slot(pool, slot, wanted=wanted and slot.number in templated(pool))
    _check_budget(pool)
    assert len({o.id for o in pool.operations}) == len(pool.operations)
    assert all(o.state is OperationState.QUEUED for o in pool.operations[1:])
    assert all(o.state is OperationState.RUNNING for o in pool.operations[:1])
    assert not (pool.closing and (pool.operations or pool.up))
    assert pool_reason(pool)
    assert pool_state(pool)
    check_views(pool, range(len(pool.slots)))
    check_heirs(pool)


def home(pool: Pool, worker: Worker) -> Slot | None:
    """Return a worker's place."""
    places = {Kind.SLOT: pool.slots, Kind.SPARE: pool.spares, Kind.TEMPLATE: pool.templates}
    return next((p for p in places[worker.kind] if p.number == worker.slot), None)


def _check_slot(pool: Pool, slot: Slot, *, wanted: bool) -> None:
    assert slot.reason
    waits = slot.state in (SlotState.BACKOFF, SlotState.FAILED)
    assert waits == (slot.retry_at is not None)
    assert (slot.incumbent is not None) == (slot.state is SlotState.FILLED)
    if slot.successor is not None:
        assert slot.kind is Kind.SLOT
        assert slot.incumbent not in (None, slot.successor)
        assert home(pool, pool.workers[slot.successor]) == slot
    if slot.incumbent is not None:
        assert home(pool, pool.workers[slot.incumbent]) == slot
    assert not (waits and not wanted), f"{slot} waits, but is not wanted"
    if wanted and slot.state is SlotState.EMPTY:
        assert _has_reason_to_wait(pool, slot), f"{slot} is empty for ever"


def _has_reason_to_wait(pool: Pool, slot: Slot) -> bool:
    """Say whether something with a deadline of its own will fill an empty place."""
    if slot.kind is Kind.TEMPLATE:
        return False
    if slot.kind is Kind.SPARE and not can_spare(pool):
        return True
    pending = [g for g in templated(pool) if ready_template(pool, g) is None]
    if pending:
        return True  # its place is looked at by itself
    same = [w for w in pool.workers.values() if (w.kind, w.slot) == (slot.kind, slot.number)]
    return not has_room(pool) and bool(same)


def _check_budget(pool: Pool) -> None:
    """Workers that are here to stay: one a place, and the successors that the budget allows."""
    for kind, places in ((Kind.SLOT, pool.slots), (Kind.SPARE, pool.spares)):
        staying = [w for w in pool.workers.values() if w.state in STAYING and w.kind is kind]
        wanted = len(places) if pool.up else 0
        surge = pool.policy.max_surge if kind is Kind.SLOT else 0
        assert len(staying) <= wanted + surge, f"{len(staying)} {kind}s for {wanted}"
    templates = [w for w in pool.workers.values() if w.kind is Kind.TEMPLATE and w.state in STAYING]
    assert len(templates) <= 2
    assert {w.generation for w in templates} <= templated(pool)


def check_views(pool: Pool, queues: Iterable[int]) -> None:
    """Check what must hold of who accepts, and of where connections go."""
    numbers = set(queues)
    ready = {w.attempt: w for w in pool.workers.values() if w.state is WorkerState.READY}
    serving = {
        a: w for a, w in ready.items() if w.kind is Kind.SLOT and pool.slots[w.slot].incumbent == a
    }
    taken = acceptors(pool, numbers)
    assert taken.keys() == serving.keys()
    if serving:
        assert set().union(*taken.values()) == numbers, "a queue has no acceptor"
    free = {a for a, w in serving.items() if not w.stalled and not w.overdue}
    if free:
        adopted: Callable[[int], bool] = lambda n: any(n in taken[a] for a in free)  # noqa: E731
        assert all(adopted(n) for n in numbers), "only a stalled worker accepts from a queue"
    steered = steering(pool, numbers)
    assert set(steered) <= numbers
    assert bool(steered) == bool(numbers)
    if free:
        assert set(steered) == numbers & {serving[a].slot for a in free}
    elif serving:
        assert set(steered) == numbers & {w.slot for w in serving.values()}
    assert len(wanted_slots(pool)) <= pool.size


def check_heirs(pool: Pool) -> None:
    """Idle connections go to workers that serve and stay, and to nobody when the pool goes."""
    for attempt, chosen in heirs(pool).items():
        assert pool.up
        assert pool.workers[attempt].state is WorkerState.DRAINING
        for heir in chosen:
            assert pool.workers[heir].state is WorkerState.READY
            assert pool.workers[heir].slot < pool.size


def generations(world: World) -> list[int]:
    """Return the generation of each slot's incumbent, 0 where there is none."""
    return [
        world.worker(slot.incumbent).generation if slot.incumbent else 0
        for slot in world.pool.slots
    ]


def serving(world: World) -> set[int]:
    """Return the attempts of all workers that are ready."""
    return {worker.attempt for worker in world.workers(WorkerState.READY)}


def spawned(world: World, generation: int) -> list[Spawn]:
    """Return what was to be started of a generation, in order."""
    return [a for a in world.actions if isinstance(a, Spawn) and a.generation == generation]


def told_to(world: World, kind: type[Terminate | Drain]) -> list[int]:
    """Return whom an action was for, in order."""
    return [action.attempt for action in world.actions if isinstance(action, kind)]


def no_room(world: World, workers: int = 0) -> None:
    """Measure room for so many workers more."""
    world.post(RoomMeasured(room=Room(workers=workers, why="1 GB free, a worker takes 2 GB")))


def state(world: World, number: str) -> OperationState:
    """Return the state of an operation, ended or not."""
    return world.operation(number).state


def _reachable(start: WorkerState, end: WorkerState) -> bool:
    """Say whether allowed transitions lead from `start` to `end`; one decision may make several."""
    seen, edge = {start}, {start}
    while edge:
        edge = {state for former in edge for state in ALLOWED[former]} - seen
        seen |= edge
    return end in seen
