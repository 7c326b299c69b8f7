"""Sockets that the starter of drumd passed: systemd's LISTEN_FDS, or plain inherited fds."""

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from drumd.supervisor.sockets.errors import ListenError
from drumd.wire.address import Address, InheritedAddress, TcpAddress, UnixAddress

FIRST_FD = 3
"""Where the passed fds begin (sd_listen_fds(3))."""


class Inherited:
    """The sockets passed to this process; each can be taken once."""

    def __init__(
        self, named: list[tuple[str, socket.socket]], passed: frozenset[int] | None = None
    ) -> None:
        """Hold `named`; `passed` are the fds that came with the exec, None where all may be."""
        self._named = named
        self._passed = passed

    @classmethod
    def none(cls) -> "Inherited":
        """Return a holder of nothing."""
        return cls([])

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> "Inherited":
        """Take over what LISTEN_FDS tells of, and remove its variables: workers have no say in it.

        Does nothing when LISTEN_PID names another process. Anything passed that is no stream
        socket (a fifo, a datagram socket) is left alone.
        """
        passed = _inheritable_fds()
        pid = environ.pop("LISTEN_PID", "")
        count = environ.pop("LISTEN_FDS", "")
        names = environ.pop("LISTEN_FDNAMES", "").split(":")
        if pid != str(os.getpid()) or not count.isdigit():
            return cls([], passed)
        named = []
        for offset in range(int(count)):
            sock = _stream_socket(FIRST_FD + offset)
            if sock is not None:
                named.append((names[offset] if offset < len(names) else "unknown", sock))
        return cls(named, passed)

    def take(self, address: InheritedAddress) -> list[socket.socket]:
        """Hand out the sockets of that name or the one of that number; raise `ListenError`."""
        if address.name.isdigit():
            return [self._by_number(address)]
        found = [sock for name, sock in self._named if name == address.name]
        if not found:
            names = ", ".join(f"fd://{name}" for name in dict.fromkeys(n for n, _ in self._named))
            raise ListenError(
                f"cannot listen on {address}: no socket of that name was passed; "
                + (f"there are {names}" if names else "none was passed at all (LISTEN_FDS)")
            )
        self._forget(found)
        return found

    def take_matching(self, address: Address) -> list[socket.socket]:
        """Hand out the sockets that already are bound to `address`; an empty list without one."""
        found = [sock for _, sock in self._named if _is_bound_to(sock, address)]
        self._forget(found)
        return found

    def close(self) -> list[str]:
        """Close what nobody took; return the names."""
        names = [name for name, _ in self._named]
        for _, sock in self._named:
            sock.close()
        self._named = []
        return names

    def _by_number(self, address: InheritedAddress) -> socket.socket:
        number = int(address.name)
        for _, sock in self._named:
            if sock.fileno() == number:
                self._forget([sock])
                return sock
        # An fd that drumd opened itself may have that number, such as its admin socket.
        ours = number < FIRST_FD or (self._passed is not None and number not in self._passed)
        sock_or_none = None if ours else _stream_socket(number)
        if sock_or_none is None:
            raise ListenError(
                f"cannot listen on {address}: fd {number} is no stream socket of this process; "
                "pass one, or write host:port"
            )
        return sock_or_none

    def _forget(self, taken: list[socket.socket]) -> None:
        self._named = [(name, sock) for name, sock in self._named if sock not in taken]


def _inheritable_fds() -> frozenset[int]:
    """Return the open fds without close-on-exec: Python opens none such by itself (PEP 446)."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own
            if os.get_inheritable(int(entry.name)):
                found.add(int(entry.name))
    return frozenset(found)


def _stream_socket(fd: int) -> socket.socket | None:
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    with suppress(OSError):
        if sock.type == socket.SOCK_STREAM and sock.family in families:
            sock.set_inheritable(False)
            sock.setblocking(False)
            return sock
    sock.detach()
    return None


def _is_bound_to(sock: socket.socket, address: Address) -> bool:
    name = sock.getsockname()
    match address:
        case TcpAddress(host, port):
            return sock.family != socket.AF_UNIX and port != 0 and name[:2] == (host, port)
        case UnixAddress(path):
            return sock.family == socket.AF_UNIX and name == path
        case InheritedAddress():
            return False
