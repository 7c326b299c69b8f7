"""Connections that an asyncio server takes over, served as if it had accepted them."""

import asyncio
import logging
import socket
from collections.abc import Callable

from drumd.wire.handover import Note


class Adoptions:
    """Makes the protocols of connections that come with a note, by `protocol(note)`."""

    def __init__(self, protocol: Callable[[Note], asyncio.Protocol], log: logging.Logger) -> None:
        self._protocol = protocol
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def going_on(self) -> bool:
        """Return whether there are some that are not among the server's connections yet."""
        return bool(self._tasks)

    def take(self, fd: int, note: Note) -> bool:
        """Begin to serve a connection; return True."""
        task = asyncio.get_running_loop().create_task(self._adopt(socket.socket(fileno=fd), note))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _adopt(self, connection: socket.socket, note: Note) -> None:
        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._protocol(note), connection
            )
        except OSError as error:
            connection.close()
            self._log.warning("A connection that was handed over is lost: %s", error)
