"""The owner: the one task that all events go through, and that alone changes pools."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from drumd.exitcodes import DaemonExit
from drumd.supervisor.core.actions import Action, EndDaemon
from drumd.supervisor.core.decide import decide
from drumd.supervisor.core.draft import Moment
from drumd.supervisor.core.events import Began, Event, ShutdownRequested, TimePassed
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import Operation, Pool, PoolState
from drumd.supervisor.core.views import next_deadline, pool_state

T = TypeVar("T")


class Hands(Protocol):
    """What the owner has done for one pool. All calls are quick; none waits."""

    def perform(self, action: Action) -> None:
        """Carry out an action that concerns a worker."""

    def project(self, pool: Pool) -> None:
        """Bring accept sets, steering and listeners in line with the pool's state."""

    def look(self, pool: Pool, now: float) -> Iterable[Event]:
        """Look at the ready workers' instruments; return what is to be decided about them."""


class Audience(Protocol):
    """Who is told what happened."""

    def tell(self, fact: Fact) -> None:
        """Take note of a fact."""

    def operations(self, pool: str, operations: Iterable[Operation]) -> None:
        """Take note of how operations stand."""

    def changed(self, pools: Mapping[str, Pool]) -> None:
        """Take note of the pools' states, after each decision."""

    def alive(self, pools: Mapping[str, Pool]) -> None:
        """Tell whoever watches that the owner runs: once for each look."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the daemon ended."""

    code: DaemonExit
    reason: str


@dataclass(frozen=True, slots=True)
class _Item:
    """What waits in the owner's queue: an event of a pool, or something to do for all."""

    act: Callable[[], None]


class Owner:
    """Owns all pools. Everyone else posts; nothing in here waits but for the next item."""

    def __init__(
        self,
        pools: Mapping[str, Pool],
        hands: Mapping[str, Hands],
        audience: Audience,
        loop: asyncio.AbstractEventLoop,
        look_interval: float,
    ) -> None:
        self.pools = dict(pools)
        self.ended: Ended | None = None
        """Set once the daemon is to end; it does when the last worker is gone."""
        self._loop = loop
        self._hands = hands
        self._audience = audience
        self._look_interval = look_interval
        self._queue: asyncio.Queue[_Item] = asyncio.Queue()
        self._alarm: asyncio.TimerHandle | None = None
        self._next_look: asyncio.TimerHandle | None = None
        self._chance = random.Random()  # noqa: S311 - jitter, no secret
        self._leaving: dict[str, Callable[[], None]] = {}
        self._forgettable: set[str] = set()
        self._resumed = False

    def resume(self, pools: Mapping[str, Pool]) -> None:
        """Go on with pools as they were before a re-exec, instead of starting them."""
        self.pools = dict(pools)
        self._resumed = True

    # --- what others call -----------------------------------------------------------------------

    def post(self, pool: str, event: Event) -> None:
        """Have `event` decided in its turn. Call it on the loop."""
        self._queue.put_nowait(_Item(lambda: self._take(pool, event)))

    def stop(self, reason: str, *, at_once: bool = False) -> None:
        """Stop the daemon: gracefully, or at once (a second call does that too)."""
        self._queue.put_nowait(
            _Item(lambda: self._end(DaemonExit.STOPPED, reason, at_once=at_once))
        )

    def do(self, act: Callable[[], T]) -> asyncio.Future[T]:
        """Have `act` done in its turn, between two decisions; return what becomes of it."""
        result: asyncio.Future[T] = self._loop.create_future()

        def do() -> None:
            if result.cancelled():  # its asker is gone
                return
            try:
                result.set_result(act())
            except Exception as error:  # noqa: BLE001 - it is the asker's
                result.set_exception(error)

        self._queue.put_nowait(_Item(do))
        return result

    def settle(self) -> bool:
        """Decide all that waits, now; say whether there was anything. From within `do` alone."""
        busy = not self._queue.empty()
        while not self._queue.empty():
            self._queue.get_nowait().act()
        return busy

    def add(self, pool: Pool) -> None:
        """Own a further pool; its hands are there. It is started by an operation."""
        self.pools[pool.name] = pool

    def remove(self, name: str, then: Callable[[], None]) -> None:
        """Forget a pool once its workers are gone; `then` is called.

        Something else stops it. What was posted before is decided first.
        """
        self._leaving[name] = then
        self._queue.put_nowait(_Item(lambda: self._forgettable.add(name)))

    @property
    def leaving(self) -> frozenset[str]:
        """The pools that are forgotten as soon as they are empty."""
        return frozenset(self._leaving)

    def _forget_empty(self) -> None:
        for name in list(self._forgettable):
            pool = self.pools[name]
            if not pool.up and not pool.workers and not pool.operations:
                del self.pools[name]
                self._forgettable.discard(name)
                self._leaving.pop(name)()

    # --- the task -------------------------------------------------------------------------------

    async def run(self) -> Ended:
        """Start the pools, decide one event after the other, and return once all is over."""
        for name, pool in self.pools.items():
            if self._resumed:
                self._hands[name].project(pool)
            else:
                self.post(name, Began())
        self._arm()
        self._plan_look()
        try:
            while True:
                item = await self._queue.get()
                item.act()
                if self._leaving:
                    self._forget_empty()
                if self.ended and not any(pool.workers for pool in self.pools.values()):
                    return self.ended
        finally:
            for timer in (self._alarm, self._next_look):
                if timer is not None:
                    timer.cancel()

    def _plan_look(self) -> None:
        self._next_look = self._loop.call_later(
            self._look_interval, self._queue.put_nowait, _Item(self._look)
        )

    def _look(self) -> None:
        now = time.monotonic()
        for name in list(self.pools):
            for event in self._hands[name].look(self.pools[name], now):
                self._take(name, event)
        self._audience.alive(self.pools)
        self._plan_look()

    def _take(self, name: str, event: Event) -> None:
        if name not in self.pools:
            return  # it was removed
        decision = decide(self.pools[name], event, Moment(time.monotonic(), self._chance.random()))
        self.pools[name] = decision.pool
        for fact in decision.facts:
            self._audience.tell(fact)
        hands = self._hands[name]
        for action in decision.actions:
            if not isinstance(action, EndDaemon):
                hands.perform(action)
        hands.project(decision.pool)
        self._audience.operations(name, (*decision.finished, *decision.pool.operations))
        self._audience.changed(self.pools)
        # Last, since it is a decision of its own about every pool, this one included.
        for action in decision.actions:
            if isinstance(action, EndDaemon):
                self._end(action.code, action.reason, at_once=False)
        self._arm()

    def _end(self, code: DaemonExit, reason: str, *, at_once: bool) -> None:
        if self.ended is None:
            self.ended = Ended(code, reason)
            text = reason if not at_once else f"{reason}, at once"
        elif code is not DaemonExit.STOPPED:
            return  # the first reason counts; losing the other pools too changes nothing
        else:
            at_once = True
            text = f"{reason} while it stopped: at once"
        extra = {"exit": int(self.ended.code)}
        self._audience.tell(Fact(event=Happened.DAEMON_STOPPING, reason=text, extra=extra))
        for name in self.pools:
            self._take(name, ShutdownRequested(reason=f"drumd stops: {text}", at_once=at_once))

    def _arm(self) -> None:
        """Have one alarm for the earliest deadline of all pools."""
        deadlines = [d for pool in self.pools.values() if (d := next_deadline(pool)) is not None]
        when = min(deadlines, default=None)
        if self._alarm is not None:
            if when == self._alarm.when() and not self._alarm.cancelled():
                return
            self._alarm.cancel()
            self._alarm = None
        if when is not None:
            # The loop's clock is time.monotonic, as everything here.
            self._alarm = self._loop.call_at(when, self._post_time)

    def _post_time(self) -> None:
        self._alarm = None
        now = time.monotonic()
        due = [
            name
            for name, pool in self.pools.items()
            if (deadline := next_deadline(pool)) is not None and deadline <= now
        ]
        for name in due:
            self.post(name, TimePassed())
        if not due:  # the loop's timers may fire a clock tick early
            self._arm()


def all_ready(pools: Mapping[str, Pool]) -> bool:
    """Say whether every pool that is wanted up serves with all its slots."""
    wanted = [pool for pool in pools.values() if pool.up]
    return bool(wanted) and all(pool_state(pool) is PoolState.READY for pool in wanted)
