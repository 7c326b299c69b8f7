"""The admin server: uvicorn inside the daemon's own loop, on the admin socket and on TCP.

uvicorn and FastAPI take half a second to import, so they are imported in a thread, after the
workers were started; nothing here does so before `start`.
"""

import asyncio
import contextlib
import errno
import importlib
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from drumd.supervisor.admin.operator import Operator
from drumd.supervisor.admin.peer import Policy
from drumd.supervisor.admin.socket import BACKLOG, AdminSocket
from drumd.supervisor.observe.appmetrics import AppMetrics
from drumd.supervisor.sockets.holders import tcp_holder

if TYPE_CHECKING:
    from drumd.supervisor.admin.http import HttpServer

_HEAVY = (
    "drumd.supervisor.admin.app",
    "drumd.supervisor.admin.http",
    "drumd.supervisor.admin.scraper",
)


class AdminServer:
    """Serve the admin API until `stop`.

    `admin_socket` and `public` (bound TCP sockets, read-only) are the server's from then on; both
    may be absent.
    """

    def __init__(
        self,
        operator: Operator,
        app_metrics: AppMetrics,
        *,
        admin_socket: AdminSocket | None = None,
        public: Sequence[socket.socket] = (),
        group: str | None = None,
    ) -> None:
        self._operator = operator
        self._app_metrics = app_metrics
        self._admin_socket = admin_socket
        self._public = list(public)
        self._policy = Policy(group)
        self._servers: list[HttpServer] = []
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Import what is needed, in a thread, and answer from then on."""
        if self._admin_socket is None and not self._public:
            return
        async with self._turn:
            await self._start()

    async def _start(self) -> None:
        await asyncio.to_thread(_import_heavy)
        from drumd.supervisor.admin.app import create_app, create_public_app  # noqa: PLC0415
        from drumd.supervisor.admin.http import HttpServer  # noqa: PLC0415
        from drumd.supervisor.admin.scraper import Scraper  # noqa: PLC0415

        # Copies: a server closes what it serves on, and `pause` must not.
        scraper = Scraper(self._operator, self._app_metrics)
        if self._admin_socket is not None:
            app = create_app(self._operator, scraper, self._policy)
            self._servers.append(HttpServer(app, [self._admin_socket.listener.dup()]))
        if self._public:
            public = create_public_app(self._operator, scraper)
            self._servers.append(HttpServer(public, [listener.dup() for listener in self._public]))
        for server in self._servers:
            await server.start()

    async def pause(self) -> None:
        """Answer what is in flight (1 s) and nothing more; who connects waits until `start`."""
        async with self._turn:
            self._operator.release()
            await asyncio.gather(*(server.stop() for server in self._servers))
            self._servers.clear()

    async def stop(self) -> None:
        """End the followers of the journal, answer what is in flight (1 s), close and unlink.

        Closes the operator's journal, since followers would otherwise never end.
        """
        self._operator.journal.close()
        await self.pause()
        for listener in self._public:
            listener.close()
        if self._admin_socket is not None:
            self._admin_socket.close()


def bind_public(address: str) -> list[socket.socket]:
    """Bind the read-only TCP address, `host:port` or `[v6]:port`.

    Raise `OSError` with a text that names the address.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    bound = []
    try:
        for family, kind, protocol, _, where in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            listener = socket.socket(family, kind, protocol)
            bound.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(where)
            listener.listen(BACKLOG)
            listener.setblocking(False)
    except (OSError, ValueError) as error:
        for listener in bound:
            with contextlib.suppress(OSError):
                listener.close()
        why = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            holder = tcp_holder(family, str(where[0]), int(where[1]))
            why = f"in use by {holder}" if holder else "in use"
        raise OSError(
            f"cannot bind the admin address {address}: {why}; choose another with --admin-bind"
        ) from error
    return bound


def _import_heavy() -> None:
    for module in _HEAVY:
        importlib.import_module(module)
