"""Leases: the numbers of workers in the scoreboard and in metrics, reused after their worker."""

import heapq
from collections.abc import Iterable


class NoLeaseError(Exception):
    """cannot start a worker: every lease is taken."""


class Leases:
    """Hand out the lowest free number, so that metric files stay few."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = list(range(count))

    @property
    def taken(self) -> frozenset[int]:
        """The leases that are in use."""
        return frozenset(range(self._count)) - frozenset(self._free)

    def resume(self, taken: Iterable[int]) -> None:
        """Hold the leases `taken` by workers that were started before a re-exec."""
        self._free = sorted(frozenset(range(self._count)) - frozenset(taken))  # sorted: a heap

    def take(self) -> int:
        """Return a free lease; raise `NoLeaseError` without one."""
        if not self._free:
            raise NoLeaseError(
                f"cannot start a worker: all {self._count} leases are taken; "
                "scale the pools down, or wait until draining workers are gone"
            )
        return heapq.heappop(self._free)

    def give_back(self, lease: int) -> None:
        """Free a lease whose worker has exited and whose record is folded."""
        heapq.heappush(self._free, lease)
