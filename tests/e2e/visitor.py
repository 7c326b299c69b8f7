"""Clients of a daemon's pools."""

import contextlib
import http.client
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.waiting import CAP


@dataclass(frozen=True)
class Answer:
    """A complete answer; `closes`: the server ends the connection with it."""

    status: int
    body: str
    closes: bool


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


class Visitor:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.sock = connection
        self.port: int = connection.getsockname()[1]

    def send(self, path: str = "/", *, close: bool = False) -> None:
        """Send a request."""
        extra = "Connection: close\r\n" if close else ""
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode())

    def answer(self) -> Answer:
        """Read one answer to its end."""
        response = http.client.HTTPResponse(self.sock)
        response.begin()
        return Answer(response.status, response.read().decode(), response.will_close)

    def get(self, path: str = "/", *, close: bool = False) -> Answer:
        """Send a request and read its answer."""
        self.send(path, close=close)
        return self.answer()

    def ended(self) -> bool:
        """Wait until the server ends the connection; say whether it sent nothing before."""
        with contextlib.suppress(ConnectionError):
            return self.sock.recv(1) == b""
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.sock.close()


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
