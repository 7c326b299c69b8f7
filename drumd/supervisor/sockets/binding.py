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
from drumd.supervisor.sockets.removals import KeptRemoval, Removals
from drumd.supervisor.sockets.retiring import KeptRetirement, Retirement
from drumd.wire.address import Address, InheritedAddress, TcpAddress, UnixAddress

Balance = Literal["shared", "per-slot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptListeners:
    """A pool's listening sockets over a re-exec."""

    backlog: int
    unix_mode: int
    endpoints: tuple[KeptEndpoint, ...]
    next_id: int
    balance: Balance
    steered_to: frozenset[int]
    retiring: Mapping[int, KeptRetirement]
    removals: tuple[KeptRemoval, ...] = ()
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
        self._unix_mode = 0o660
        self._endpoints: list[Endpoint] = []
        self._next_id = 0
        self._balance: Balance = "shared"
        self._steered_to: frozenset[int] = frozenset({0})
        self._retirement: Retirement[int] = Retirement(loop, on_quiet)
        self._removals = Removals(loop)
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
        listeners._unix_mode = unix_mode
        listeners._endpoints = listeners._open(addresses, inherited or Inherited.none())
        return listeners

    def keep(self) -> KeptListeners:
        """Return what `resume` needs; nothing changes by it."""
        return KeptListeners(
            backlog=self._backlog,
            unix_mode=self._unix_mode,
            endpoints=tuple(endpoint.keep() for endpoint in self._endpoints),
            next_id=self._next_id,
            balance=self._balance,
            steered_to=self._steered_to,
            retiring=self._retirement.keep(),
            removals=self._removals.keep(),
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
        listeners._unix_mode = kept.unix_mode
        listeners._next_id = kept.next_id
        listeners._endpoints = [
            Endpoint.resume(listeners._number, endpoint) for endpoint in kept.endpoints
        ]
        listeners._balance = kept.balance
        listeners._steered_to = kept.steered_to
        listeners._removals.resume(listeners._number, kept.removals)
        listeners.notes = list(kept.notes)
        for slot, retirement in kept.retiring.items():
            sockets = [listeners.socket(id_) for id_ in listeners.ids_for(slot)]
            listeners._retirement.resume(slot, sockets, retirement)
        return listeners

    def _number(self) -> int:
        number, self._next_id = self._next_id, self._next_id + 1
        return number

    def rebind(self, addresses: Sequence[Address], *, backlog: int) -> None:
        """Listen on `addresses` and no others; raise `ListenError`, and then all is as before.

        New ones are opened first. Those that are not wanted any more get no new clients; workers
        accept from them until nobody waits there, then release them (`Accept` without their ids,
        which are no longer told), and when all did, `drop_removed` closes them.
        """
        kept = [e for e in self._endpoints if e.wanted in addresses]
        # One that is only just being let go of still has its address: it comes back.
        leaving = (*self._removals.emptying, *self._removals.empty)
        back = [e for e in leaving if e.wanted in addresses and e.can_return]
        known = {endpoint.wanted for endpoint in (*kept, *back)}
        self._backlog = backlog
        opened = self._open([a for a in addresses if a not in known], Inherited.none())
        try:
            if self._balance == "per-slot":
                self._grow([*back, *opened], max(self._slots(), default=0) + 1)
        except ListenError:
            for endpoint in opened:
                endpoint.close()
            raise
        order = list(addresses)
        removed = [endpoint for endpoint in self._endpoints if endpoint not in kept]
        for endpoint in back:
            self._removals.take_back(endpoint)
        self._endpoints = sorted([*kept, *back, *opened], key=lambda e: order.index(e.wanted))
        for endpoint in removed:
            self._removals.add(endpoint)
        self._apply_steering()

    @property
    def removable(self) -> bool:
        """Whether there are removed listeners that nobody waits at, for all workers to release."""
        return bool(self._removals.empty)

    def drop_removed(self) -> None:
        """End the removed listeners that nobody waits at, for everyone who still holds them."""
        self._removals.drop()

    def _open(self, addresses: Sequence[Address], inherited: Inherited) -> list[Endpoint]:
        """Listen on all `addresses`, or on none: raise `ListenError`."""
        opened: list[Endpoint] = []
        try:
            for address in addresses:
                opened += self._open_one(address, inherited)
        except ListenError:
            for endpoint in opened:
                endpoint.close()
            raise
        return opened

    def _open_one(self, address: Address, inherited: Inherited) -> list[Endpoint]:
        passed = (
            inherited.take(address)
            if isinstance(address, InheritedAddress)
            else inherited.take_matching(address)
        )
        if passed:
            for sock in passed:
                sock.listen(self._backlog)
            return [Endpoint(self._number, sock, address) for sock in passed]
        if isinstance(address, UnixAddress):
            sock, file = open_unix(address, self._backlog, self._unix_mode)
            return [Endpoint(self._number, sock, address, file=file)]
        if isinstance(address, TcpAddress):
            passed = open_tcp(address, self._backlog)
        return [Endpoint(self._number, sock, address) for sock in passed]

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
        self._grow(self._endpoints, slots)
        self._apply_steering()

    def _grow(self, endpoints: Iterable[Endpoint], slots: int) -> None:
        for endpoint in [each for each in endpoints if each.can_split]:
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
        return self._retirement.watched

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
            for endpoint in self._all()
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
            e.first_id for e in self._all() if self._balance == "shared" or not e.can_split
        )

    def ids(self) -> tuple[int, ...]:
        """Return all listeners, retiring ones too."""
        return tuple(id_ for endpoint in self._all() for id_ in endpoint.sockets)

    def socket(self, listener: int) -> socket.socket:
        """Return the socket of a listener; raise KeyError when it is gone."""
        for endpoint in self._all():
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
        self._removals.close()
        for endpoint in self._endpoints:
            endpoint.close()
        self._endpoints = []

    def _all(self) -> list[Endpoint]:
        """Return all endpoints that workers accept from."""
        return [*self._endpoints, *self._removals.emptying]

    def _split(self) -> list[Endpoint]:
        return [endpoint for endpoint in self._all() if endpoint.can_split]

    def _slots(self) -> set[int]:
        return {slot for endpoint in self._split() for slot in endpoint.slots}

    def _apply_steering(self) -> None:
        for endpoint in self._endpoints:
            endpoint.steer(self._steered_to)
