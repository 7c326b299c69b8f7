"""A network of some length between client and server: a relay that delays what it passes on.

On loopback the end of a connection arrives at once, and a client never writes to one that the
server is just closing. With a delay it does; that is where requests get lost in real networks.

Each connection to the relay becomes one to the server. Bytes, half-closes (FIN) and resets (RST)
go on after the delay, in their order. It is a process of its own: `python -m tests.e2e.delay`.
"""

import argparse
import asyncio
import contextlib
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

HOST = "127.0.0.1"
BUFFERED = 256 * 1024
"""Bytes on their way in one direction, above which the relay reads no further."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""`struct linger` of on and 0 s: close(2) sends a RST (socket(7), SO_LINGER)."""

FIN = "fin"
RST = "rst"


class Side(asyncio.Protocol):
    """One side of a connection through the relay: what is read here goes to the `other` side."""

    other: "Side"

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._under_way: deque[tuple[float, bytes | str]] = deque()
        """What comes from the other side, and the instant (of the loop's clock) when it is due."""
        self._bytes_under_way = 0
        self._timer: asyncio.TimerHandle | None = None
        self._congested = False
        self._ended = False
        """Nothing more is read here."""
        self._told_end = False
        """Nothing more is written here."""

    # --- from this side's network ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        with contextlib.suppress(OSError):
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._arm()

    def data_received(self, data: bytes) -> None:
        self.other.carry(data)

    def eof_received(self) -> bool:
        self._ended = True
        self.other.carry(FIN)
        return True  # the way back stays open

    def connection_lost(self, exc: Exception | None) -> None:
        self._told_end = True
        if not self._ended:
            self._ended = True
            self.other.carry(FIN if exc is None else RST)
        elif exc is not None:
            self.other.carry(RST)
        self._clear()

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        self._arm()

    # --- from the other side --------------------------------------------------------------------

    def carry(self, what: bytes | str) -> None:
        """Take what the other side has read; it is written here once it is due."""
        if self._told_end:
            return
        self._under_way.append((self._loop.time() + self._delay, what))
        self._bytes_under_way += len(what)
        if self._bytes_under_way > BUFFERED:
            self.other.hold(True)
        self._arm()

    def hold(self, on: bool) -> None:
        """Stop reading here, or go on."""
        if self._transport is not None and not self._transport.is_closing() and not self._ended:
            if on:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def refuse(self) -> None:
        """The server took no connection: reset the client's."""
        self._ended = True
        self.carry(RST)

    def _arm(self) -> None:
        ready = self._transport is not None and not self._congested
        if ready and self._timer is None and self._under_way:
            self._timer = self._loop.call_at(self._under_way[0][0], self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._under_way and self._under_way[0][0] <= now and not self._congested:
            _, what = self._under_way.popleft()
            self._bytes_under_way -= len(what)
            self._write(what)
        if self._bytes_under_way <= BUFFERED:
            self.other.hold(False)
        self._arm()

    def _write(self, what: bytes | str) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        if isinstance(what, bytes):
            self._transport.write(what)
            return
        self._told_end = True
        if what == RST:
            with contextlib.suppress(OSError):
                sock = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._transport.abort()
        elif self._ended:
            self._transport.close()
        else:
            with contextlib.suppress(OSError):
                self._transport.write_eof()

    def _clear(self) -> None:
        self._under_way.clear()
        self._bytes_under_way = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _relay(port: int, delay: float) -> None:
    """Say the relay's own port on stdout, then relay until SIGTERM."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def accept() -> Side:
        client, server = Side(delay), Side(delay)
        client.other, server.other = server, client
        task = loop.create_task(_reach(server, client, port, delay))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return client

    listener = await loop.create_server(accept, HOST, 0, backlog=1024)
    print(listener.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - it is what it is for
    end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    await end.wait()


async def _reach(server: Side, client: Side, port: int, delay: float) -> None:
    await asyncio.sleep(delay)
    try:
        await asyncio.get_running_loop().create_connection(lambda: server, HOST, port)
    except OSError:
        client.refuse()


@contextlib.contextmanager
def delayed(port: int, delay: float = 0.01) -> Iterator[int]:
    """Relay while the block runs; yield the port that stands for `port`.

    `delay` is seconds for each direction: a client waits twice that for an answer, at least. A
    refused connection shows as a reset one.
    """
    command = [sys.executable, "-m", __name__, f"--port={port}", f"--delay={delay}"]
    checkout = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=checkout) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said, "cannot start the relay; what it says is above"
            yield int(said)
        finally:
            process.terminate()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="where the server listens")
    parser.add_argument("--delay", type=float, default=0.01, help="seconds, each direction")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    asyncio.run(_relay(arguments.port, arguments.delay))
