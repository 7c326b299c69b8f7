"""Threads for hooks: how many run, how many wait, and what becomes of those that are given up."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator

import pytest

from drumd.modelserver.serving.hook_pool import HookPool, PoolFullError
from tests.waiting import until


class Gate:
    """A function that runs until it is let go, and counts who came in."""

    def __init__(self) -> None:
        self.entered = 0
        self._go = threading.Event()

    def __call__(self) -> str:
        self.entered += 1
        self._go.wait(30)
        return "done"

    def open(self) -> None:
        self._go.set()


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    """Return a gate that is open at the end in any case."""
    gate = Gate()
    yield gate
    gate.open()


async def test_results_and_exceptions_come_back() -> None:
    """What the function returns is returned, and what it raises is raised."""
    pool = HookPool(1, 0)
    assert await pool.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(divmod, 7, 0)
    with pytest.raises(SystemExit):
        await pool.run(exit_, 3)
    assert await pool.run(divmod, 7, 2) == (3, 1)
    pool.close()


def exit_(code: int) -> None:
    raise SystemExit(code)


async def test_no_thread_is_made_before_it_is_needed() -> None:
    """A process that only holds a pool can be forked."""
    before = threading.active_count()
    pool = HookPool(4, 4)
    assert threading.active_count() == before
    await pool.run(int)
    assert threading.active_count() == before + 1
    pool.close()


async def test_so_many_run_and_so_many_wait(gate: Gate) -> None:
    """Beyond both a call is refused; those that wait run when others have ended."""
    pool = HookPool(2, 2)
    running = [asyncio.create_task(pool.run(gate)) for _ in range(2)]
    await until(lambda: gate.entered == 2)
    waiting = [asyncio.create_task(pool.run(gate)) for _ in range(2)]
    await until(lambda: pool.waiting == 2)
    with pytest.raises(PoolFullError, match="2 requests are computed and 2 wait"):
        await pool.run(gate)
    assert gate.entered == 2
    gate.open()
    for each in (*running, *waiting):
        assert await each == "done"
    assert gate.entered == 4
    assert pool.free
    pool.close()


async def test_calls_run_in_the_order_in_which_they_came(gate: Gate) -> None:
    """Nobody overtakes who waits, not even a call that comes when a thread has just become free."""
    pool = HookPool(1, 9)
    running = asyncio.create_task(pool.run(gate))
    await until(lambda: gate.entered == 1)
    order: list[int] = []
    waiting = [asyncio.create_task(pool.run(order.append, number)) for number in range(5)]
    await until(lambda: pool.waiting == 5)
    gate.open()
    await running
    await pool.run(order.append, 5)
    for each in waiting:
        await each
    assert order == [0, 1, 2, 3, 4, 5]
    pool.close()


async def test_what_belongs_to_an_answer_waits_in_any_case(gate: Gate) -> None:
    """A step of a stream is not refused, however many wait."""
    pool = HookPool(1, 0)
    running = asyncio.create_task(pool.run(gate))
    await until(lambda: gate.entered == 1)
    with pytest.raises(PoolFullError):
        await pool.run(gate)
    step = asyncio.create_task(pool.run(gate, admitted=True))
    await until(lambda: pool.waiting == 1)
    gate.open()
    assert {await running, await step} == {"done"}
    pool.close()


async def test_a_cancelled_wait_frees_its_place(gate: Gate) -> None:
    """It never runs, and another call can wait instead."""
    pool = HookPool(1, 1)
    running = asyncio.create_task(pool.run(gate))
    await until(lambda: gate.entered == 1)
    given_up = asyncio.create_task(pool.run(gate))
    await until(lambda: pool.waiting == 1)
    given_up.cancel()
    await until(lambda: pool.waiting == 0)
    other = asyncio.create_task(pool.run(gate))
    await until(lambda: pool.waiting == 1)
    gate.open()
    assert {await running, await other} == {"done"}
    assert gate.entered == 2
    pool.close()


async def test_a_cancelled_run_keeps_its_thread_until_it_ends(gate: Gate) -> None:
    """Nothing can end a function that runs, so its place is taken as long as it does."""
    pool = HookPool(1, 1)
    running = asyncio.create_task(pool.run(gate))
    await until(lambda: gate.entered == 1)
    running.cancel()
    await asyncio.wait([running])
    assert not pool.free
    gate.open()
    await until(lambda: pool.free)
    assert await pool.run(divmod, 1, 1) == (1, 0)
    pool.close()


async def test_what_a_cancelled_run_returns_is_unwanted(gate: Gate) -> None:
    """It is given away in a thread, since it may have to be closed; a result that came is not."""
    pool = HookPool(1, 1)
    unwanted: list[tuple[str, bool]] = []

    def take(result: str) -> None:
        unwanted.append((result, threading.current_thread() is threading.main_thread()))

    running = asyncio.create_task(pool.run(gate, unwanted=take))
    await until(lambda: gate.entered == 1)
    running.cancel()
    await asyncio.wait([running])
    gate.open()
    await until(lambda: pool.free and bool(unwanted))
    assert unwanted == [("done", False)]
    assert await pool.run(gate, unwanted=take) == "done"
    assert len(unwanted) == 1
    pool.close()


async def test_a_place_given_in_the_moment_of_cancelling_goes_on(gate: Gate) -> None:
    """A call that is cancelled when its thread has just become free passes it on."""
    pool = HookPool(1, 2)
    running = asyncio.create_task(pool.run(gate))
    await until(lambda: gate.entered == 1)
    given_up = asyncio.create_task(pool.run(gate))
    other = asyncio.create_task(pool.run(gate))
    await until(lambda: pool.waiting == 2)
    pool._leave()  # as the thread's end would, in the same turn of the loop as the cancelling
    pool._busy += 1
    given_up.cancel()
    await asyncio.wait([given_up])
    assert given_up.cancelled()
    gate.open()
    assert {await running, await other} == {"done"}
    pool.close()


async def test_a_function_runs_in_its_callers_context() -> None:
    """Traces are told apart by context variables."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("mine")
    pool = HookPool(1, 0)
    assert await pool.run(variable.get) == "mine"
    pool.close()


async def test_what_is_detached_runs_although_nobody_waits() -> None:
    """It gets its turn in the same threads."""
    pool = HookPool(1, 0)
    done = threading.Event()
    pool.detach(done.set)
    await until(done.is_set)
    await until(lambda: pool.free)
    pool.close()


async def test_threads_that_all_hang_raise_the_alarm(gate: Gate) -> None:
    """Once all threads were busy for so long with the same calls, it is told, and once."""
    told = asyncio.Event()
    pool = HookPool(2, 0, patience=0.05, stuck=told.set)
    calls = [asyncio.ensure_future(pool.run(gate)) for _ in range(2)]
    await asyncio.wait_for(told.wait(), 30)
    told.clear()
    gate.open()
    assert await asyncio.gather(*calls) == ["done", "done"]
    assert not told.is_set()
    pool.close()


async def test_a_free_thread_and_a_finished_call_keep_the_alarm_off(gate: Gate) -> None:
    """One thread that hangs says nothing of the others, nor do many calls one after the other."""
    alarms: list[None] = []
    pool = HookPool(2, 8, patience=0.2, stuck=lambda: alarms.append(None))
    hanging = asyncio.ensure_future(pool.run(gate))
    loop = asyncio.get_running_loop()
    until_later = loop.time() + 0.6
    while loop.time() < until_later:
        assert await pool.run(divmod, 7, 2) == (3, 1)
    assert not alarms
    gate.open()
    assert await hanging == "done"
    pool.close()
