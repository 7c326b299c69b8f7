"""Load: clients that keep opening connections, so that one which is lost shows."""

import http.client
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.e2e.visitor import Address
from tests.waiting import wait_until


class Load:
    """Asks on a new connection each time, from several threads, while the `with` block runs."""

    def __init__(self, address: Address, clients: int = 4) -> None:
        self.failures: list[BaseException] = []
        self.pids: list[str] = []
        """Who answered, in order."""
        self._address = address
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Self:
        for client in self._clients:
            client.start()
        self.wait_more()
        return self

    def wait_more(self, answers: int = 20) -> None:
        """Wait for that many further answers."""
        known = len(self.pids)
        wait_until(self._beyond(known + answers), what=f"answers; failures: {self.failures}")

    def _beyond(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.pids) >= count

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._address.get()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                continue
            assert answer.status == 200
            self.pids.append(answer.body)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()
