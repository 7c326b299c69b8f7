"""uvicorn's Server, fitted to a loop and a process that belong to somebody else.

Written against uvicorn 0.54: `serve`, `main_loop`, `on_tick`, `capture_signals`, and the
`connection_made` of its h11 protocol.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from drumd.supervisor.admin.peer import peer_of
from drumd.supervisor.admin.socket import BACKLOG

_MAX_CONNECTIONS = 64
_IDLE_TIMEOUT = 5
_STOP_TIMEOUT = 1


class _PeerProtocol(H11Protocol):
    """Tells the app who is at the other end of a Unix connection, as `request.state.peer`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        connection = cast("socket.socket", transport.get_extra_info("socket"))
        if connection.family == socket.AF_UNIX:
            self.app_state = {**self.app_state, "peer": peer_of(connection)}
        super().connection_made(transport)


class HttpServer(uvicorn.Server):
    """Serve `app` on bound `sockets` as a task of the running loop."""

    def __init__(self, app: ASGIApp, sockets: Sequence[socket.socket]) -> None:
        config = uvicorn.Config(
            app,
            http=_PeerProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            date_header=False,
            server_header=False,
            backlog=BACKLOG,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_IDLE_TIMEOUT,
            timeout_graceful_shutdown=_STOP_TIMEOUT,
        )
        super().__init__(config)
        self._sockets = list(sockets)
        self._stopping = asyncio.Event()
        self._serving = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Answer from the moment that this returns; raise what kept it from that."""
        self._task = asyncio.create_task(self.serve(self._sockets), name="drumd-admin")
        serving = asyncio.create_task(self._serving.wait())
        try:
            await asyncio.wait({self._task, serving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serving.cancel()
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Close, after requests in flight had a second to end."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: they are the daemon's."""
        yield

    async def main_loop(self) -> None:
        """Sleep until the stop; the stock one wakes ten times a second."""
        await self.on_tick(0)
        self._serving.set()
        await self._stopping.wait()
