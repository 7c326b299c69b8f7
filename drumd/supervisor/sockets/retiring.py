"""Retirement: listeners that get no more connections, until nobody waits at them."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from drumd.supervisor.sockets.queues import depth

LOOK_EVERY = 0.1
"""Seconds between looks, while something retires."""
QUIET_FOR = 1.0
"""Seconds that the queues must have been empty. A handshake that began before the socket was
steered away still ends in its queue one round trip later, and the kernel counts those for no
listener alone."""
GIVE_UP_AFTER = 60.0
"""Seconds after which a queue that nobody empties counts as quiet: its clients gave up long ago."""


K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class KeptRetirement:
    """How long something has been retiring, over a re-exec; monotonic seconds."""

    since: float
    quiet_since: float
    told: bool


@dataclass(slots=True)
class _Retiring:
    sockets: list[socket.socket]
    since: float
    quiet_since: float
    told: bool = False


class Retirement(Generic[K]):
    """Watches what retires, by keys; wakes up only while something is not quiet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_quiet: Callable[[K], None]) -> None:
        self._loop = loop
        self._on_quiet = on_quiet
        self._retiring: dict[K, _Retiring] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def watched(self) -> frozenset[K]:
        """All that is watched, what is quiet already too."""
        return frozenset(self._retiring)

    def watch(self, key: K, sockets: list[socket.socket]) -> None:
        """Call `on_quiet(key)` once when nobody has waited at `sockets` for a moment."""
        if key not in self._retiring:
            now = self._loop.time()
            self._retiring[key] = _Retiring(sockets, now, now)
            self._schedule()

    def keep(self) -> Mapping[K, KeptRetirement]:
        """Return what `resume` needs."""
        return {
            key: KeptRetirement(retiring.since, retiring.quiet_since, retiring.told)
            for key, retiring in self._retiring.items()
        }

    def resume(self, key: K, sockets: Iterable[socket.socket], kept: KeptRetirement) -> None:
        """Go on with what was kept."""
        self._retiring[key] = _Retiring(list(sockets), kept.since, kept.quiet_since, kept.told)
        self._schedule()

    def cancel(self, key: K) -> None:
        """Forget `key`."""
        self._retiring.pop(key, None)

    def close(self) -> None:
        """Forget all."""
        self._retiring.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        if self._timer is None and any(not r.told for r in self._retiring.values()):
            self._timer = self._loop.call_later(LOOK_EVERY, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for key, retiring in list(self._retiring.items()):
            if retiring.told:
                continue
            if any(depth(sock) for sock in retiring.sockets):
                retiring.quiet_since = now
            if now - retiring.quiet_since >= QUIET_FOR or now - retiring.since >= GIVE_UP_AFTER:
                retiring.told = True
                self._on_quiet(key)
        self._schedule()
