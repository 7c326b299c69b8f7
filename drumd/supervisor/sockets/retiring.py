"""Retirement: a slot's listeners that get no more connections, until nobody waits at them."""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from drumd.supervisor.sockets.queues import depth

LOOK_EVERY = 0.1
"""Seconds between looks, while something retires."""
QUIET_FOR = 1.0
"""Seconds that the queues must have been empty. A handshake that began before the socket was
steered away still ends in its queue one round trip later, and the kernel counts those for no
listener alone."""
GIVE_UP_AFTER = 60.0
"""Seconds after which a queue that nobody empties counts as quiet: its clients gave up long ago."""


@dataclass(frozen=True, slots=True)
class KeptRetirement:
    """How long a slot has been retiring, over a re-exec; monotonic seconds."""

    since: float
    quiet_since: float
    told: bool


@dataclass(slots=True)
class _Retiring:
    sockets: list[socket.socket]
    since: float
    quiet_since: float
    told: bool = False


class Retirement:
    """Watches retiring slots; wakes up only while there is one that is not quiet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_quiet: Callable[[int], None]) -> None:
        self._loop = loop
        self._on_quiet = on_quiet
        self._retiring: dict[int, _Retiring] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def slots(self) -> frozenset[int]:
        """The slots watched, those that are quiet already too."""
        return frozenset(self._retiring)

    def watch(self, slot: int, sockets: list[socket.socket]) -> None:
        """Call `on_quiet(slot)` once when nobody has waited at `sockets` for a moment."""
        if slot not in self._retiring:
            now = self._loop.time()
            self._retiring[slot] = _Retiring(sockets, now, now)
            self._schedule()

    def keep(self) -> Mapping[int, KeptRetirement]:
        """Return what `resume` needs."""
        return {
            slot: KeptRetirement(retiring.since, retiring.quiet_since, retiring.told)
            for slot, retiring in self._retiring.items()
        }

    def resume(self, slot: int, sockets: Sequence[socket.socket], kept: KeptRetirement) -> None:
        """Go on with what was kept."""
        self._retiring[slot] = _Retiring(list(sockets), kept.since, kept.quiet_since, kept.told)
        self._schedule()

    def cancel(self, slot: int) -> None:
        """Forget `slot`."""
        self._retiring.pop(slot, None)

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
        for slot, retiring in list(self._retiring.items()):
            if retiring.told:
                continue
            if any(depth(sock) for sock in retiring.sockets):
                retiring.quiet_since = now
            if now - retiring.quiet_since >= QUIET_FOR or now - retiring.since >= GIVE_UP_AFTER:
                retiring.told = True
                self._on_quiet(slot)
        self._schedule()
