"""The daemon's signals: noted on the loop, and what each of them means (docs/signals.md)."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from drumd.supervisor.admin.office import Office
from drumd.supervisor.admin.operator import FINAL, RefusedError
from drumd.supervisor.announcer import Announcer
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import OperationState
from drumd.supervisor.owner import Owner

HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
_WAIT = 3600.0
"""Seconds until another look at a restart that goes on; no limit, only a bound for one wait."""


@dataclass(frozen=True, slots=True)
class KeptSignals:
    """What signals have begun, over a re-exec, and whether the terminal was there before it."""

    had_terminal: bool
    hung_up: bool
    reloads: tuple[tuple[str, ...], ...] = ()
    """The operations of each SIGHUP's reload that goes on."""


@contextmanager
def caught(
    loop: asyncio.AbstractEventLoop, note: Callable[[signal.Signals], None]
) -> Iterator[None]:
    """Have `note` called on the loop for each signal that drumd handles; restore at the end.

    Dispositions and the mask are inherited: a shell that starts drumd with `&` leaves SIGINT and
    SIGQUIT ignored, so they are set here whatever they were.
    """
    before = {number: signal.getsignal(number) for number in HANDLED}
    for number in HANDLED:
        loop.add_signal_handler(number, note, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    try:
        yield
    finally:
        for number in HANDLED:
            loop.remove_signal_handler(number)
            handler = before[number]
            if handler is not None:
                signal.signal(number, handler)


def leave_to_main_thread() -> None:
    """Have the calling thread take no signal.

    One that a thread takes is noted for the main thread, and an exec in that very moment would
    lose it, though the main thread itself has blocked it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


class SignalDesk:
    """Takes signals on the loop, and has the owner or the office do what they ask for."""

    def __init__(
        self,
        owner: Owner,
        office: Office,
        announcer: Announcer,
    ) -> None:
        self._owner = owner
        self._office = office
        self._announcer = announcer
        self._reloads: dict[asyncio.Task[None], tuple[str, ...] | None] = {}
        """With the operations that each has begun; None: it still reads the config."""
        self._resumed: tuple[tuple[str, ...], ...] = ()
        self._had_terminal = _has_terminal()
        self._hung_up = False

    @property
    def settled(self) -> bool:
        """Whether no reload is just reading the config."""
        return None not in self._reloads.values()

    def keep(self) -> KeptSignals:
        """Return what `resume` needs."""
        reloads = tuple(begun for begun in self._reloads.values() if begun is not None)
        return KeptSignals(self._had_terminal, self._hung_up, reloads)

    def resume(self, kept: KeptSignals) -> None:
        """Go on from what was known before a re-exec, once `begin` is called."""
        self._had_terminal = kept.had_terminal
        self._hung_up = kept.hung_up
        self._resumed = kept.reloads

    def begin(self) -> None:
        """See through what was under way before a re-exec. On the running loop."""
        for operations in self._resumed:
            self._in_background(self._go_on(operations), operations)

    def take(self, number: signal.Signals) -> None:
        """Act on a signal."""
        match number:
            case signal.SIGTERM | signal.SIGINT:
                if self._owner.ended is None:
                    self._note(number, self._office.farewell(_again(number)))
                self._owner.stop(f"got {number.name}")
            case signal.SIGQUIT:
                self._owner.stop(f"got {number.name}", at_once=True)
            case signal.SIGHUP if self._had_terminal and not _has_terminal():
                # Shell and kernel both send one; nobody meant the second as "at once".
                if not self._hung_up:
                    self._hung_up = True
                    self._owner.stop("the terminal was closed")
            case signal.SIGHUP:
                self._begin_reload()
            case signal.SIGTTIN:
                self._scale(+1, number)
            case signal.SIGTTOU:
                self._scale(-1, number)
            case signal.SIGUSR1:
                self._note(number, "drumd writes to stderr alone: there is no log file to reopen")
            case _:
                self._begin_reexec(number)

    def _scale(self, by_how_many: int, number: signal.Signals) -> None:
        refusal = self._office.scale_only_pool(by_how_many, number.name)
        self._note(number, refusal or f"one worker {'more' if by_how_many > 0 else 'fewer'}")

    def _begin_reexec(self, number: signal.Signals) -> None:
        try:
            operation = self._office.re_exec(by=number.name)
        except RefusedError as error:
            self._note(number, str(error))
        else:
            self._note(number, f"replaces drumd's own program: {operation.id}")

    def _begin_reload(self) -> None:
        self._note(signal.SIGHUP, "reads the config again, and rolls out what it changes")
        self._in_background(self._reload(), None)

    def _in_background(
        self, reload: Coroutine[Any, Any, None], operations: tuple[str, ...] | None
    ) -> None:
        task = asyncio.get_running_loop().create_task(reload)
        self._reloads[task] = operations
        task.add_done_callback(self._reloads.pop)

    async def _reload(self) -> None:
        """Reload; between RELOADING=1 and READY=1 systemd knows that it goes on."""
        self._announcer.reloading()
        with self._telling_the_end():
            operations = await self._begin_operations()
            task = asyncio.current_task()
            if task is not None:
                self._reloads[task] = operations
            await self._see_through(operations)

    async def _go_on(self, operations: tuple[str, ...]) -> None:
        with self._telling_the_end():
            await self._see_through(operations)

    @contextmanager
    def _telling_the_end(self) -> Iterator[None]:
        """Tell systemd at the end of the last reload: a later one supersedes what it finds."""
        try:
            yield
        finally:
            if len(self._reloads) == 1:
                self._announcer.reloaded()

    async def _begin_operations(self) -> tuple[str, ...]:
        try:
            reload = await self._office.reload(None, by="SIGHUP")
        except RefusedError as error:
            self._note(signal.SIGHUP, str(error))
            return ()
        for note in reload.notes:
            self._note(signal.SIGHUP, note)
        return tuple(operation.id for operation in reload.operations)

    async def _see_through(self, operations: tuple[str, ...]) -> None:
        for operation_id in operations:
            operation = self._office.operation(operation_id)
            while operation.state not in FINAL:
                operation = await self._office.wait(operation.id, _WAIT)
            if operation.state is OperationState.FAILED:
                text = f"pool {operation.pool} was not reloaded: {operation.reason}"
                self._note(signal.SIGHUP, text)

    def _note(self, number: signal.Signals, text: str) -> None:
        self._announcer.tell(Fact(event=Happened.SIGNAL_RECEIVED, reason=f"{number.name}: {text}"))


def _again(number: signal.Signals) -> str:
    return "a second Ctrl-C" if number is signal.SIGINT else f"a second {number.name}"


def _has_terminal() -> bool:
    """Say whether the session has a controlling terminal: /dev/tty opens only with one (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
