"""The daemon: its parts, put together and taken apart again."""

import asyncio
import os
import secrets
from contextlib import ExitStack
from functools import partial

from drumd import __version__
from drumd.config.cpus import resolve_workers
from drumd.config.loading import Loaded
from drumd.exitcodes import DaemonExit
from drumd.supervisor.admin.server import AdminServer, bind_public
from drumd.supervisor.admin.socket import AdminSocket, AdminSocketError, NoPlaceError, claim
from drumd.supervisor.announcer import Announcer
from drumd.supervisor.core.events import Event
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import Pool
from drumd.supervisor.desk import Desk
from drumd.supervisor.hands import Hands
from drumd.supervisor.leases import Leases
from drumd.supervisor.metricfiles import MetricFiles
from drumd.supervisor.observe.appmetrics import AppMetrics
from drumd.supervisor.observe.journal import Journal
from drumd.supervisor.observe.logging import Logs
from drumd.supervisor.observe.notify import Notifier
from drumd.supervisor.office import Office
from drumd.supervisor.owner import Ended, Owner
from drumd.supervisor.processes.cgroup import delegated_cgroup
from drumd.supervisor.processes.exits import Exits, become_subreaper
from drumd.supervisor.processes.marks import kill_marked, kill_strays
from drumd.supervisor.processes.spawn import seal_inherited_fds
from drumd.supervisor.signaldesk import SignalDesk
from drumd.supervisor.signals import caught
from drumd.supervisor.sockets.binding import Listeners
from drumd.supervisor.sockets.errors import ListenError
from drumd.supervisor.sockets.inherited import Inherited
from drumd.supervisor.specs import policy
from drumd.supervisor.surroundings import Surroundings
from drumd.supervisor.watchman import Watchman
from drumd.wire.address import parse_address
from drumd.wire.scoreboard import Scoreboard

LEASES = 1024
"""Workers that may live at once, of all pools, those that drain included."""
MAX_LOOK_INTERVAL = 0.5
"""Seconds between looks at the heartbeats: few wake-ups, and yet a stall shows within 1.5 s."""
MIN_LOOK_INTERVAL = 0.05


def run_daemon(loaded: Loaded) -> int:
    """Run until asked to stop, or until there is no use; return the exit code."""
    settings = loaded.settings.supervisor
    logs = Logs(level=settings.log_level, form=settings.log_format)
    loop = asyncio.new_event_loop()
    daemon = Daemon(loaded, logs, loop)
    last_words: list[str] = []
    error = ""
    try:
        ended = loop.run_until_complete(daemon.run())
        code, last_words = ended.code, daemon.last_words
        error = "" if code is DaemonExit.STOPPED else f"cannot go on: {ended.reason}"
    except (ListenError, AdminSocketError, OSError) as refusal:
        code, error = DaemonExit.START_FAILED, str(refusal)
    finally:
        loop.close()
        if error:
            # By the log's writer: a write of our own would hang where nobody reads.
            logs.write("error", "\n".join([f"drumd: {error}", *last_words]))
        logs.close()
    return code


class Daemon:
    """One run of the daemon, from the sockets that it binds to the last process that it clears."""

    def __init__(self, loaded: Loaded, logs: Logs, loop: asyncio.AbstractEventLoop) -> None:
        self._loaded = loaded
        self._settings = loaded.settings.supervisor
        self._pools = loaded.settings.pools
        self._logs = logs
        self._loop = loop
        self._instance = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._hands: dict[str, Hands] = {}
        self._owner: Owner | None = None
        self._journal = Journal(self._settings.journal_size)
        self.last_words: list[str] = []
        """Once it has ended because a pool could not start: what its last worker printed."""

    async def run(self) -> Ended:
        """Run, and leave nothing open and nobody behind."""
        with ExitStack() as stack:
            # First what may be refused: nothing has been started yet that would have to end.
            become_subreaper()
            inherited = Inherited.from_environment(os.environ)
            seal_inherited_fds()
            admin_socket, no_place = self._claim_admin_socket(stack)
            public = bind_public(self._settings.admin_bind) if self._settings.admin_bind else []
            listeners = self._listen(inherited, stack)
            board = Scoreboard.create(LEASES)
            stack.callback(board.close)
            exits = Exits(self._loop)
            stack.callback(exits.close)
            files = MetricFiles.create(os.environ)
            stack.callback(files.remove)

            desk = Desk()
            announcer = Announcer(self._journal, self._logs, Notifier(), desk, self._hands)
            around = Surroundings(
                loop=self._loop,
                instance=self._instance,
                supervisor_pid=os.getpid(),
                board=board,
                leases=Leases(LEASES),
                exits=exits,
                logs=self._logs,
                app_metrics=AppMetrics(),
                environ=os.environ,
                cgroup=delegated_cgroup(),
                look_interval=self._look_interval(),
                post=self._post,
                tell=announcer.tell,
            )
            for name, settings in self._pools.items():
                wanted = files.directory(name, 1) if settings.app_metrics else None
                self._hands[name] = Hands(name, settings, listeners[name], around, wanted)
            owner = Owner(self._make_pools(), self._hands, announcer, around.look_interval)
            self._owner = owner
            office = Office(
                owner,
                self._hands,
                desk,
                self._journal,
                board,
                exits=exits,
                logs=self._logs,
                admin_socket=None if admin_socket is None else str(admin_socket.path),
            )
            watchman = Watchman(
                self._loop,
                exits,
                self._instance,
                lambda text: announcer.tell(Fact(event=Happened.DAEMON_NOTICE, reason=text)),
            )
            stack.callback(watchman.close)
            server = AdminServer(
                office,
                around.app_metrics,
                admin_socket=admin_socket,
                public=public,
                group=self._settings.admin_group,
            )
            self._tell_start(announcer, office, no_place)
            signals = SignalDesk(owner, office, announcer, announcer.tell)
            with caught(self._loop, signals.take):
                watchman.start()
                serving = self._loop.create_task(server.start())
                try:
                    ended = await owner.run()
                finally:
                    await self._clear_away(around, watchman)
                    await asyncio.wait({serving})
                    await server.stop()
            if ended.code is DaemonExit.START_FAILED:
                self.last_words = self._collect_last_words(owner)
            announcer.tell(Fact(event=Happened.DAEMON_STOPPED, reason=ended.reason))
            return ended

    def _post(self, pool: str, event: Event) -> None:
        if self._owner is not None:
            self._owner.post(pool, event)

    def _retired_is_quiet(self, pool: str, slot: int) -> None:
        self._hands[pool].retired_is_quiet(slot)

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
            listeners[name] = Listeners.open(
                self._loop,
                [parse_address(text) for text in settings.bind],
                backlog=settings.backlog,
                on_quiet=partial(self._retired_is_quiet, name),
                inherited=inherited,
            )
            stack.callback(listeners[name].close)
        return listeners

    def _make_pools(self) -> dict[str, Pool]:
        return {
            name: Pool(name=name, policy=policy(settings), size=resolve_workers(settings)[0])
            for name, settings in self._pools.items()
        }

    def _look_interval(self) -> float:
        shortest = min(settings.health.stall_after for settings in self._pools.values())
        return min(MAX_LOOK_INTERVAL, max(MIN_LOOK_INTERVAL, shortest / 2))

    def _tell_start(self, announcer: Announcer, office: Office, no_place: str) -> None:
        document = office.status()
        for pool in document["pools"]:
            workers, why = resolve_workers(self._pools[pool["name"]])
            announcer.tell(
                Fact(
                    event=Happened.DAEMON_STARTED,
                    reason=f"drumd {__version__} serves {', '.join(pool['bind'])}",
                    pool=pool["name"],
                    extra={"pid": os.getpid(), "workers": workers, "workers_reason": why},
                )
            )
        notices = [str(problem) for problem in self._loaded.warnings]
        if no_place:
            notices.append(no_place)
        for text in notices:
            announcer.tell(Fact(event=Happened.DAEMON_NOTICE, reason=text))

    # --- ends -----------------------------------------------------------------------------------

    async def _clear_away(self, around: Surroundings, watchman: Watchman) -> None:
        """Wait for what is being cleared away; then kill whatever is still left, and be sure."""
        while around.background:
            await asyncio.wait(around.background)
        await asyncio.to_thread(kill_marked, self._instance)
        known = around.exits.watched | ({watchman.pid} if watchman.pid else set())
        await asyncio.to_thread(kill_strays, known)

    def _collect_last_words(self, owner: Owner) -> list[str]:
        words: list[str] = []
        for name, pool in owner.pools.items():
            lines = self._hands[name].last_words
            if lines and not pool.was_ready:
                words += [f"the last lines of a worker of pool {name}:", *(f"  {x}" for x in lines)]
        return words
