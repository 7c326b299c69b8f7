"""The listeners that a uvicorn worker accepts from, changed while it serves."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from ssl import SSLContext

TLS_GOODBYE = 5.0
"""Seconds that a client has to answer the end of its TLS session; asyncio's default is 30, which is
all of a usual grace period."""


class Listeners:
    """asyncio servers by the supervisor's number of their listener."""

    def __init__(
        self, protocol: Callable[[], asyncio.Protocol], *, ssl: SSLContext | None, backlog: int
    ) -> None:
        self._protocol = protocol
        self._ssl = ssl
        self._backlog = backlog
        self._servers: dict[int, asyncio.Server] = {}

    async def hold(self, wanted: Mapping[int, int]) -> tuple[int, ...]:
        """Accept from exactly `wanted` ({number: fd}, the fds become ours); return the numbers."""
        loop = asyncio.get_running_loop()
        for number, fd in wanted.items():
            if number in self._servers:
                os.close(fd)  # one more fd of the socket that is held already
                continue
            self._servers[number] = await loop.create_server(
                self._protocol,
                sock=socket.socket(fileno=fd),
                ssl=self._ssl,
                # It listens again, and the last one to do so sets the backlog for all sharers.
                backlog=self._backlog,
                ssl_shutdown_timeout=TLS_GOODBYE if self._ssl else None,
            )
        for number in self._servers.keys() - wanted.keys():
            await _release(self._servers.pop(number))
        return tuple(sorted(self._servers))

    async def release(self) -> None:
        """Accept from none."""
        await self.hold({})


async def _release(server: asyncio.Server) -> None:
    """Stop accepting and close our fd; the connections stay, just-accepted ones included."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):
        # asyncio accepts in one turn of the loop and makes the transport in the next; a connection
        # whose server was closed in between would be dropped (CPython 3.11, base_events.Server).
        for listener in server.sockets:
            loop.remove_reader(listener.fileno())
        for _ in range(_TURNS):
            await asyncio.sleep(0)
    server.close()


_TURNS = 3
"""One is enough for what was accepted before the reader went; two more cost nothing."""
