"""A small HTTP/1.1 client on asyncio: new connections, kept ones, and who answers."""

import asyncio
import socket
from typing import Self

HOST = "127.0.0.1"
ERRORS = (OSError, EOFError, TimeoutError)
"""What a request raises when the server is not there, or goes away."""
PATIENCE = 20.0


class Connection:
    """A kept connection; requests go one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect; raise OSError when refused."""
        return cls(*await asyncio.open_connection(HOST, port))

    async def get(self, path: str, *, close: bool = False) -> bytes:
        """Return the body at `path`. Answers must say their length; all apps here do."""
        ending = "Connection: close\r\n" if close else ""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{ending}\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        return await self._reader.readexactly(_length(head))

    def close(self) -> None:
        """Close the connection without waiting for it."""
        self._writer.close()


async def get(port: int, path: str) -> bytes:
    """Return the body at `path` over a connection for this request alone."""
    async with asyncio.timeout(PATIENCE):
        connection = await Connection.open(port)
        try:
            return await connection.get(path, close=True)
        finally:
            connection.close()


async def ask_for_pids(port: int, connections: int) -> set[int]:
    """Return the pids that answer so many connections at once; refused ones are left out."""
    answers = await asyncio.gather(
        *(get(port, "/pid") for _ in range(connections)), return_exceptions=True
    )
    return {int(answer) for answer in answers if isinstance(answer, bytes)}


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise EOFError(f"an answer without a length: {head[:100]!r}")
