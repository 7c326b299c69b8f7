"""A backend beside a model: it notes what it is asked, and answers as the path's last part says."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

from tests.waiting import CAP, wait_until


@dataclass
class Asked:
    """One request, as it came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    """The body came to its end."""
    left: threading.Event = field(default_factory=threading.Event)
    """Who asked has closed the connection."""

    def all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for key, value in self.headers if key == name]


class Backend:
    """Serves each connection in a thread; `with` it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.asked: list[Asked] = []
        self.raw: dict[str, bytes] = {}
        """What is sent, as it is, to who asks for `/raw/NAME`; then the connection is closed."""
        self.gates: dict[str, threading.Event] = {}

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # It alone would not wake up who accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def gate(self, name: str) -> threading.Event:
        """Return a gate that something waits at."""
        return self.gates.setdefault(name, threading.Event())

    def wait_asked(self, target: str) -> Asked:
        """Wait until something is asked for that target, and return it."""
        return wait_until(
            lambda: next((each for each in self.asked if each.target == target), None),
            what=f"{target} asked of the backend",
        ) or Asked("", "", [])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(CAP)
        with sock, contextlib.suppress(OSError), sock.makefile("rb") as reader:
            while line := reader.readline().decode("latin-1"):
                method, target, _ = line.split()
                asked = Asked(method, target, list(_headers(reader.readline)))
                self.asked.append(asked)
                try:
                    _read_body(asked, reader.readline, reader.read)
                except (EOFError, OSError, ValueError):
                    asked.left.set()
                    return
                if not self._answer(sock, asked):
                    return

    def _answer(self, sock: socket.socket, asked: Asked) -> bool:
        """Answer, and return whether the connection goes on."""
        path = asked.target.partition("?")[0]
        folder, _, name = path.rpartition("/")
        if folder == "/raw":
            sock.sendall(self.raw[name])
            return False
        if name == "silent":
            _wait_left(sock, asked)
            return False
        if name == "begun":
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")
            _wait_left(sock, asked)
            return False
        if folder == "/gated":
            return self._answer_gated(sock, asked, name)
        body = json.dumps(
            {
                "method": asked.method,
                "target": asked.target,
                "headers": asked.headers,
                "body": asked.body.decode("latin-1"),
            }
        ).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        sock.sendall(f"{head}\r\n\r\n".encode() + (b"" if asked.method == "HEAD" else body))
        return True

    def _answer_gated(self, sock: socket.socket, asked: Asked, name: str) -> bool:
        """Answer with events; each waits at a gate."""
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(3):
            if not self.gate(f"{name}{number}").wait(CAP):
                return False
            event = f"data: {number}\n\n".encode()
            sock.sendall(b"%x\r\n%b\r\n" % (len(event), event))
        sock.sendall(b"0\r\n\r\n")
        asked.whole = True
        return True


def _headers(readline: Callable[[], bytes]) -> Iterator[tuple[str, str]]:
    while (line := readline().decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        yield name.lower(), value.strip()


def _read_body(asked: Asked, readline: Callable[[], bytes], read: Callable[[int], bytes]) -> None:
    if asked.all("transfer-encoding"):
        while size := int(readline(), 16):
            asked.body += _exactly(read, size)
            readline()
        readline()
    elif lengths := asked.all("content-length"):
        asked.body += _exactly(read, int(lengths[0]))
    asked.whole = True


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    data = read(size)
    if len(data) < size:
        raise EOFError
    return data


def _wait_left(sock: socket.socket, asked: Asked) -> None:
    """Wait for the end of the connection."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(65_536):
            pass
    asked.left.set()
