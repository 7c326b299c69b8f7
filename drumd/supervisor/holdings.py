"""Holdings: what the daemon has opened for its whole life, over every re-exec."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from drumd.config.settings import PoolSettings, Settings, SupervisorSettings
from drumd.supervisor.admin.server import bind_public
from drumd.supervisor.admin.socket import AdminSocket, KeptAdminSocket, NoPlaceError, claim
from drumd.supervisor.fds import Fd
from drumd.supervisor.observe.metricfiles import KeptMetricFiles, MetricFiles
from drumd.supervisor.processes.spawn import seal_inherited_fds
from drumd.supervisor.sockets.binding import KeptListeners, Listeners
from drumd.supervisor.sockets.inherited import Inherited
from drumd.wire.address import parse_address
from drumd.wire.scoreboard import Scoreboard

LEASES = 1024
"""Workers that may live at once, of all pools, those that drain included."""

OnQuiet = Callable[[str, int], None]
"""Called with a pool and a slot at whose retiring listeners nobody waits any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHoldings:
    """The holdings over a re-exec."""

    instance: str
    started_at: float
    admin_socket: KeptAdminSocket | None
    public: tuple[Fd, ...]
    listeners: Mapping[str, KeptListeners]
    board: Fd
    files: KeptMetricFiles


@dataclass(slots=True, kw_only=True)
class Holdings:
    """Sockets, shared memory and files. Whoever opens them closes them, or keeps them."""

    instance: str
    """The mark of this daemon's processes."""
    started_at: float
    """Wall time, seconds since the epoch."""
    admin_socket: AdminSocket | None
    public: list[socket.socket]
    listeners: dict[str, Listeners]
    """By pool; pools come and go."""
    board: Scoreboard
    files: MetricFiles
    notes: list[str] = field(default_factory=list)
    """What an operator may want to know of how they were had."""

    @classmethod
    def open(
        cls, settings: Settings, loop: asyncio.AbstractEventLoop, on_quiet: OnQuiet
    ) -> "Holdings":
        """Open all, or none: raise `ListenError`, `AdminSocketError` or OSError."""
        inherited = Inherited.from_environment(os.environ)
        seal_inherited_fds()
        with ExitStack() as on_failure:
            admin_socket, notes = _claim(settings.supervisor)
            if admin_socket is not None:
                on_failure.callback(admin_socket.close)
            public = []
            if settings.supervisor.admin_bind:
                public = bind_public(settings.supervisor.admin_bind)
            for listener in public:
                on_failure.callback(listener.close)
            listeners = {}
            for name, pool in settings.pools.items():
                listeners[name] = open_listeners(loop, pool, partial(on_quiet, name), inherited)
                on_failure.callback(listeners[name].close)
            notes += [
                f"a socket was passed as fd://{name}, but no pool binds it; it is closed"
                for name in inherited.close()
            ]
            board = Scoreboard.create(LEASES)
            files = MetricFiles.create(os.environ)
            on_failure.pop_all()
        return cls(
            instance=f"{os.getpid()}-{secrets.token_hex(6)}",
            started_at=time.time(),
            admin_socket=admin_socket,
            public=public,
            listeners=listeners,
            board=board,
            files=files,
            notes=notes,
        )

    def keep(self) -> KeptHoldings:
        """Return what `resume` needs; nothing changes by it."""
        return KeptHoldings(
            instance=self.instance,
            started_at=self.started_at,
            admin_socket=None if self.admin_socket is None else self.admin_socket.keep(),
            public=tuple(Fd(listener.fileno()) for listener in self.public),
            listeners={name: listeners.keep() for name, listeners in self.listeners.items()},
            board=Fd(self.board.fd),
            files=self.files.keep(),
        )

    @classmethod
    def resume(
        cls, kept: KeptHoldings, loop: asyncio.AbstractEventLoop, on_quiet: OnQuiet
    ) -> "Holdings":
        """Go on with what was kept over a re-exec; raise OSError or `ScoreboardError`."""
        admin_socket = None if kept.admin_socket is None else AdminSocket.resume(kept.admin_socket)
        return cls(
            instance=kept.instance,
            started_at=kept.started_at,
            admin_socket=admin_socket,
            public=[socket.socket(fileno=fd) for fd in kept.public],
            listeners={
                name: Listeners.resume(loop, listeners, on_quiet=partial(on_quiet, name))
                for name, listeners in kept.listeners.items()
            },
            board=Scoreboard.attach(kept.board),
            files=MetricFiles.resume(kept.files),
        )

    def close(self) -> None:
        """Close sockets and memory, remove files."""
        self.files.remove()
        self.board.close()
        for listeners in self.listeners.values():
            listeners.close()
        for listener in self.public:
            listener.close()
        if self.admin_socket is not None:
            self.admin_socket.close()


def open_listeners(
    loop: asyncio.AbstractEventLoop,
    settings: PoolSettings,
    on_quiet: Callable[[int], None],
    inherited: Inherited,
) -> Listeners:
    """Listen on a pool's addresses; raise `ListenError`."""
    return Listeners.open(
        loop,
        [parse_address(text) for text in settings.bind],
        backlog=settings.backlog,
        on_quiet=on_quiet,
        inherited=inherited,
    )


def _claim(settings: SupervisorSettings) -> tuple[AdminSocket | None, list[str]]:
    try:
        return claim(settings.admin_socket, settings.admin_group), []
    except NoPlaceError as error:
        return None, [f"{error}; drumd goes on without one, and drumctl cannot reach it"]
