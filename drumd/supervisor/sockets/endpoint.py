"""An endpoint: one address that a pool listens on, and its sockets."""

import socket
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from drumd.supervisor.fds import Fd
from drumd.supervisor.sockets.opening import SocketFile, open_sibling
from drumd.supervisor.sockets.steering import Group, KeptGroup, let_in, shut_out
from drumd.wire.address import Address, parse_address


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptEndpoint:
    """An endpoint over a re-exec: its sockets stay open."""

    wanted: str
    first: int
    sockets: Mapping[int, Fd]
    slots: Mapping[int, int]
    retiring: frozenset[int]
    can_split: bool
    group: KeptGroup | None = None
    file: SocketFile | None = None


class Endpoint:
    """One bound address: its first socket and, per slot, the siblings of it.

    The first socket belongs to slot 0 and stays until `close`: it is the address itself.
    """

    def __init__(
        self,
        number: Callable[[], int],
        first: socket.socket,
        wanted: Address,
        *,
        file: SocketFile | None = None,
    ) -> None:
        self.wanted = wanted
        """What was asked for: a name may stand for several endpoints, a port 0 for any port."""
        self._number = number
        self._first = first
        self._file = file
        self._sockets = {number(): first}
        self._slots = {0: self.first_id}
        self._group: Group | None = None
        self._retiring: set[int] = set()
        self.can_split = first.family != socket.AF_UNIX
        """Whether each slot can have a socket of its own."""

    def keep(self) -> KeptEndpoint:
        """Return what `resume` needs."""
        return KeptEndpoint(
            wanted=str(self.wanted),
            first=self.first_id,
            sockets={id_: Fd(sock.fileno()) for id_, sock in self._sockets.items()},
            slots=dict(self._slots),
            retiring=frozenset(self._retiring),
            can_split=self.can_split,
            group=None if self._group is None else self._group.keep(),
            file=self._file,
        )

    @classmethod
    def resume(cls, number: Callable[[], int], kept: KeptEndpoint) -> "Endpoint":
        """Go on with the sockets of an endpoint that was kept; raise OSError."""
        sockets = {id_: _inherited(fd) for id_, fd in kept.sockets.items()}
        first = sockets.pop(kept.first)
        endpoint = cls(lambda: kept.first, first, parse_address(kept.wanted), file=kept.file)
        endpoint._number = number
        endpoint._sockets |= sockets
        endpoint._slots = dict(kept.slots)
        endpoint._retiring = set(kept.retiring)
        endpoint.can_split = kept.can_split
        if kept.group is not None:
            endpoint._group = Group.resume(first, kept.group)
        return endpoint

    @property
    def first_id(self) -> int:
        """The id of the first socket."""
        return next(iter(self._sockets))

    @property
    def address(self) -> str:
        """The address that it is really bound to, as one writes it."""
        name = self._first.getsockname()
        if self._first.family == socket.AF_UNIX:
            return f"unix:{name}"
        host = f"[{name[0]}]" if self._first.family == socket.AF_INET6 else name[0]
        return f"{host}:{name[1]}"

    @property
    def sockets(self) -> dict[int, socket.socket]:
        """The sockets by id, retiring ones too."""
        return self._sockets

    @property
    def slots(self) -> dict[int, int]:
        """The id of each slot's socket, retiring ones too."""
        return self._slots

    def grow(self, slots: int, backlog: int) -> None:
        """Open sockets for slots 0 to `slots` - 1 where there are none; raise OSError.

        Nothing is steered to the new ones yet. When not even one sibling can be had, the first
        socket stays shared: `can_split` turns false.
        """
        for slot in range(slots):
            self._retiring.discard(slot)
            if slot in self._slots:
                continue
            try:
                sock = open_sibling(self._first, backlog)
            except OSError:
                if self._group is None:
                    self.can_split = False
                    self._first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
                raise
            if self._group is None:
                self._group = Group(self.first_id, self._first)
            self._slots[slot] = self._number()
            self._sockets[self._slots[slot]] = sock
            self._group.joined(self._slots[slot])

    def steer(self, slots: Collection[int]) -> None:
        """Let the sockets of `slots` alone get new connections; of all that stay when none is."""
        if self._group is None:
            return
        staying = {slot: id_ for slot, id_ in self._slots.items() if slot not in self._retiring}
        chosen = [id_ for slot, id_ in staying.items() if slot in slots]
        self._group.steer(chosen or list(staying.values()))

    def retire(self, slot: int) -> None:
        """Note that `slot`'s socket is to go."""
        if slot in self._slots:
            self._retiring.add(slot)

    def drop(self, slot: int) -> None:
        """End `slot`'s socket for everyone who holds it."""
        if slot == 0 or slot not in self._slots:
            return
        self._retiring.discard(slot)
        id_ = self._slots.pop(slot)
        sock = self._sockets.pop(id_)
        # A worker may still have the fd open: shutdown takes the socket out of the group at this
        # very moment, where close alone would leave a member that the mirror doesn't know of.
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RD)
        sock.close()
        if self._group is not None:
            self._group.left(id_)

    def shut_out(self) -> None:
        """Let nobody else in; who waits already can still be accepted."""
        if self._file is not None:
            self._file.remove()
        if self._first.family != socket.AF_UNIX:
            for sock in self._sockets.values():
                with suppress(OSError):  # then it goes on as before until it is closed
                    shut_out(sock)

    @property
    def can_return(self) -> bool:
        """Whether `let_in` can undo `shut_out`: not for a Unix socket, whose file is gone."""
        return self._first.family != socket.AF_UNIX

    def let_in(self) -> None:
        """Undo `shut_out`."""
        for sock in self._sockets.values():
            with suppress(OSError):  # ENOENT: it had not been shut out
                let_in(sock)

    def end(self) -> None:
        """End all sockets for everyone who still holds them, and close them."""
        for sock in self._sockets.values():
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RD)
        self.close()

    def close(self) -> None:
        """Close all sockets, and remove the Unix socket's file if it is still ours."""
        for sock in self._sockets.values():
            sock.close()
        if self._file is not None:
            self._file.remove()


def _inherited(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock
