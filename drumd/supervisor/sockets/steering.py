"""Steering: which sockets of a SO_REUSEPORT group get new connections, by a classic BPF program.

The program returns the index of a socket in its group. It needs no privileges
(`SO_ATTACH_REUSEPORT_CBPF`, socket(7)), belongs to the group, and survives its setter.

**How it spreads.** A program keeps no state, so it can only compute from the packet. Drawing lots
(`SKF_AD_RANDOM`), or a hash of the connection, is a lottery: of 64 connections the busiest of 4
gets 1.25 times its fair share in the median, and more than 1.35 times in a quarter of the cases.
But one client's source ports tell how many connections it opened before: Linux hands them out
upwards for one destination (`__inet_hash_connect` in net/ipv4/inet_hashtables.c), in steps of 2
with a rare skip, in newer kernels (seen in 6.18) in random steps of 2 to 16. So neighbouring ports
share a socket, `PORTS_A_TURN` at a time, and take turns. Once in `ROUNDS_A_SHIFT` rounds over all
sockets the order is shifted by a hash, in which the client's address counts too: many clients don't
all begin with the same socket, and a client that picks its ports in strides (each 32nd, as some
address translators do) cannot stay on one socket.

Measured, 64 connections on 4 sockets, the busiest's share of a fair one in the median, and how
often it was above 1.35: this program 1.19 and 8 % on random steps (Linux 6.18), 1.00 to 1.19 and
0 % on steps of 2, 1.06 and 0 % on steps of 8 and 64; lots 1.25 and 27 % on any; `port % 4` up to
4.0, all on one. Random ports spread as by lot with every program.
"""

import ctypes
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

# asm-generic/socket.h; the socket module lacks them
SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
SO_ATTACH_REUSEPORT_CBPF = 51

PORTS_A_TURN = 8
"""A turn's width in port numbers. With steps of 2 to 16 (9 on average) a turn is about one
connection, with steps of 2 it is four; narrower turns make the former random, wider ones make
few connections of the latter uneven."""
ROUNDS_A_SHIFT = 2
"""Rounds over all sockets before the order is shifted."""

# linux/filter.h and linux/bpf_common.h
_LD_W, _LD_H, _LD_B = 0x20, 0x28, 0x30
_LDX_MEM, _ST, _LD_MEM = 0x61, 0x02, 0x60
_DIV, _MOD, _MUL, _RSH, _ADD_X = 0x34, 0x94, 0x24, 0x74, 0x0C
_JEQ, _JA, _RET = 0x15, 0x05, 0x06
_AND = 0x54
_FLAGS_AT = 13  # in a TCP header (RFC 9293, 3.1), where a listener's filter begins to count
_SYN, _ACK = 0x02, 0x10
_NETWORK_HEADER = 0xFFF00000  # SKF_NET_OFF: a reuseport program's data begins after the TCP header
_MULTIPLIER = 0x9E3779B1  # 2**32 / the golden ratio: neighbours land far apart (Knuth, 6.4)

Instruction = tuple[int, int, int, int]


def program(indices: Sequence[int]) -> list[Instruction]:
    """Return the instructions that spread connections over the sockets at `indices`.

    IPv4 options and IPv6 extension headers are not looked for: with them another part of the
    packet stands in for the port, which spreads as by lot.
    """
    if not indices:
        raise ValueError("cannot steer to no socket at all")
    if len(indices) == 1:
        return [(_RET, 0, 0, indices[0])]
    count = len(indices)
    network = _NETWORK_HEADER
    head: list[Instruction] = [
        (_LD_B, 0, 0, network),
        (_RSH, 0, 0, 4),
        (_JEQ, 0, 4, 4),  # which IP version: a dual-stack group sees both
        (_LD_W, 0, 0, network + 12),  # IPv4: source address
        (_ST, 0, 0, 0),
        (_LD_H, 0, 0, network + 20),  # source port
        (_JA, 0, 0, 3),
        (_LD_W, 0, 0, network + 20),  # IPv6: the last word of the source address
        (_ST, 0, 0, 0),
        (_LD_H, 0, 0, network + 40),
        (_DIV, 0, 0, PORTS_A_TURN),
        (_ST, 0, 0, 1),  # M[1]: the turn
        (_LD_MEM, 0, 0, 0),
        (_MUL, 0, 0, _MULTIPLIER),
        (_ST, 0, 0, 0),
        (_LD_MEM, 0, 0, 1),
        (_DIV, 0, 0, count * ROUNDS_A_SHIFT),
        (_LDX_MEM, 0, 0, 0),
        (_ADD_X, 0, 0, 0),
        (_MUL, 0, 0, _MULTIPLIER),
        (_RSH, 0, 0, 16),  # the low bits of a product know little of the high bits of its factors
        (_LDX_MEM, 0, 0, 1),
        (_ADD_X, 0, 0, 0),
        (_MOD, 0, 0, count),
    ]
    picks: list[Instruction] = []
    for turn, index in enumerate(indices[:-1]):
        picks += [(_JEQ, 0, 1, turn), (_RET, 0, 0, index)]
    return [*head, *picks, (_RET, 0, 0, indices[-1])]


def attach(sock: socket.socket, instructions: Sequence[Instruction]) -> None:
    """Make `instructions` the program of `sock`'s group; raise OSError (EINVAL without a group).

    Takes some 10 µs; connections that arrive meanwhile see the old program or the new one.
    """
    _set_program(sock, SO_ATTACH_REUSEPORT_CBPF, instructions)


def shut_out(sock: socket.socket) -> None:
    """Have a TCP listener hear no new client, while those it has heard still get in; raise OSError.

    A filter on the socket (socket(7)) drops each first packet of a handshake: the client tries
    again a second later, and is refused then if the listener is closed by that time. Connections
    that are accepted inherit the filter, which finds nothing to drop in them.
    """
    _set_program(
        sock,
        SO_ATTACH_FILTER,
        [
            (_LD_B, 0, 0, _FLAGS_AT),
            (_AND, 0, 0, _SYN | _ACK),
            (_JEQ, 0, 1, _SYN),
            (_RET, 0, 0, 0),  # none of its bytes: dropped
            (_RET, 0, 0, 0xFFFF),
        ],
    )


def let_in(sock: socket.socket) -> None:
    """Undo `shut_out`; raise OSError."""
    sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _set_program(sock: socket.socket, option: int, instructions: Sequence[Instruction]) -> None:
    code = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *line) for line in instructions)
    )
    sock.setsockopt(
        socket.SOL_SOCKET,
        option,
        struct.pack("HxxxxxxQ", len(instructions), ctypes.addressof(code)),
    )


@dataclass(frozen=True, slots=True)
class KeptGroup:
    """A group's mirror, over a re-exec: the group itself, and its program, stay in the kernel."""

    order: tuple[int, ...]
    attached: tuple[int, ...] | None


class Group:
    """Mirror of one SO_REUSEPORT group: which member has which index, and who is steered to.

    The kernel orders members by `listen()`, appends, and fills the place of one that goes with the
    last one (`reuseport_add_sock`, `__reuseport_detach_sock` in net/core/sock_reuseport.c).
    """

    def __init__(self, first: int, sock: socket.socket) -> None:
        self._order = [first]
        self._sock = sock
        self._attached: tuple[int, ...] | None = None

    @property
    def order(self) -> tuple[int, ...]:
        """The members' ids, by index in the kernel's group."""
        return tuple(self._order)

    def keep(self) -> KeptGroup:
        """Return what `resume` needs."""
        return KeptGroup(self.order, self._attached)

    @classmethod
    def resume(cls, sock: socket.socket, kept: KeptGroup) -> "Group":
        """Return the mirror that was kept."""
        group = cls(kept.order[0], sock)
        group._order = list(kept.order)
        group._attached = kept.attached
        return group

    def joined(self, member: int) -> None:
        """Note that `member` listens now."""
        self._order.append(member)

    def left(self, member: int) -> None:
        """Note that `member` listens no more; steer again right after."""
        index = self._order.index(member)
        self._order[index] = self._order[-1]
        self._order.pop()
        self._attached = None  # the kernel's program may name the one who moved by its old index

    def steer(self, members: Sequence[int]) -> None:
        """Send new connections to `members` alone; nothing is done when it is so already."""
        indices = tuple(sorted(self._order.index(member) for member in members))
        if indices != self._attached:
            attach(self._sock, program(indices))
            self._attached = indices
