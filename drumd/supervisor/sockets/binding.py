"""Listeners: all sockets on which a pool listens, by who may accept from them."""

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from drumd.supervisor.sockets.endpoint import Endpoint, KeptEndpoint
from drumd.supervisor.sockets.errors import ListenError
from drumd.supervisor.sockets.inherited import Inherited
from drumd.supervisor.sockets.opening import open_tcp, open_unix
from drumd.supervisor.sockets.queues import depth
from drumd.supervisor.sockets.retiring import KeptRetirement, Retirement
from drumd.wire.address import Address, InheritedAddress, TcpAddress, UnixAddress

Balance = Literal["shared", "per-slot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptListeners:
    """A pool's listening sockets over a re-exec."""

    backlog: int
    endpoints: tuple[KeptEndpoint, ...]
    next_id: int
    balance: Balance
    steered_to: frozenset[int]
    retiring: Mapping[int, KeptRetirement]
    notes: tuple[str, ...] = ()


class Listeners:
    """A pool's listening sockets, from the first bind to the last close.

    Begins `shared`: one socket per address. Every socket has an id, a small integer that the pool
    never uses again.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, backlog: int, on_quiet: Callable[[int], None]
    ) -> None:
        self._backlog = backlog
        self._endpoints: list[Endpoint] = []
        self._next_id = 0
        self._balance: Balance = "shared"
        self._steered_to: frozenset[int] = frozenset({0})
        self._retirement = Retirement(loop, on_quiet)
        self.notes: list[str] = []
        """What could not be had as asked for, in words for the log."""

    @classmethod
    def open(
        cls,
        loop: asyncio.AbstractEventLoop,
        addresses: Sequence[Address],
        *,
        backlog: int,
        on_quiet: Callable[[int], None] = lambda _slot: None,
        unix_mode: int = 0o660,
        inherited: Inherited | None = None,
    ) -> "Listeners":
        """Listen on all `addresses`, or on none: raise `ListenError`.

        `on_quiet(slot)` tells that nobody waits any more at a slot that retires (see `retire`).
        Sockets of `inherited` are taken where they match. Host names are resolved here, which
        blocks.
        """
        listeners = cls(loop, backlog, on_quiet)
        try:
            for address in addresses:
                listeners._add(address, unix_mode, inherited or Inherited.none())
        except ListenError:
            listeners.close()
            raise
        return listeners

    def _add(self, address: Address, unix_mode: int, inherited: Inherited) -> None:
        passed = (
            inherited.take(address)
            if isinstance(address, InheritedAddress)
            else inherited.take_matching(address)
        )
        if passed:
            for sock in passed:
                sock.listen(self._backlog)
                self._endpoints.append(Endpoint(self._number, sock))
        elif isinstance(address, TcpAddress):
            for sock in open_tcp(address, self._backlog):
                self._endpoints.append(Endpoint(self._number, sock))
        elif isinstance(address, UnixAddress):
            sock, file = open_unix(address, self._backlog, unix_mode)
            self._endpoints.append(Endpoint(self._number, sock, file=file))

    def keep(self) -> KeptListeners:
        """Return what `resume` needs; nothing changes by it."""
        return KeptListeners(
            backlog=self._backlog,
            endpoints=tuple(endpoint.keep() for endpoint in self._endpoints),
            next_id=self._next_id,
            balance=self._balance,
            steered_to=self._steered_to,
            retiring=self._retirement.keep(),
            notes=tuple(self.notes),
        )

    @classmethod
    def resume(
        cls,
        loop: asyncio.AbstractEventLoop,
        kept: KeptListeners,
        *,
        on_quiet: Callable[[int], None] = lambda _slot: None,
    ) -> "Listeners":
        """Go on with the sockets that were kept over a re-exec; raise OSError."""
        listeners = cls(loop, kept.backlog, on_quiet)
        listeners._next_id = kept.next_id
        listeners._endpoints = [
            Endpoint.resume(listeners._number, endpoint) for endpoint in kept.endpoints
        ]
        listeners._balance = kept.balance
        listeners._steered_to = kept.steered_to
        listeners.notes = list(kept.notes)
        for slot, retirement in kept.retiring.items():
            sockets = [listeners.socket(id_) for id_ in listeners.ids_for(slot)]
            listeners._retirement.resume(slot, sockets, retirement)
        return listeners

    def _number(self) -> int:
        number, self._next_id = self._next_id, self._next_id + 1
        return number

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses really bound: names resolved, ports chosen."""
        return tuple(endpoint.address for endpoint in self._endpoints)

    @property
    def balance(self) -> Balance:
        """Whether slots share their listeners or have their own; Unix sockets never do."""
        return self._balance

    def set_balance(self, balance: Balance, slots: int) -> None:
        """Turn to `balance`, with listeners for `slots` slots; best before any worker accepts.

        A socket that can't have siblings (passed by another user) stays shared, with a note. On
        the way back to `shared` the other slots' listeners retire.
        """
        self._balance = balance
        if balance == "per-slot":
            self.ensure_slots(slots)
        else:
            self._steered_to = frozenset({0})
            for slot in self._slots():
                self.retire(slot)

    def ensure_slots(self, slots: int) -> None:
        """Have listeners for slots 0 to `slots` - 1; new ones get nothing before `steer`.

        A retiring listener of such a slot stays after all. Raise `ListenError` when the system
        gives no more sockets.
        """
        if self._balance == "shared":
            return
        for slot in range(slots):
            self._retirement.cancel(slot)
        for endpoint in self._split():
            try:
                endpoint.grow(slots, self._backlog)
            except OSError as error:
                why = os.strerror(error.errno or 0)
                if endpoint.can_split:
                    raise ListenError(
                        f"cannot listen on {endpoint.address} for {slots} slots: {why}; "
                        "use fewer workers or raise the limit of open files"
                    ) from error
                self.notes.append(
                    f"cannot give each slot a socket of its own on {endpoint.address} ({why}); "
                    "its workers share one"
                )
        self._apply_steering()

    def steer(self, slots: Collection[int]) -> None:
        """Let the listeners of `slots` alone get new connections; without any, all that stay.

        Cheap when nothing changes. What waits in a queue already stays there.
        """
        self._steered_to = frozenset(slots)
        self._apply_steering()

    def retire(self, slot: int) -> None:
        """Let go of `slot`'s own listeners: steer away, wait until nobody is left, then `drop`.

        Siblings accept from them until `on_quiet(slot)` is called; then let all workers release
        them (`Accept` without their ids), and when they did, call `drop`. Slot 0's stay: they are
        the address itself.
        """
        if slot == 0 or slot not in self._slots():
            return
        for endpoint in self._split():
            endpoint.retire(slot)
        self._apply_steering()
        self._retirement.watch(slot, [self.socket(id_) for id_ in self.ids_for(slot)])

    @property
    def retiring(self) -> frozenset[int]:
        """The slots whose listeners retire: from `retire` to `drop`."""
        return self._retirement.slots

    def drop(self, slot: int) -> None:
        """End `slot`'s own listeners for everyone who still holds them."""
        self._retirement.cancel(slot)
        for endpoint in self._split():
            endpoint.drop(slot)
        self._apply_steering()

    @property
    def slots(self) -> frozenset[int]:
        """The slots that have listeners of their own, retiring ones too; none when `shared`."""
        return frozenset() if self._balance == "shared" else frozenset(self._slots())

    def labels(self) -> dict[int, str]:
        """Return a name for each listener: its address, and its slot where it has one."""
        return {
            id_: endpoint.address if slot is None else f"{endpoint.address} slot {slot}"
            for endpoint in self._endpoints
            for slot, id_ in self._placed(endpoint)
        }

    def _placed(self, endpoint: Endpoint) -> list[tuple[int | None, int]]:
        if self._balance == "shared" or not endpoint.can_split:
            return [(None, endpoint.first_id)]
        return [(slot, id_) for slot, id_ in endpoint.slots.items()]

    def ids_for(self, slot: int) -> tuple[int, ...]:
        """Return the listeners of `slot` alone, one for each TCP address; none when `shared`."""
        if self._balance == "shared" and slot == 0:
            return ()
        return tuple(e.slots[slot] for e in self._split() if slot in e.slots)

    def shared_ids(self) -> tuple[int, ...]:
        """Return the listeners that all slots accept from."""
        return tuple(
            e.first_id for e in self._endpoints if self._balance == "shared" or not e.can_split
        )

    def ids(self) -> tuple[int, ...]:
        """Return all listeners, retiring ones too."""
        return tuple(id_ for endpoint in self._endpoints for id_ in endpoint.sockets)

    def socket(self, listener: int) -> socket.socket:
        """Return the socket of a listener; raise KeyError when it is gone."""
        for endpoint in self._endpoints:
            if listener in endpoint.sockets:
                return endpoint.sockets[listener]
        raise KeyError(listener)

    def fds(self, listeners: Iterable[int]) -> list[int]:
        """Return the fds to send with an `Accept` of `listeners`, in its order."""
        return [self.socket(listener).fileno() for listener in listeners]

    def depth(self, listener: int) -> int | None:
        """Return how many connections wait at a listener; None where the kernel won't say."""
        return depth(self.socket(listener))

    def close(self) -> None:
        """Close all sockets: from here on clients are refused."""
        self._retirement.close()
        for endpoint in self._endpoints:
            endpoint.close()
        self._endpoints = []

    def _split(self) -> list[Endpoint]:
        return [endpoint for endpoint in self._endpoints if endpoint.can_split]

    def _slots(self) -> set[int]:
        return {slot for endpoint in self._split() for slot in endpoint.slots}

    def _apply_steering(self) -> None:
        for endpoint in self._endpoints:
            endpoint.steer(self._steered_to)
