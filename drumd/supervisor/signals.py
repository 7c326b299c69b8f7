"""The daemon's signals: noted on the loop, and what each of them means (docs/signals.md)."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from drumd.supervisor.admin.office import Office
from drumd.supervisor.admin.operator import FINAL, RefusedError
from drumd.supervisor.announcer import Announcer
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import OperationKind, OperationState
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
    """What is known of the terminal, over a re-exec: it may be gone by the next look."""

    had_terminal: bool
    hung_up: bool


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
        self._reload: asyncio.Task[None] | None = None
        self._had_terminal = _has_terminal()
        self._hung_up = False

    def keep(self) -> KeptSignals:
        """Return what `resume` needs."""
        return KeptSignals(self._had_terminal, self._hung_up)

    def resume(self, kept: KeptSignals) -> None:
        """Go on from what was known before a re-exec."""
        self._had_terminal = kept.had_terminal
        self._hung_up = kept.hung_up

    @property
    def reloading(self) -> bool:
        """Whether a SIGHUP's restarts go on."""
        return self._reload is not None and not self._reload.done()

    def take(self, number: signal.Signals) -> None:
        """Act on a signal."""
        match number:
            case signal.SIGTERM | signal.SIGINT:
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
        if self.reloading:
            self._note(signal.SIGHUP, "a reload is under way already")
            return
        self._note(
            signal.SIGHUP, "restarts all pools, one worker after the other, with the code on disk"
        )
        self._reload = asyncio.get_running_loop().create_task(self._restart_all())

    async def _restart_all(self) -> None:
        """Restart every pool; between RELOADING=1 and READY=1 systemd knows that it goes on."""
        self._announcer.reloading()
        try:
            for name, pool in self._owner.pools.items():
                if pool.up:
                    await self._restart(name)
        finally:
            self._announcer.reloaded()

    async def _restart(self, pool: str) -> None:
        try:
            operation = self._office.submit(
                OperationKind.RESTART, pool, slot=None, size=None, by="SIGHUP"
            )
        except RefusedError as error:
            self._note(signal.SIGHUP, str(error))
            return
        while operation.state not in FINAL:
            operation = await self._office.wait(operation.id, _WAIT)
        if operation.state is OperationState.FAILED:
            self._note(signal.SIGHUP, f"pool {pool} was not restarted: {operation.reason}")

    def _note(self, number: signal.Signals, text: str) -> None:
        self._announcer.tell(Fact(event=Happened.SIGNAL_RECEIVED, reason=f"{number.name}: {text}"))


def _has_terminal() -> bool:
    """Say whether the session has a controlling terminal: /dev/tty opens only with one (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
