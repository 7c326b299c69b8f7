"""Depths of accept queues."""

import socket
import struct

_TCP_UNACKED = 24
"""Offset of `tcpi_unacked` in `struct tcp_info` (linux/tcp.h): for a listener, the connections
that wait to be accepted (`tcp_get_info` in net/ipv4/tcp.c)."""


def depth(listener: socket.socket) -> int | None:
    """Return how many connections wait in `listener`'s queue; None where the kernel won't say.

    It says for TCP alone. A worker that accepts eagerly keeps its queue at 0 under any load.
    """
    if listener.family == socket.AF_UNIX:
        return None
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_UNACKED + 4)
    return int(struct.unpack_from("I", info, _TCP_UNACKED)[0])
