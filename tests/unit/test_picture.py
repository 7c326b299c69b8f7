"""What is drawn of an operation, slot by slot."""

import io

from drumd.supervisor.admin.picture import picture
from drumd.supervisor.cli.bars import MOST, bar
from drumd.supervisor.cli.terminal import Terminal
from drumd.supervisor.core.model import (
    Operation,
    OperationKind,
    Policy,
    Pool,
    Slot,
    SlotState,
    Worker,
    WorkerState,
)


def worker(attempt: int, slot: int, generation: int, state: WorkerState) -> Worker:
    return Worker(
        attempt=attempt,
        slot=slot,
        generation=generation,
        state=state,
        since=0.0,
        spawned_at=0.0,
        deadline=None,
        reason="",
    )


READY, STARTING = WorkerState.READY, WorkerState.STARTING
WORKERS = [
    worker(5, 0, 2, READY),
    worker(2, 1, 1, READY),
    worker(6, 1, 2, STARTING),
    worker(3, 2, 1, READY),
    worker(7, 4, 2, STARTING),
]
POOL = Pool(
    name="web",
    policy=Policy(),
    size=5,
    slots=(
        Slot(number=0, state=SlotState.FILLED, incumbent=5),
        Slot(number=1, state=SlotState.FILLED, incumbent=2, successor=6),
        Slot(number=2, state=SlotState.FILLED, incumbent=3),
        Slot(number=3, state=SlotState.BACKOFF),
        Slot(number=4, state=SlotState.FILLED, incumbent=7),
    ),
    workers={each.attempt: each for each in WORKERS},
)


class Screen(io.StringIO):
    """A terminal of a given encoding."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_reload_shows_generations() -> None:
    """A slot is new once its new worker serves, and starting while that comes, old one or not."""
    reload = Operation(id="web-1", kind=OperationKind.RELOAD, generation=2)
    assert picture(POOL, reload) == ("new", "starting", "old", "empty", "starting")


def test_a_restart_shows_its_own_slots() -> None:
    """A restart of one slot shows that one, by the worker that is to go."""
    restart = Operation(id="web-1", kind=OperationKind.RESTART, slot=1, old=frozenset({2}))
    assert picture(POOL, restart) == ("starting",)


def test_a_scale_down_shows_what_leaves_as_old() -> None:
    """Above the wanted size workers are old until they are gone."""
    smaller = Pool(**{**{name: getattr(POOL, name) for name in POOL.__slots__}, "size": 1})
    scale = Operation(id="web-1", kind=OperationKind.SCALE, size=1)
    assert picture(smaller, scale)[:3] == ("new", "starting", "old")


def test_a_bar_has_a_cell_for_each_slot() -> None:
    """Cells are in the order of the slots, in signs that the terminal can show."""
    slots = ("new", "starting", "old", "empty")
    plain = {"NO_COLOR": "1"}
    assert bar(slots, Terminal(Screen(), plain)) == "[█▒░·] "
    latin = Screen()
    latin.encoding = "latin-1"
    assert bar(slots, Terminal(latin, plain)) == "[#+-.] "
    assert bar(slots, Terminal(io.StringIO(), plain)) == ""


def test_a_long_bar_shows_shares() -> None:
    """More slots than fit are shown as shares, the furthest ones first."""
    slots = ("old",) * 300 + ("new",) * 100
    shown = bar(slots, Terminal(Screen(), {"NO_COLOR": "1"}))
    assert shown == f"[{'█' * (MOST // 4)}{'░' * (MOST * 3 // 4)}] "
