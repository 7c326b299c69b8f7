"""The table of a worker's life: complete, and true to the transitions that are allowed."""

from pathlib import Path

import pytest

from drumd.supervisor.core import events
from drumd.supervisor.core.actions import DumpStacks, Kill, Terminate
from drumd.supervisor.core.draft import Draft
from drumd.supervisor.core.events import (
    BecameReady,
    Began,
    BeganLeaving,
    DeadlinePassed,
    Drained,
    Exited,
    Hung,
    LostContact,
    ProbeFailed,
    Recovered,
    RecycleDue,
    ReportedFailure,
    ShutdownRequested,
    SpawnFailed,
    Stalled,
    WorkerEvent,
)
from drumd.supervisor.core.lifecycle import TABLE, ignore
from drumd.supervisor.core.model import ALLOWED, Policy, Worker, WorkerState
from tests.unit.core_world import World

STATES_PAGE = Path(__file__).parents[2] / "docs" / "states.md"
NOTHING = "\N{EN DASH}"

SAMPLES: dict[type[WorkerEvent], WorkerEvent] = {
    type(event): event
    for event in (
        SpawnFailed(attempt=1, error="cannot start: no memory"),
        BecameReady(attempt=1),
        ReportedFailure(attempt=1, error="ImportError: no model"),
        BeganLeaving(attempt=1, signal="SIGTERM"),
        Drained(attempt=1),
        LostContact(attempt=1),
        Stalled(attempt=1, late=1.5, busy=False),
        Recovered(attempt=1),
        Hung(attempt=1, why="no heartbeat for 30 s"),
        ProbeFailed(attempt=1, answer="GET /healthz: 503"),
        RecycleDue(attempt=1, why="served 1000 requests"),
        DeadlinePassed(attempt=1),
        Exited(attempt=1, description="exit 1", foreign_signal=False, answered=False),
    )
}
KINDS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, WorkerEvent) and kind is not WorkerEvent
]
LIVING = [state for state in WorkerState if state is not WorkerState.EXITED]


def world_with_worker(state: WorkerState) -> World:
    """Return a pool of one slot whose attempt 1 is in `state`, led there by real events."""
    world = World(size=1, policy=Policy(grace_period=25.0))
    if state is WorkerState.STARTING:
        world.post(Began())
        return world
    world.begin()
    if state is WorkerState.READY:
        return world
    if state is WorkerState.DRAINING:
        world.post(ShutdownRequested(reason="SIGTERM"))
    if state in (WorkerState.STOPPING, WorkerState.KILLING):
        world.post(Hung(attempt=1, why="no heartbeat for 30 s"))
    while world.worker(1).state is not state:
        world.to_deadline()
    return world


def test_every_pair_of_state_and_event_is_decided() -> None:
    """The table holds every pair of worker state and worker event, and nothing else."""
    pairs = {(state, event) for state in WorkerState for event in KINDS}
    assert TABLE.keys() == pairs


def test_samples_cover_all_events() -> None:
    """Each kind of worker event has a sample in these tests."""
    assert set(SAMPLES) == set(KINDS)


@pytest.mark.parametrize("event", SAMPLES.values(), ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("state", LIVING)
def test_handler_obeys_allowed_transitions(state: WorkerState, event: WorkerEvent) -> None:
    """What a pair's handler makes of a worker is allowed, and `ignore` changes nothing."""
    world = world_with_worker(state)
    if (state, type(event)) == (WorkerState.READY, DeadlinePassed):  # only then it has one
        world.post(ReportedFailure(attempt=1, error="no model"))
    before = world.pool
    world.post(event)
    if TABLE[state, type(event)] is ignore:
        assert world.pool == before
    after = world.pool.workers.get(1)
    assert after is None or after.state is state or after.state in ALLOWED[state]
    assert (after is None) == isinstance(event, (Exited, SpawnFailed)) or (
        TABLE[state, type(event)] is ignore
    )


@pytest.mark.parametrize("event", SAMPLES.values(), ids=lambda event: type(event).__name__)
def test_events_of_old_attempts_change_nothing(event: WorkerEvent) -> None:
    """A late message, timer or exit of an attempt that is gone is dropped."""
    world = World(size=1).begin()
    world.exit(1, answered=True)
    before = world.pool
    decision = world.post(event)
    assert decision.pool == before
    assert not decision.actions
    assert not decision.facts


def test_forbidden_transition_raises() -> None:
    """A transition that the model does not allow is a bug that cannot go unseen."""
    world = World(size=1).begin()
    draft = Draft(pool=world.pool, now=world.now, chance=0.5)
    worker: Worker = world.worker(1)
    with pytest.raises(AssertionError, match="no way from ready to starting"):
        draft.transition(
            worker,
            WorkerState.STARTING,
            "back",
            deadline=None,
            event=world.facts[0].event,
        )


def test_each_state_can_be_left() -> None:
    """Every state of a living worker is led to its end by time alone, except ready."""
    for state in LIVING:
        world = world_with_worker(state)
        if state is WorkerState.READY:
            continue
        for _ in range(4):
            if 1 in world.pool.workers and world.worker(1).state is not WorkerState.KILLING:
                world.to_deadline()
        assert world.worker(1).state is WorkerState.KILLING
        kinds = [type(action) for action in world.actions if hasattr(action, "attempt")]
        assert Kill in kinds
        assert Terminate in kinds
        assert (DumpStacks in kinds) == (state is not WorkerState.DRAINING)


def test_page_shows_the_table() -> None:
    """docs/states.md shows what the table does: a row for each event, a cell for each state."""
    rows = _page_rows()
    assert rows.keys() == {event.__name__ for event in KINDS}
    for event in KINDS:
        shown = rows[event.__name__]
        wanted = [_cell(TABLE[state, event].__name__) for state in LIVING]
        assert shown == wanted, f"row {event.__name__}"


def test_page_explains_each_outcome() -> None:
    """docs/states.md explains in words each outcome that its table names, and no other."""
    text = STATES_PAGE.read_text()
    explained = {line.split("**")[1] for line in text.splitlines() if line.startswith("- **")}
    named = {_cell(handler.__name__) for handler in TABLE.values()} - {NOTHING}
    assert explained == named


def _cell(handler: str) -> str:
    return NOTHING if handler == "ignore" else handler.replace("_", " ")


def _page_rows() -> dict[str, list[str]]:
    """Return the cells of the table of worker states by event."""
    rows = {}
    for line in STATES_PAGE.read_text().splitlines():
        if line.startswith("| `"):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name.strip("`")] = cells
    return rows
