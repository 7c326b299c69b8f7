"""Continuity: what a daemon takes along over a re-exec, and how it keeps still for one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from drumd.supervisor.admin.desk import Desk
from drumd.supervisor.admin.server import AdminServer
from drumd.supervisor.announcer import Announcer
from drumd.supervisor.core.model import OperationState
from drumd.supervisor.holdings import Holdings
from drumd.supervisor.observe.journal import Journal
from drumd.supervisor.observe.logging import Logs
from drumd.supervisor.owner import Owner
from drumd.supervisor.pool.hands import Hands
from drumd.supervisor.pool.surroundings import Surroundings
from drumd.supervisor.processes.exits import Exits
from drumd.supervisor.processes.watchman import Watchman
from drumd.supervisor.reexec.check import Check
from drumd.supervisor.reexec.conductor import UnsettledError, end
from drumd.supervisor.reexec.document import Errand, KeptConfig, KeptDaemon
from drumd.supervisor.reloading import Reloader
from drumd.supervisor.signals import SignalDesk

LOG_PATIENCE = 0.5
"""Seconds that a re-exec waits for the receiver of the log, and for the apps' metric files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a daemon that outlive its program."""

    holdings: Holdings
    around: Surroundings
    exits: Exits
    hands: Mapping[str, Hands]
    owner: Owner
    reloader: Reloader
    desk: Desk
    journal: Journal
    announcer: Announcer
    signals: SignalDesk
    logs: Logs
    watchman: Watchman
    server: AdminServer


class Continuity:
    """Keeps a daemon's parts as a document, and puts them back.

    `start_admin` opens the admin sockets, again after a pause; `discard` lets go of a pool.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        start_admin: Callable[[], Awaitable[None]],
        discard: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._start_admin = start_admin
        self._discard = discard

    def resume(self, kept: KeptDaemon) -> None:
        """Go on with what the program before has kept."""
        parts = self._parts
        parts.journal.resume(kept.journal)
        parts.desk.resume(kept.desk)
        parts.announcer.resume(kept.announcer)
        parts.signals.resume(kept.signals)
        parts.logs.resume(kept.logs)
        parts.owner.resume(kept.pools)
        parts.around.leases.resume(kept.leases)
        parts.around.out_of_memory.resume(kept.oom_kills)
        parts.around.app_metrics.resume(kept.metrics_skipped or {})
        parts.exits.orphans_reaped = kept.orphans_reaped
        parts.watchman.resume(kept.warden)
        for name in kept.leaving:
            parts.owner.remove(name, partial(self._discard, name))

    def keep(self, errand: Errand, mask: Iterable[int]) -> KeptDaemon:
        """Return all that the new program needs; nothing changes by it."""
        parts = self._parts
        return KeptDaemon(
            errand=errand,
            config=KeptConfig.of(parts.reloader.loaded),
            holdings=parts.holdings.keep(),
            pools=parts.owner.pools,
            leaving=parts.owner.leaving,
            hands={name: hands.keep() for name, hands in parts.hands.items()},
            leases=parts.around.leases.taken,
            journal=parts.journal.keep(),
            desk=parts.desk.keep(),
            announcer=parts.announcer.keep(),
            signals=parts.signals.keep(),
            logs=parts.logs.keep(),
            warden=parts.watchman.pid,
            orphans_reaped=parts.exits.orphans_reaped,
            oom_kills=parts.around.out_of_memory.keep(),
            metrics_skipped=parts.around.app_metrics.skipped,
            mask=frozenset(mask),
        )

    def end_errand(self, errand: Errand, state: OperationState, said: str) -> None:
        """Tell how the re-exec that this program came by has ended."""
        end(self._parts.desk, self._parts.announcer.tell, errand.operation, state, said)

    def refusal(self) -> str:
        """Say why the program cannot be replaced now; "" when it can."""
        return "" if self._parts.owner.ended is None else "drumd stops"

    def check(self) -> Check:
        """Return the means to ask the new program."""
        return Check(self._parts.around.loop, self._parts.exits, self._parts.holdings.instance)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Answer nobody on the admin sockets meanwhile; who connects waits."""
        await self._parts.server.pause()
        try:
            yield
        finally:
            await self._start_admin()

    async def quiet(self) -> None:
        """Wait until nothing goes on in the background that an exec would tear."""
        if self._parts.around.background:
            await asyncio.wait(self._parts.around.background)

    async def between_decisions(self, act: Callable[[], None]) -> None:
        """Have `act` done when all that has happened is decided, and nothing is torn by it."""

        def settled() -> None:
            while self._parts.exits.settle() | self._parts.owner.settle():
                pass
            self._check_settled()
            with self._parts.around.app_metrics.settled(LOG_PATIENCE) as still:
                if not still:
                    raise UnsettledError("the apps' metrics were being settled")
                self._parts.logs.flush(LOG_PATIENCE)
                act()

        await self._parts.owner.do(settled)

    def _check_settled(self) -> None:
        if self._parts.around.background:
            raise UnsettledError("workers ended all the time")
        if not all(hands.settled for hands in self._parts.hands.values()):
            raise UnsettledError("a template was forking workers")
        if not (self._parts.signals.settled and self._parts.reloader.settled):
            raise UnsettledError("the config was being read")
