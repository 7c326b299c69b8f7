"""Clients that see what happens to connections: raw HTTP/1.1, one request at a time."""

import socket
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from tests.integration.worker_host import Listener
from tests.waiting import CAP


@dataclass
class Answer:
    """A status, the lower-case headers, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Return whether it announced the connection's end."""
        return self.headers.get("connection", "").lower() == "close"


class Connection:
    """One client connection; `ConnectionError` when the server ends it before an answer."""

    def __init__(self, listener: Listener) -> None:
        self._begin(listener.connect(CAP))

    @classmethod
    def over(cls, sock: socket.socket) -> Self:
        """Return one over a stream that is connected already."""
        sock.settimeout(CAP)
        connection = cls.__new__(cls)
        connection._begin(sock)
        return connection

    def _begin(self, sock: socket.socket) -> None:
        self.sock = sock
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def ask(self, path: str = "/", *, headers: str = "", body: bytes = b"") -> Answer:
        """Send a request and return its answer."""
        self.send(path, headers=headers, body=body)
        return self.answer()

    def send(self, path: str = "/", *, headers: str = "", body: bytes = b"") -> None:
        """Send a request."""
        method = "POST" if body else "GET"
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.sock.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\n{length}{headers}\r\n".encode() + body
        )

    def answer(self) -> Answer:
        """Read one whole answer."""
        head = self._until(b"\r\n\r\n").decode()
        first, *lines = head.split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines if line)
        }
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._until(b"\r\n"), 16):
                body += self._exactly(size)
                self._exactly(2)
            self._exactly(2)
        else:
            body = self._exactly(int(headers.get("content-length", "0")))
        return Answer(int(first.split()[1]), headers, body)

    def is_closed(self) -> bool:
        """Wait for the server to close the connection; return whether it sent nothing before."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            self._more()
        found, self._rest = self._rest.split(mark, 1)
        return found

    def _exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._more()
        found, self._rest = self._rest[:count], self._rest[count:]
        return found

    def _more(self) -> None:
        chunk = self.sock.recv(65_536)
        if not chunk:
            raise ConnectionError("the server ended the connection before an answer")
        self._rest += chunk


@dataclass
class Load:
    """Clients that each open a new connection, ask once, and go on, until the context ends."""

    listener: Listener
    clients: int = 4
    answered: Counter[str] = field(default_factory=Counter)
    """Good answers by body: the pid of who answered."""
    failed: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(CAP)

    @property
    def count(self) -> int:
        """Return how many were answered."""
        return sum(self.answered.values())

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with Connection(self.listener) as connection:
                    answer = connection.ask(headers="Connection: close\r\n")
                self.answered[answer.body.decode()] += 1
            except (OSError, ValueError) as error:
                self.failed.append(repr(error))
