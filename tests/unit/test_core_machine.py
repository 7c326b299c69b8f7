"""Random lives of a pool: whatever processes, operators and time do, the promises hold."""

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from drumd.supervisor.core.actions import Kill
from drumd.supervisor.core.events import (
    BecameReady,
    Began,
    BeganLeaving,
    Cancelled,
    DeadlinePassed,
    Drained,
    Exited,
    Hung,
    LoadMeasured,
    LostContact,
    ProbeFailed,
    Reconfigured,
    Recovered,
    RecycleDue,
    ReportedFailure,
    RoomMeasured,
    ShutdownRequested,
    SpawnFailed,
    Stalled,
    WorkerEvent,
)
from drumd.supervisor.core.model import (
    OperationKind,
    OperationState,
    Policy,
    Room,
    Scaling,
    SlotState,
    Tight,
    WorkerState,
)
from drumd.supervisor.core.views import next_deadline, serves, templated, wanted_slots
from tests.unit.core_world import World, settle

ENDING = (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLING)

BUDGETS = ((1, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 2))
"""What `max_surge` and `max_unavailable` may be; the config refuses a budget of nothing."""

policies = st.builds(
    lambda budget, **rest: Policy(max_surge=budget[0], max_unavailable=budget[1], **rest),
    budget=st.sampled_from(BUDGETS),
    start_timeout=st.sampled_from([1.0, 60.0]),
    grace_period=st.sampled_from([0.0, 2.0, 25.0]),
    stop_timeout=st.sampled_from([0.0, 3.0]),
    intensity=st.integers(0, 4),
    period=st.sampled_from([1.0, 60.0]),
    stable_after=st.sampled_from([0.0, 10.0]),
    backoff_initial=st.sampled_from([0.0, 0.1, 10.0]),
    exit_on_exhausted=st.booleans(),
    essential=st.booleans(),
    min_ready=st.sampled_from([0.0, 1.0]),
    tight=st.sampled_from(Tight),
    spares=st.integers(0, 2),
    scaling=st.none() | st.just(Scaling(least=1, most=4, up_after=1.0, down_after=2.0)),
)
chances = st.floats(0, 1, exclude_max=True)
picks = st.integers(0, 1_000)


class PoolMachine(RuleBasedStateMachine):
    """Each rule is something that happens outside; `World.post` checks what must hold after it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.ending = ""
        """How each start ends in the end; "" while they succeed."""
        self.held = False
        """In the end the kernel holds all workers that are to go: SIGKILL does not end them."""

    @initialize(
        size=st.integers(0, 4),
        policy=policies,
        begin=st.booleans(),
        ending=st.sampled_from(["", "fails", "hangs", "is killed"]),
        held=st.booleans(),
        preload=st.booleans(),
    )
    def start(
        self, size: int, policy: Policy, begin: bool, ending: str, held: bool, preload: bool
    ) -> None:
        self.ending, self.held = ending, held
        self.world = World(size=size, policy=policy, preload=preload)
        if begin:
            self.world.begin()
        else:
            self.world.post(Began())

    # --- what workers do ------------------------------------------------------------------------

    def pick(self, pick: int, *states: WorkerState) -> int | None:
        """Return the attempt of some worker in one of `states`."""
        workers = self.world.workers(*states)
        return workers[pick % len(workers)].attempt if workers else None

    @rule(pick=picks)
    def worker_gets_ready(self, pick: int) -> None:
        attempt = self.pick(pick, WorkerState.STARTING)
        if attempt is not None:
            self.world.ready(attempt)

    @rule()
    def all_get_ready(self) -> None:
        self.world.all_ready()

    @rule(pick=picks, chance=chances, foreign=st.booleans(), answered=st.booleans())
    def worker_exits(self, pick: int, chance: float, foreign: bool, answered: bool) -> None:
        self.world.chance = chance
        attempt = self.pick(pick)
        if attempt is not None:
            answered = answered and self.world.worker(attempt).ready_at is not None
            self.world.exit(attempt, foreign=foreign, answered=answered)

    @rule(pick=picks)
    def leaving_worker_exits(self, pick: int) -> None:
        attempt = self.pick(pick, *ENDING)
        if attempt is not None:
            self.world.exit(attempt, "exit 0")

    @rule(pick=picks, chance=chances)
    def start_fails(self, pick: int, chance: float) -> None:
        self.world.chance = chance
        attempt = self.pick(pick, WorkerState.STARTING)
        if attempt is not None:
            self.world.exit(attempt, "exit 3")

    @rule(pick=picks, back=st.integers(-2, 5), kind=st.integers(0, 12))
    def anything_is_said(self, pick: int, back: int, kind: int) -> None:
        """Any event at any time, of workers that are long gone or never were too."""
        known = self.pick(pick)
        attempt = known if known is not None and back > 0 else max(0, pick % 50 + back)
        events: list[WorkerEvent] = [
            SpawnFailed(attempt=attempt, error="cannot start: no memory"),
            BecameReady(attempt=attempt),
            ReportedFailure(attempt=attempt, error="" if pick % 2 else "ImportError: no model"),
            BeganLeaving(attempt=attempt, signal="SIGTERM"),
            Drained(attempt=attempt),
            LostContact(attempt=attempt),
            Stalled(attempt=attempt, late=1.5, busy=bool(pick % 2)),
            Recovered(attempt=attempt),
            Hung(attempt=attempt, why="no heartbeat for 30 s"),
            ProbeFailed(attempt=attempt, answer="503"),
            RecycleDue(attempt=attempt, why="served 1000 requests"),
            DeadlinePassed(attempt=attempt),
            Exited(attempt=attempt, description="exit 0", foreign_signal=False, answered=False),
        ]
        event = events[kind]
        worker = self.world.pool.workers.get(attempt)
        if isinstance(event, DeadlinePassed) and worker and worker.deadline is None:
            return  # `decide` makes these itself, and only of deadlines
        self.world.post(event)
        if kind % 2:
            self.world.post(event)  # and again

    # --- time -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.3, 1.0, 5.0, 30.0, 400.0]), chance=chances)
    def time_passes(self, seconds: float, chance: float) -> None:
        self.world.chance = chance
        self.world.pass_time(seconds)

    @rule(chance=chances)
    def next_deadline_passes(self, chance: float) -> None:
        self.world.chance = chance
        if next_deadline(self.world.pool) is not None:
            self.world.to_deadline()

    # --- operators ------------------------------------------------------------------------------

    @rule(
        kind=st.sampled_from([*OperationKind, OperationKind.RESTART, OperationKind.RELOAD]),
        slot=st.none() | st.integers(0, 4),
        size=st.integers(0, 4),
        preload=st.booleans(),
    )
    def operator_asks(
        self, kind: OperationKind, slot: int | None, size: int, preload: bool
    ) -> None:
        self.world.submit(
            kind,
            slot=slot if kind is OperationKind.RESTART else None,
            size=size if kind is OperationKind.SCALE else None,
            preload=preload,
        )

    @rule(policy=policies, size=st.none() | st.integers(0, 4))
    def config_changes(self, policy: Policy, size: int | None) -> None:
        # What has begun under a larger budget goes on: so the check of the budget needs the same.
        former = self.world.pool.policy
        policy = replace(policy, max_surge=former.max_surge, max_unavailable=former.max_unavailable)
        self.world.post(Reconfigured(policy=policy, size=size))

    @rule(workers=st.none() | st.integers(-1, 3))
    def memory_is_measured(self, workers: int | None) -> None:
        room = None if workers is None else Room(workers=workers, why="1 GB free")
        self.world.post(RoomMeasured(room=room))

    @rule(busy=st.sampled_from([0.0, 0.5, 1.0]), queued=st.integers(0, 3))
    def load_is_measured(self, busy: float, queued: int) -> None:
        self.world.post(LoadMeasured(busy=busy, queued=queued))

    @rule(pick=picks)
    def operator_cancels(self, pick: int) -> None:
        number = f"op-{pick % 8}"
        self.world.post(Cancelled(operation_id=number, by="an operator"))
        assert all(o.id != number for o in self.world.pool.operations)

    @precondition(lambda self: self.is_whole())
    @rule(
        kind=st.sampled_from([OperationKind.RESTART, OperationKind.RELOAD]),
        good=st.sampled_from([0, 0, 1, 2, 99]),
        preload=st.booleans(),
    )
    def replacing_keeps_to_the_budget(self, kind: OperationKind, good: int, preload: bool) -> None:
        """With all slots serving, a rollout or a restart costs no more than it may, at any step.

        The first `good` starts succeed, and no other.
        """
        world = self.world
        world.post(RoomMeasured(room=None))
        policy = replace(world.pool.policy, scaling=None)
        world.post(Reconfigured(policy=policy))
        allowed = policy.max_unavailable
        before = {w.attempt for w in world.workers(WorkerState.READY)}
        number = world.submit(kind, preload=preload)
        broken = not good
        for _ in range(200):
            if number in world.finished:
                break
            leaving = world.workers(*ENDING)
            starting = world.workers(WorkerState.STARTING)
            if leaving:
                world.exit(leaving[0].attempt, "exit 0")
            elif starting and good:
                good -= 1
                world.ready(starting[0].attempt)
            elif starting:
                world.exit(starting[0].attempt, "exit 3")
            else:
                world.to_deadline()
            assert self.serving() >= world.pool.size - allowed
        else:
            raise AssertionError(f"never ends: {world.pool}")
        if broken and policy.max_surge and kind is OperationKind.RELOAD and world.pool.size:
            assert world.finished[number].state is OperationState.FAILED
            assert before <= world.pool.workers.keys(), "a bad release took a good worker's place"

    def is_whole(self) -> bool:
        pool = self.world.pool
        calm = all(w.deadline is None for w in pool.workers.values())
        return pool.up and calm and not pool.operations and self.serving() == pool.size

    def serving(self) -> int:
        return sum(serves(self.world.pool, slot) for slot in wanted_slots(self.world.pool))

    # --- the end --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.facts) > 30)
    @rule(at_once=st.booleans())
    def daemon_stops(self, at_once: bool) -> None:
        self.world.post(ShutdownRequested(reason="SIGTERM", at_once=at_once))

    def teardown(self) -> None:
        """Whatever state it is in: well-behaved processes make it whole, and a stop empties it."""
        if self.ending:
            self.operations_end_although_no_start_succeeds()
        if not self.world.pool.closing:
            self.becomes_what_is_wanted()
            self.world.post(ShutdownRequested(reason="SIGTERM"))
        self.stops_whatever_workers_do()
        assert self.world.submitted == self.world.finished.keys()

    def operations_end_although_no_start_succeeds(self) -> None:
        """Starts that take long, then fail, hang or are killed leave no operation waiting."""
        world = self.world
        for _ in range(2_000):
            if not world.pool.operations:
                return
            starting = world.workers(WorkerState.STARTING)
            leaving = world.workers(*ENDING)
            if leaving and not (self.held and leaving[0].ready_at is not None):
                world.exit(leaving[0].attempt, "exit 0")
            elif starting and self.ending != "hangs":
                # Slots that are only filled wait as long as somebody kills their workers.
                reloads = world.pool.operations[0].kind is OperationKind.RELOAD
                killed = self.ending == "is killed" and reloads
                world.pass_time(max(0.0, (starting[0].deadline or 0) - world.now - 0.1))
                if starting[0].attempt in world.pool.workers:
                    world.exit(starting[0].attempt, "exit 3", foreign=killed)
            else:
                world.to_deadline()
        raise AssertionError(f"never ends: {world.pool}")

    def becomes_what_is_wanted(self) -> None:
        world = self.world
        world.post(RoomMeasured(room=None))
        settle(world)
        wanted = world.pool.size if world.pool.up else 0
        assert self.serving() == wanted
        spares = world.pool.policy.spares if world.pool.up else 0
        templates = len(templated(world.pool)) if world.pool.up else 0
        assert len(world.workers()) == wanted + spares + templates
        assert {w.generation for w in world.workers()} <= {world.pool.generation}
        assert not world.pool.operations
        assert len(world.pool.slots) == world.pool.size or not world.pool.slots
        states = {slot.state for slot in wanted_slots(world.pool)}
        assert states <= {SlotState.FILLED if world.pool.up else SlotState.EMPTY}

    def stops_whatever_workers_do(self) -> None:
        """Only SIGKILL ends these workers, and time alone brings it."""
        world = self.world
        for _ in range(200):
            if not world.pool.workers:
                break
            killing = world.workers(WorkerState.KILLING)
            for worker in killing:
                assert Kill(attempt=worker.attempt) in world.actions
                world.exit(worker.attempt, "killed by SIGKILL")
            if not killing:
                world.to_deadline()
        assert not world.pool.workers
        assert next_deadline(world.pool) is None


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
