"""Removals: endpoints that are not wanted any more, until the last one who holds them lets go."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from drumd.supervisor.sockets.endpoint import Endpoint, KeptEndpoint
from drumd.supervisor.sockets.retiring import KeptRetirement, Retirement


@dataclass(frozen=True, slots=True)
class KeptRemoval:
    """An endpoint on its way out, over a re-exec."""

    endpoint: KeptEndpoint
    retirement: KeptRetirement


class Removals:
    """Shuts new clients out of an endpoint, and keeps it for those that wait there already."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch: Retirement[Endpoint] = Retirement(loop, self._quiet)
        self.emptying: list[Endpoint] = []
        """Workers accept from them until nobody waits there."""
        self.empty: list[Endpoint] = []
        """Workers are to release them."""

    def keep(self) -> tuple[KeptRemoval, ...]:
        """Return what `resume` needs."""
        return tuple(KeptRemoval(key.keep(), kept) for key, kept in self._watch.keep().items())

    def resume(self, number: Callable[[], int], kept: Iterable[KeptRemoval]) -> None:
        """Go on with what was on its way out before a re-exec; raise OSError."""
        for removal in kept:
            endpoint = Endpoint.resume(number, removal.endpoint)
            (self.empty if removal.retirement.told else self.emptying).append(endpoint)
            self._watch.resume(endpoint, endpoint.sockets.values(), removal.retirement)

    def add(self, endpoint: Endpoint) -> None:
        """Begin to remove `endpoint`."""
        endpoint.shut_out()
        self.emptying.append(endpoint)
        self._watch.watch(endpoint, list(endpoint.sockets.values()))

    def take_back(self, endpoint: Endpoint) -> None:
        """Let clients in again, and forget that it was to go."""
        endpoint.let_in()
        self._watch.cancel(endpoint)
        self.emptying = [each for each in self.emptying if each is not endpoint]
        self.empty = [each for each in self.empty if each is not endpoint]

    def drop(self) -> None:
        """End the empty ones for everyone who still holds them."""
        for endpoint in self.empty:
            self._watch.cancel(endpoint)
            endpoint.end()
        self.empty = []

    def close(self) -> None:
        """Close all at once."""
        self._watch.close()
        for endpoint in (*self.emptying, *self.empty):
            endpoint.close()
        self.emptying, self.empty = [], []

    def _quiet(self, endpoint: Endpoint) -> None:
        self.emptying.remove(endpoint)
        self.empty.append(endpoint)
