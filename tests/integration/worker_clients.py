"""Clients of workers under test."""

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.integration.worker_host import Listener
from tests.keptalive import Answer, Connection
from tests.waiting import CAP, wait_until


class Client(Connection):
    """One keep-alive connection."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.connect())


def get(listener: Listener, path: str = "/") -> Answer:
    """Ask for `path` on a new connection, and close it."""
    with Client(listener) as client:
        return client.get(path, close=True)


class Gate:
    """Holds requests in flight until it is opened."""

    def __init__(self, path: str) -> None:
        self.path = f"/until?{path}"
        """Is answered once the gate is open."""
        self.stream = f"/stream?{path}"
        """The same, with the answer's head and half of its body sent before."""
        self._file = Path(path)

    def begun(self) -> None:
        """Wait until such a request is being served."""
        wait_until(Path(f"{self._file}.begun").exists, what="the request in flight")

    def open(self) -> None:
        """Let it be answered."""
        self._file.touch()


@dataclass
class Load:
    """Clients that ask on new connections all the time; each answer or failure is counted."""

    listener: Listener
    clients: int = 4
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(CAP)

    def answered(self, more: int) -> None:
        """Wait until `more` requests were answered from now on."""
        wanted = self.answers.total() + more
        wait_until(lambda: self.answers.total() >= wanted or self.failures, what="answers")

    def _ask(self) -> None:
        while not self._stop.wait(0.001):
            try:
                self.answers[get(self.listener).body] += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))


def queued(listener: Listener) -> int:
    """Return how many connections wait in the listener's queue."""
    return _tcp_info(listener)[0]


def backlog(listener: Listener) -> int:
    """Return how many connections the listener's queue takes, as the last `listen()` said."""
    return _tcp_info(listener)[1]


def _tcp_info(listener: Listener) -> tuple[int, int]:
    # linux/tcp.h: of a listening socket tcpi_unacked is its queue's length, tcpi_sacked its limit.
    info = listener.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    length, limit = struct.unpack_from("II", info, 24)
    return int(length), int(limit)


def wakeups(pid: int) -> int:
    """Return how often the process's threads gave up the processor by themselves so far."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for line in (thread / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def now_ns() -> int:
    """Return the time that the scoreboard's cells are in."""
    return time.monotonic_ns()
