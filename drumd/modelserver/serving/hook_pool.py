"""Threads for the model's hooks beside an event loop: so many at once, so many that wait."""

import asyncio
import contextlib
import contextvars
import functools
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from drumd.modelserver.errors import BusyError

T = TypeVar("T")


class PoolFullError(BusyError):
    """cannot run another hook: all threads are busy, and as many wait as may."""


class HookPool:
    """Runs functions in threads, in the order in which they came; for one event loop.

    It makes its threads when they are first needed, so a template that has one can be forked.
    Nothing can end a thread that hangs. So once no call has begun or ended for `patience` seconds
    while all threads were busy, `stuck` is called: they will not become free any more.
    """

    def __init__(
        self,
        threads: int,
        queue: int,
        *,
        patience: float = math.inf,
        stuck: Callable[[], None] = lambda: None,
    ) -> None:
        self.threads = threads
        self.queue = queue
        self._patience = patience
        self._stuck = stuck
        self._alarm: asyncio.TimerHandle | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._busy = 0
        self._detached: set[asyncio.Task[Any]] = set()
        """What nobody awaits; the loop itself would forget it."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Return how many wait for a thread."""
        return len(self._waiting)

    @property
    def free(self) -> bool:
        """Return whether the next call would run at once."""
        return self._busy < self.threads

    async def run(
        self,
        function: Callable[..., T],
        *args: Any,
        admitted: bool = False,
        unwanted: Callable[[T], None] | None = None,
    ) -> T:
        """Return what `function(*args)` returns, or raise what it raises.

        A call that is cancelled while it waits gives its place up; one that runs goes on, and its
        thread is busy until it ends. What it returns then, a thread gives to `unwanted`, which must
        not raise. `admitted`: it belongs to an answer that has begun, and waits however many do.
        Raises `PoolFullError`.
        """
        await self._enter(admitted=admitted)
        self._watch()
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="hooks")
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        # The thread goes on in the request's context, which traces are told apart by.
        context = contextvars.copy_context()

        def ended(result: Any, error: BaseException | None) -> None:
            self._leave()
            if outcome.cancelled():
                if error is None and unwanted is not None:
                    self.detach(functools.partial(unwanted, result))
            elif error is None:
                outcome.set_result(result)
            else:
                outcome.set_exception(error)

        def work() -> None:
            result, error = None, None
            try:
                result = context.run(function, *args)
            except BaseException as raised:  # noqa: BLE001 - it is raised where the result is awaited
                error = raised
            # The loop is closed when the worker ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended, result, error)

        try:
            self._executor.submit(work)
        except BaseException:
            self._leave()
            raise
        return await outcome

    def detach(self, function: Callable[[], None]) -> None:
        """Have `function`, which must not raise, run when a thread is free; nobody waits for it."""
        task = asyncio.get_running_loop().create_task(self.run(function, admitted=True))
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)

    def close(self) -> None:
        """Take no more calls; those that run go on."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    async def _enter(self, *, admitted: bool) -> None:
        if self.free:
            self._busy += 1
            return
        if len(self._waiting) >= self.queue and not admitted:
            raise PoolFullError(
                f"cannot answer now: {self.threads} requests are computed and {self.queue} wait; "
                "try again later"
            )
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(place)
            else:
                self._leave()  # it was given a thread in the same moment
            raise

    def _watch(self) -> None:
        """Set the alarm anew, or off: a call has begun or ended."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if not self.free and self._patience < math.inf:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_later(self._patience, self._stuck)

    def _leave(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)  # the thread is the next one's: `_busy` stays
                return
        self._busy -= 1
        self._watch()
