"""Clients that keep their connections for ever, and see each end of one."""

import asyncio
import random
import threading
from dataclasses import dataclass, field
from typing import Self

from tests.integration.worker_host import Listener
from tests.waiting import CAP, wait_until


@dataclass
class KeptLoad:
    """Clients that each ask on one connection until the context ends.

    Half of them ask without a pause, the others pause for up to `pause` seconds. Each request
    carries a number that its answer must repeat, so that none is lost, doubled or mixed up.
    """

    listener: Listener
    clients: int = 32
    pause: float = 0.05
    answers: dict[int, str] = field(default_factory=dict)
    """By client: who answered it last."""
    count: int = 0
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join(CAP)

    def all_answered_by(self, pid: int) -> None:
        """Wait until every client was last answered by `pid`, or one failed."""
        wait_until(
            lambda: (
                self.failures
                or (len(self.answers) == self.clients and set(self.answers.values()) == {str(pid)})
            ),
            what=f"answers by {pid}",
        )
        assert self.failures == []

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        chance = random.Random(number)
        asked = 0
        try:
            reader, writer = await asyncio.open_connection(*self.listener.address[:2])
            while not self._stopping:
                asked += 1
                writer.write(f"GET /ask?{number}.{asked} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), CAP)).decode().lower()
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                answer, pid = (await reader.readexactly(length)).decode().split()
                if answer != f"{number}.{asked}" or "connection: close" in head:
                    self.failures.append(f"client {number}: {answer!r} to {asked}, {head!r}")
                self.answers[number] = pid
                self.count += 1
                if number % 2:
                    await asyncio.sleep(chance.uniform(0, self.pause))
            writer.close()
        except (OSError, EOFError, ValueError, IndexError, TimeoutError) as error:
            self.failures.append(f"client {number}, request {asked}: {error!r}")
