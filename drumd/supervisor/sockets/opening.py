"""Opening: from an address to one listening socket, exclusively."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from drumd.supervisor.sockets.errors import AddressInUseError, ListenError, tcp_error, unix_error
from drumd.supervisor.sockets.holders import peer_holder
from drumd.supervisor.sockets.steering import attach, program
from drumd.wire.address import TcpAddress, UnixAddress

_V4 = 4
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class SocketFile:
    """A Unix socket's file, by path and inode: so that another's is never removed."""

    path: str
    device: int
    inode: int

    @classmethod
    def of(cls, path: str) -> "SocketFile":
        """Return what is at `path` now; raise OSError without it."""
        status = os.lstat(path)
        return cls(str(Path(path).absolute()), status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Remove the file if it is still this one."""
        with suppress(OSError):
            if SocketFile.of(self.path) == self:
                Path(self.path).unlink()


def open_tcp(address: TcpAddress, backlog: int) -> list[socket.socket]:
    """Listen on every address that the host has; raise `ListenError`.

    A name is resolved here, which blocks; an IP address is not. Of a name's several addresses
    (localhost: 127.0.0.1 and ::1) those that this machine lacks are left out, if one is left.
    With port 0 all get the port that the first one got.
    """
    found: list[socket.socket] = []
    missing: ListenError | None = None
    port = address.port
    try:
        for family, host in _resolve(address):
            try:
                found.append(_listen(family, host, port, backlog))
            except OSError as error:
                failure = tcp_error(address, family, host, port, error)
                if error.errno not in _NO_SUCH_FAMILY:
                    raise failure from error
                missing = failure
                continue
            port = found[-1].getsockname()[1]
        if not found and missing is not None:
            raise missing
    except ListenError:
        for sock in found:
            sock.close()
        raise
    return found


def _resolve(address: TcpAddress) -> list[tuple[int, str]]:
    with suppress(ValueError):
        version = ip_address(address.host).version
        return [(socket.AF_INET if version == _V4 else socket.AF_INET6, address.host)]
    try:
        answers = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ListenError(
            f"cannot listen on {address}: cannot find the host {address.host!r} "
            f"({error.strerror or error}); write an IP address"
        ) from error
    # dict: some resolvers answer twice, e.g. for two lines of /etc/hosts
    return list(dict.fromkeys((family, str(where[0])) for family, _, _, _, where in answers))


def _listen(family: int, host: str, port: int, backlog: int) -> socket.socket:
    """Bind and listen so that nobody else can, not even with SO_REUSEPORT."""
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # past connections in TIME_WAIT are no reason to wait
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        _prepare_group(sock)
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _prepare_group(sock: socket.socket) -> None:
    """Give a bound socket a group with a program that picks this socket alone.

    So a sibling that joins later gets nothing before it is steered to. SO_REUSEPORT is off again
    while `listen()` looks for conflicts, or two supervisors that bind at the same moment could
    both succeed.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    attach(sock, program([0]))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def open_sibling(first: socket.socket, backlog: int) -> socket.socket:
    """Listen on the same address as `first`, in the same SO_REUSEPORT group; raise OSError.

    A socket that was passed to drumd refuses siblings with EADDRINUSE when another user made it.
    """
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock = socket.socket(
        first.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        # SO_REUSEADDR: connections that were accepted before SO_REUSEPORT was on are no obstacle
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if first.family == socket.AF_INET6:
            v6only = first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        sock.bind(first.getsockname())
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def open_unix(address: UnixAddress, backlog: int, mode: int) -> tuple[socket.socket, SocketFile]:
    """Listen on a path with permissions `mode`; replace a stale socket; raise `ListenError`."""
    _clear_stale(address)
    sock = socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        with _umask(0o777 & ~mode):  # never, not even for a moment, wider than `mode`
            sock.bind(address.path)
        Path(address.path).chmod(mode)
        sock.listen(backlog)
        return sock, SocketFile.of(address.path)
    except OSError as error:
        sock.close()
        raise unix_error(address, error) from error


def _clear_stale(address: UnixAddress) -> None:
    """Remove a socket on which nobody listens; raise `ListenError` for anything else there.

    Two programs that start at the same moment on the same stale socket are not told apart.
    """
    try:
        there = SocketFile.of(address.path)
        if not stat.S_ISSOCK(os.lstat(address.path).st_mode):
            raise ListenError(
                f"cannot listen on {address}: a file that is no socket is there; "
                "remove it or choose another path"
            )
    except FileNotFoundError:
        return
    except OSError as error:
        raise unix_error(address, error) from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(address.path)
        except (ConnectionRefusedError, FileNotFoundError):
            there.remove()
        except OSError as error:
            # EAGAIN: its queue is full; EPROTOTYPE: a datagram socket. Both are someone's.
            if error.errno in (errno.EAGAIN, errno.EPROTOTYPE):
                raise AddressInUseError(address, None) from error
            raise unix_error(address, error) from error
        else:
            raise AddressInUseError(address, peer_holder(probe))


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
