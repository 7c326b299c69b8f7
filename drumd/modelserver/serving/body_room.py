"""How many bytes of requests' bodies one worker holds at once."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Self

from drumd.modelserver.errors import BusyError

_PATIENCE = 10.0
"""Seconds for which a body may arrive while others find no room."""


class NoRoomError(BusyError):
    """cannot answer now: the bodies of other requests take all the room."""


class BodyRoom:
    """Room for the bodies that arrive, wait or are computed; used by several threads at once.

    What has arrived counts, not what was announced. Who finds no room is refused. But clients that
    send slowly must not keep others out for ever: of the bodies that have arrived for longer than
    `patience` seconds, the slowest one is dropped instead.
    """

    def __init__(
        self, size: int, *, patience: float = _PATIENCE, clock: Callable[[], float] = monotonic
    ) -> None:
        """Make room for `size` bytes: no less than the largest body."""
        self._size = size
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._taken = 0
        self._arriving: dict[Place, float] = {}
        """Since when."""

    def place(self) -> "Place":
        """Return a place for one body, which is to be left when its answer is made."""
        return Place(self)

    def enter(self, place: "Place") -> None:
        """Begin to take a body in, or to hold what a place has."""
        with self._lock:
            place.holders += 1
            if place.holders == 1:
                self._arriving[place] = self._clock()

    def take(self, place: "Place", size: int) -> None:
        """Take `size` bytes more for a body that arrives; raise `NoRoomError`."""
        with self._lock:
            while self._taken + size > self._size and place in self._arriving:
                self._drop(self._slowest() or place)
            self._check(place)
            self._taken += size
            place.size += size

    def arrived(self, place: "Place") -> None:
        """Keep a complete body until its place is left; raise `NoRoomError`."""
        with self._lock:
            self._check(place)
            del self._arriving[place]

    def leave(self, place: "Place") -> None:
        """Give back what a body took, once nobody holds its place any more."""
        with self._lock:
            place.holders -= 1
            if not place.holders:
                self._drop(place)

    def _drop(self, place: "Place") -> None:
        self._arriving.pop(place, None)
        self._taken -= place.size
        place.size = 0
        place.pieces.clear()

    def _slowest(self) -> "Place | None":
        """Return the body that came at the slowest rate, of those that have arrived for long."""
        now = self._clock()
        rates = {
            place: place.size / (now - since)
            for place, since in self._arriving.items()
            if place.size and now - since > self._patience
        }
        return min(rates, key=rates.__getitem__, default=None)

    def _check(self, place: "Place") -> None:
        if place not in self._arriving:
            raise NoRoomError(
                f"cannot answer now: the bodies of requests fill the {self._size} bytes that there "
                "are for them; try again later"
            )


class Place:
    """One body's place in the room: a context, which several may be in at once."""

    def __init__(self, room: BodyRoom) -> None:
        self._room = room
        self.pieces: list[bytes] = []
        self.size = 0
        """Bytes that it takes; for the room to change, as is the next."""
        self.holders = 0

    def __enter__(self) -> Self:
        self._room.enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._room.leave(self)

    def add(self, piece: bytes) -> None:
        """Take what arrived; raise `NoRoomError`, also when it had to give way meanwhile."""
        self._room.take(self, len(piece))
        self.pieces.append(piece)

    def whole(self) -> bytes:
        """Return all of it, which may not be dropped any more; raise `NoRoomError`."""
        self._room.arrived(self)
        pieces, self.pieces = self.pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
