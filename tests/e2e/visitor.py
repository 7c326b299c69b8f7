"""Clients of a daemon's pools."""

import contextlib
import http.client
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from tests.keptalive import Answer, Connection
from tests.waiting import CAP


@dataclass(frozen=True)
class Address:
    """Where a pool serves."""

    port: int
    host: str = "127.0.0.1"

    def connect(self, timeout: float = CAP) -> "Visitor":
        """Open a connection."""
        return Visitor(socket.create_connection((self.host, self.port), timeout))

    def get(self, path: str = "/", timeout: float = CAP) -> Answer:
        """Ask on a new connection."""
        with self.connect(timeout) as visitor:
            return visitor.get(path, close=True)

    def answers(self) -> bool:
        """Say whether a new connection is answered."""
        try:
            return self.get(timeout=5).status == 200
        except (OSError, http.client.HTTPException):
            return False


class Visitor(Connection):
    """One connection."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected)
        self.port: int = connected.getsockname()[1]


@contextlib.contextmanager
def in_background(calls: Iterable[tuple[Address, str]]) -> Iterator[list[Future[Answer]]]:
    """Ask each path on a connection of its own, all at once; yield the answers to come."""
    wanted = list(calls)
    with ThreadPoolExecutor(max(1, len(wanted))) as pool:
        yield [pool.submit(address.get, path) for address, path in wanted]


@contextlib.contextmanager
def many(address: Address, count: int) -> Iterator[list[Visitor]]:
    """Open that many connections."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(address.connect()) for _ in range(count)]
