"""The daemon: its parts, put together and taken apart again."""

import asyncio
import os
import secrets
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from drumd import __version__
from drumd.config.cpus import resolve_workers
from drumd.config.loading import Loaded
from drumd.config.settings import PoolSettings, Settings
from drumd.exitcodes import DaemonExit
from drumd.supervisor.admin.desk import Desk
from drumd.supervisor.admin.office import Office
from drumd.supervisor.admin.operator import Operation
from drumd.supervisor.admin.server import AdminServer, bind_public
from drumd.supervisor.admin.socket import AdminSocket, AdminSocketError, NoPlaceError, claim
from drumd.supervisor.announcer import Announcer
from drumd.supervisor.codewatch import CodeWatch
from drumd.supervisor.core.events import Event
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import OperationKind, Pool
from drumd.supervisor.observe.appmetrics import AppMetrics
from drumd.supervisor.observe.journal import Journal
from drumd.supervisor.observe.logging import Logs
from drumd.supervisor.observe.metricfiles import MetricFiles
from drumd.supervisor.observe.notify import Notifier
from drumd.supervisor.owner import Ended, Owner
from drumd.supervisor.pool.hands import Hands
from drumd.supervisor.pool.leases import Leases
from drumd.supervisor.pool.specs import policy
from drumd.supervisor.pool.surroundings import Surroundings
from drumd.supervisor.processes.cgroup import delegated_cgroup
from drumd.supervisor.processes.exits import Exits, become_subreaper
from drumd.supervisor.processes.marks import kill_marked, kill_strays
from drumd.supervisor.processes.spawn import seal_inherited_fds
from drumd.supervisor.processes.watchman import Watchman
from drumd.supervisor.reloading import Reloader
from drumd.supervisor.signals import SignalDesk, caught
from drumd.supervisor.sockets.binding import Listeners
from drumd.supervisor.sockets.errors import ListenError
from drumd.supervisor.sockets.inherited import Inherited
from drumd.wire.address import parse_address
from drumd.wire.scoreboard import Scoreboard

LEASES = 1024
"""Workers that may live at once, of all pools, those that drain included."""
MAX_LOOK_INTERVAL = 0.5
"""Seconds between looks at the heartbeats: few wake-ups, and yet a stall shows within 1.5 s."""
MIN_LOOK_INTERVAL = 0.05
STRAY_PASSES = 100
"""Looks for adopted orphans at the end, before giving up on what forks faster than it is killed."""


def run_daemon(loaded: Loaded) -> int:
    """Run until asked to stop, or until there is no use; return the exit code."""
    settings = loaded.settings.supervisor
    logs = Logs(level=settings.log_level, form=settings.log_format)
    loop = asyncio.new_event_loop()
    with ExitStack() as stack:
        stack.callback(logs.close)
        stack.callback(loop.close)
        try:
            daemon = Daemon(loaded, logs, loop, stack)
        except (ListenError, AdminSocketError, OSError) as refusal:
            logs.write("error", f"drumd: {refusal}")
            return DaemonExit.START_FAILED
        ended = loop.run_until_complete(daemon.run())
        if ended.code is not DaemonExit.STOPPED:
            # By the log's writer: a write of our own would hang where nobody reads.
            words = daemon.last_words() if ended.code is DaemonExit.START_FAILED else []
            logs.write("error", "\n".join([f"drumd: cannot go on: {ended.reason}", *words]))
        return ended.code


class Daemon:
    """One run of the daemon, from the sockets that it binds to the last process that it clears.

    What is opened goes on `stack`, to be closed in the opposite order. Making one raises
    `ListenError`, `AdminSocketError` or OSError when something is refused; nothing has been started
    then that would have to end.
    """

    def __init__(
        self, loaded: Loaded, logs: Logs, loop: asyncio.AbstractEventLoop, stack: ExitStack
    ) -> None:
        self._loaded = loaded
        self._settings = loaded.settings.supervisor
        self._pools = loaded.settings.pools
        self._logs = logs
        self._loop = loop
        self._instance = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._hands: dict[str, Hands] = {}
        become_subreaper()
        inherited = Inherited.from_environment(os.environ)
        seal_inherited_fds()
        admin_socket, self._no_place = self._claim_admin_socket(stack)
        public = bind_public(self._settings.admin_bind) if self._settings.admin_bind else []
        listeners = self._listen(inherited, stack)
        self._unused = inherited.close()
        board = Scoreboard.create(LEASES)
        stack.callback(board.close)
        exits = Exits(loop)
        stack.callback(exits.close)
        files = MetricFiles.create(os.environ)
        stack.callback(files.remove)

        desk = Desk()
        journal = Journal(self._settings.journal_size)
        self._announcer = Announcer(journal, logs, Notifier(), desk, self._hands)
        self._around = Surroundings(
            loop=loop,
            instance=self._instance,
            supervisor_pid=os.getpid(),
            board=board,
            leases=Leases(LEASES),
            exits=exits,
            logs=logs,
            files=files,
            app_metrics=AppMetrics(),
            environ=os.environ,
            cgroup=delegated_cgroup(),
            look_interval=self._look_interval(),
            post=self._post,
            tell=self._announcer.tell,
        )
        for name, settings in self._pools.items():
            self._hands[name] = Hands(name, settings, listeners[name], self._around)
        self._owner = Owner(
            self._make_pools(), self._hands, self._announcer, loop, self._around.look_interval
        )
        self._reloader = Reloader(
            loaded, self._owner, self._hands, self, self._submit, self._follow
        )
        self._codewatch = CodeWatch(loop, self._reloader.roll, self._around.notice)
        self._office = Office(
            self._owner,
            self._hands,
            desk,
            journal,
            board,
            exits=exits,
            logs=logs,
            reloader=self._reloader,
            admin_socket=None if admin_socket is None else str(admin_socket.path),
        )
        self._watchman = Watchman(loop, exits, self._instance, self._notice)
        stack.callback(self._watchman.close)
        self._server = AdminServer(
            self._office,
            self._around.app_metrics,
            admin_socket=admin_socket,
            public=public,
            group=self._settings.admin_group,
        )

    async def run(self) -> Ended:
        """Serve until the owner ends; then leave nobody behind."""
        self._tell_start()
        signals = SignalDesk(self._owner, self._office, self._announcer)
        with caught(self._loop, signals.take):
            self._watchman.start()
            self._follow(self._loaded.settings)
            serving = self._loop.create_task(self._start_admin())
            try:
                ended = await self._owner.run()
            finally:
                self._codewatch.close()
                for hands in self._hands.values():
                    hands.close()
                await self._clear_away()
                await asyncio.wait({serving})
                await self._server.stop()
        extra = {"exit": int(ended.code)}
        self._announcer.tell(Fact(event=Happened.DAEMON_STOPPED, reason=ended.reason, extra=extra))
        return ended

    def last_words(self) -> list[str]:
        """Return what the last workers of the pools that never got ready had printed."""
        words: list[str] = []
        for name, pool in self._owner.pools.items():
            lines = self._hands[name].crew.last_words
            if lines and not pool.was_ready:
                words += [f"the last lines of a worker of pool {name}:", *(f"  {x}" for x in lines)]
        return words

    def _post(self, pool: str, event: Event) -> None:
        self._owner.post(pool, event)

    def _retired_is_quiet(self, pool: str, slot: int) -> None:
        self._hands[pool].retired_is_quiet(slot)

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

    # --- pools that come and go -----------------------------------------------------------------

    def open(self, name: str, settings: PoolSettings) -> Pool:
        """Bind a new pool's addresses and have hands for it; raise `ListenError`."""
        listeners = self._open_listeners(name, settings, Inherited.none())
        self._hands[name] = Hands(name, settings, listeners, self._around)
        return replace(_make_pool(name, settings), added=True)

    def discard(self, name: str) -> None:
        """Close what `open` opened, of a pool without workers."""
        hands = self._hands.pop(name)
        hands.close()
        hands.listeners.close()

    def _notice(self, text: str) -> None:
        self._announcer.tell(Fact(event=Happened.DAEMON_NOTICE, reason=text))

    # --- beginnings -----------------------------------------------------------------------------

    def _claim_admin_socket(self, stack: ExitStack) -> tuple[AdminSocket | None, str]:
        try:
            admin_socket = claim(self._settings.admin_socket, self._settings.admin_group)
        except NoPlaceError as error:
            return None, f"{error}; drumd goes on without one, and drumctl cannot reach it"
        stack.callback(admin_socket.close)
        return admin_socket, ""

    def _listen(self, inherited: Inherited, stack: ExitStack) -> dict[str, Listeners]:
        listeners = {}
        for name, settings in self._pools.items():
            listeners[name] = self._open_listeners(name, settings, inherited)
            stack.callback(listeners[name].close)
        return listeners

    def _open_listeners(self, name: str, settings: PoolSettings, inherited: Inherited) -> Listeners:
        return Listeners.open(
            self._loop,
            [parse_address(text) for text in settings.bind],
            backlog=settings.backlog,
            on_quiet=partial(self._retired_is_quiet, name),
            inherited=inherited,
        )

    def _make_pools(self) -> dict[str, Pool]:
        return {name: _make_pool(name, settings) for name, settings in self._pools.items()}

    def _look_interval(self) -> float:
        shortest = min(settings.health.stall_after for settings in self._pools.values())
        return min(MAX_LOOK_INTERVAL, max(MIN_LOOK_INTERVAL, shortest / 2))

    async def _start_admin(self) -> None:
        try:
            await self._server.start()
        except Exception as error:  # noqa: BLE001 - workers serve whether drumctl works or not
            self._notice(f"cannot start the admin server: {error!r}; drumctl cannot reach drumd")

    def _tell_start(self) -> None:
        for name, settings in self._pools.items():
            workers, why = resolve_workers(settings)
            binds = ", ".join(self._hands[name].listeners.addresses)
            self._announcer.tell(
                Fact(
                    event=Happened.DAEMON_STARTED,
                    reason=f"drumd {__version__} serves {binds}",
                    pool=name,
                    extra={"pid": os.getpid(), "workers": workers, "workers_reason": why},
                )
            )
        unused = [
            f"a socket was passed as fd://{name}, but no pool binds it; it is closed"
            for name in self._unused
        ]
        for text in (*map(str, self._loaded.warnings), self._no_place, *unused):
            if text:
                self._notice(text)

    # --- ends -----------------------------------------------------------------------------------

    async def _clear_away(self) -> None:
        """Wait for what is being cleared away; then kill whatever is still left, and be sure."""
        while self._around.background:
            await asyncio.wait(self._around.background)
        await asyncio.to_thread(kill_marked, self._instance)
        warden = self._watchman.pid
        known = self._around.exits.watched | ({warden} if warden else set())
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
