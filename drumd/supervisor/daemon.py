"""The daemon: its parts, put together and taken apart again."""

import asyncio
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from drumd.config.cpus import resolve_workers
from drumd.config.loading import Loaded
from drumd.config.settings import PoolSettings, Settings
from drumd.exitcodes import DaemonExit
from drumd.supervisor.admin.desk import Desk
from drumd.supervisor.admin.office import Office
from drumd.supervisor.admin.operator import Operation
from drumd.supervisor.admin.server import AdminServer
from drumd.supervisor.announcer import Announcer
from drumd.supervisor.codewatch import CodeWatch
from drumd.supervisor.continuity import Continuity, Parts
from drumd.supervisor.core.events import Event
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import OperationKind, Pool
from drumd.supervisor.holdings import LEASES, Holdings, open_listeners
from drumd.supervisor.observe.appmetrics import AppMetrics
from drumd.supervisor.observe.journal import Journal
from drumd.supervisor.observe.logging import Logs
from drumd.supervisor.observe.notify import Notifier
from drumd.supervisor.owner import Ended, Owner
from drumd.supervisor.pool.hands import Hands
from drumd.supervisor.pool.leases import Leases
from drumd.supervisor.pool.specs import policy
from drumd.supervisor.pool.surroundings import Surroundings
from drumd.supervisor.processes.cgroup import delegated_cgroup
from drumd.supervisor.processes.exits import Exits, become_subreaper
from drumd.supervisor.processes.marks import kill_marked, kill_strays
from drumd.supervisor.processes.watchman import Watchman
from drumd.supervisor.reexec.conductor import Conductor
from drumd.supervisor.reexec.document import KeptDaemon
from drumd.supervisor.reexec.program import Program
from drumd.supervisor.reloading import Reloader
from drumd.supervisor.signals import SignalDesk, caught
from drumd.supervisor.sockets.inherited import Inherited

MAX_LOOK_INTERVAL = 0.5
"""Seconds between looks at the heartbeats: few wake-ups, and yet a stall shows within 1.5 s."""
MIN_LOOK_INTERVAL = 0.05
STRAY_PASSES = 100
"""Looks for adopted orphans at the end, before giving up on what forks faster than it is killed."""


class Daemon:
    """One run of the daemon, with what it holds, to the last process that it clears.

    What has to be closed goes on `stack`. Making one changes nothing outside of this process, so
    that a re-exec can be given up until `run`.
    """

    def __init__(
        self,
        loaded: Loaded,
        logs: Logs,
        loop: asyncio.AbstractEventLoop,
        stack: ExitStack,
        *,
        program: Program,
        hold: Callable[["Daemon"], Holdings],
        kept: KeptDaemon | None = None,
    ) -> None:
        """Hold what `hold` opens, and begin anew, or with what a re-exec has `kept`."""
        self._loaded = loaded
        self._logs = logs
        self._loop = loop
        self.hands: dict[str, Hands] = {}
        become_subreaper()
        self._holdings = hold(self)
        stack.callback(self._holdings.close)
        self._exits = Exits(loop)
        stack.callback(self._exits.close)
        self._desk = Desk()
        self._journal = Journal(loaded.settings.supervisor.journal_size)
        self.announcer = Announcer(self._journal, logs, Notifier(), self._desk, self.hands)
        self._around = self._surroundings()
        for name, listeners in self._holdings.listeners.items():
            self.hands[name] = Hands(
                name,
                loaded.settings.pools[name] if kept is None else kept.hands[name],
                listeners,
                self._around,
            )
        self._owner = Owner(
            self._make_pools(), self.hands, self.announcer, loop, self._around.look_interval
        )
        self._reloader = Reloader(loaded, self._owner, self.hands, self, self._submit, self._follow)
        self._codewatch = CodeWatch(loop, self._reloader.roll, self._around.notice)
        admin_socket = self._holdings.admin_socket
        self._office = Office(
            self._owner,
            self.hands,
            self._desk,
            self._journal,
            self._holdings.board,
            exits=self._exits,
            logs=logs,
            reloader=self._reloader,
            admin_socket=None if admin_socket is None else str(admin_socket.path),
            started_at=self._holdings.started_at,
            re_exec=self._re_exec,
        )
        self._watchman = Watchman(loop, self._exits, self._holdings.instance, self.notice)
        stack.callback(self._watchman.close)
        self._signals = SignalDesk(self._owner, self._office, self.announcer)
        self._server = AdminServer(
            self._office,
            self._around.app_metrics,
            admin_socket=admin_socket,
            public=self._holdings.public,
            group=loaded.settings.supervisor.admin_group,
        )
        self.continuity = Continuity(
            Parts(
                holdings=self._holdings,
                around=self._around,
                exits=self._exits,
                hands=self.hands,
                owner=self._owner,
                reloader=self._reloader,
                desk=self._desk,
                journal=self._journal,
                announcer=self.announcer,
                signals=self._signals,
                logs=logs,
                watchman=self._watchman,
                server=self._server,
            ),
            start_admin=self._start_admin,
            discard=self.discard,
        )
        self._conductor = Conductor(self.continuity, program, self._desk, self.announcer.tell)
        if kept is not None:
            self.continuity.resume(kept)

    async def run(self, begin: Callable[["Daemon"], None]) -> Ended:
        """Serve until the owner ends; then leave nobody behind.

        `begin` is called once signals are caught, before anything is decided.
        """
        with caught(self._loop, self._signals.take):
            begin(self)
            self._signals.begin()
            self._tidy()
            self._watchman.start()
            self._follow(self._loaded.settings)
            serving = self._loop.create_task(self._start_admin())
            try:
                ended = await self._owner.run()
            finally:
                self._codewatch.close()
                for hands in self.hands.values():
                    hands.close()
                await self._conductor.close()
                await self._clear_away()
                await asyncio.wait({serving})
                await self._server.stop()
        extra = {"exit": int(ended.code)}
        # Why it failed was told when it began to stop, and is its last line.
        reason = ended.reason if ended.code is DaemonExit.STOPPED else "no worker is left"
        self.announcer.tell(Fact(event=Happened.DAEMON_STOPPED, reason=reason, extra=extra))
        return ended

    @property
    def loaded(self) -> Loaded:
        """The config in force."""
        return self._loaded

    @property
    def notes(self) -> list[str]:
        """What an operator may want to know of how sockets and files were had."""
        return self._holdings.notes

    def notice(self, text: str) -> None:
        """Tell the operator something that changes nothing."""
        self.announcer.tell(Fact(event=Happened.DAEMON_NOTICE, reason=text))

    def last_words(self) -> list[str]:
        """Return what the last workers of the pools that never got ready had printed."""
        words: list[str] = []
        for name, pool in self._owner.pools.items():
            lines = self.hands[name].crew.last_words
            if lines and not pool.was_ready:
                words += [f"the last lines of a worker of pool {name}:", *(f"  {x}" for x in lines)]
        return words

    def retired_is_quiet(self, pool: str, slot: int) -> None:
        """Nobody waits at a retiring slot's listeners."""
        self.hands[pool].retired_is_quiet(slot)

    # --- pools that come and go -----------------------------------------------------------------

    def open(self, name: str, settings: PoolSettings) -> Pool:
        """Bind a new pool's addresses and have hands for it; raise `ListenError`."""
        on_quiet = partial(self.retired_is_quiet, name)
        listeners = open_listeners(self._loop, settings, on_quiet, Inherited.none())
        self._holdings.listeners[name] = listeners
        self.hands[name] = Hands(name, settings, listeners, self._around)
        return replace(_make_pool(name, settings), added=True)

    def discard(self, name: str) -> None:
        """Close what `open` opened, of a pool without workers."""
        self.hands.pop(name).close()
        self._holdings.listeners.pop(name).close()

    def _submit(
        self,
        kind: OperationKind,
        pool: str,
        by: str,
        *,
        size: int | None = None,
        generation: int | None = None,
        preload: bool = False,
    ) -> Operation:
        return self._office.submit(
            kind, pool, by=by, size=size, generation=generation, preload=preload
        )

    def _follow(self, settings: Settings) -> None:
        self._logs.set_level(settings.supervisor.log_level)
        self._codewatch.follow(dict(settings.pools))

    # --- beginnings -----------------------------------------------------------------------------

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            loop=self._loop,
            instance=self._holdings.instance,
            supervisor_pid=os.getpid(),
            board=self._holdings.board,
            leases=Leases(LEASES),
            exits=self._exits,
            logs=self._logs,
            files=self._holdings.files,
            app_metrics=AppMetrics(),
            environ=os.environ,
            cgroup=delegated_cgroup(),
            look_interval=self._look_interval(),
            post=self._post,
            tell=self.announcer.tell,
        )

    def _post(self, pool: str, event: Event) -> None:
        self._owner.post(pool, event)

    def _make_pools(self) -> dict[str, Pool]:
        pools = self._loaded.settings.pools
        return {name: _make_pool(name, settings) for name, settings in pools.items()}

    def _look_interval(self) -> float:
        pools = self._loaded.settings.pools.values()
        shortest = min(settings.health.stall_after for settings in pools)
        return min(MAX_LOOK_INTERVAL, max(MIN_LOOK_INTERVAL, shortest / 2))

    def _re_exec(self, by: str) -> Operation:
        return self._conductor.request(by)

    async def _start_admin(self) -> None:
        try:
            await self._server.start()
        except Exception as error:  # noqa: BLE001 - workers serve whether drumctl works or not
            self.notice(f"cannot start the admin server: {error!r}; drumctl cannot reach drumd")

    def _tidy(self) -> None:
        """Clear what the program before a re-exec had no time to clear."""
        if self._around.cgroup is not None:
            handles = [h for hands in self.hands.values() for h in hands.crew.handles.values()]
            known = {handle.cgroup.path for handle in handles if handle.cgroup is not None}
            self._around.cgroup.tidy(self._loop, known)

    # --- ends -----------------------------------------------------------------------------------

    async def _clear_away(self) -> None:
        """Wait for what is being cleared away; then kill whatever is still left, and be sure."""
        while self._around.background:
            await asyncio.wait(self._around.background)
        await asyncio.to_thread(kill_marked, self._holdings.instance)
        warden = self._watchman.pid
        known = self._exits.watched | ({warden} if warden else set())
        for _ in range(STRAY_PASSES):
            # What a killed one had started itself is a child of ours by the next pass.
            if not await asyncio.to_thread(kill_strays, known):
                break


def _make_pool(name: str, settings: PoolSettings) -> Pool:
    return Pool(
        name=name,
        policy=policy(settings),
        size=resolve_workers(settings)[0],
        preload=settings.preload,
    )
