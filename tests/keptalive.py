"""A client that keeps its connection, and sees what becomes of it."""

import contextlib
import http.client
import socket
import ssl
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Answer:
    """A complete answer; `closes`: the server ends the connection with it."""

    status: int
    body: str
    closes: bool


class Connection:
    """One connection."""

    def __init__(self, connected: socket.socket) -> None:
        self.sock = connected

    def send(self, path: str = "/", *, close: bool = False) -> None:
        """Send a GET request."""
        extra = "Connection: close\r\n" if close else ""
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode())

    def answer(self) -> Answer:
        """Read one answer to its end."""
        response = http.client.HTTPResponse(self.sock)
        response.begin()
        return Answer(response.status, response.read().decode(), response.will_close)

    def get(self, path: str = "/", *, close: bool = False) -> Answer:
        """Send a GET request and read its answer."""
        self.send(path, close=close)
        return self.answer()

    def ended(self) -> bool:
        """Wait until the server ends the connection; return whether it sent nothing before."""
        # Over TLS OpenSSL may send an alert first; no answer comes either way.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            return self.sock.recv(1) == b""
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()
