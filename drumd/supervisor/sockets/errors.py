"""What can go wrong with an address, in words for people."""

import errno
import os
from pathlib import Path

from drumd.supervisor.sockets.holders import Holder, tcp_holder
from drumd.wire.address import TcpAddress, UnixAddress


class ListenError(Exception):
    """cannot listen on an address."""


class AddressInUseError(ListenError):
    """cannot listen on an address: someone else does."""

    def __init__(self, address: TcpAddress | UnixAddress, holder: Holder | None) -> None:
        who = (
            f"in use by {holder}"
            if holder
            else "in use; the system does not tell by whom (another user's process, or another "
            "container's; as root, `ss -ltnp` shows it)"
        )
        super().__init__(f"cannot listen on {address}: {who}; stop it or choose another address")
        self.address = address
        self.holder = holder


def tcp_error(
    address: TcpAddress, family: int, host: str, port: int, error: OSError
) -> ListenError:
    """Return `error`, met while listening on host:port for `address`, as something to act on."""
    match error.errno:
        case errno.EADDRINUSE:
            return AddressInUseError(address, tcp_holder(family, host, port))
        case errno.EACCES:
            why = (
                "ports below "
                f"{_first_free_port()} are for root; choose a higher port, pass the socket "
                "by systemd (fd://NAME), or grant CAP_NET_BIND_SERVICE"
            )
        case errno.EADDRNOTAVAIL:
            why = "no interface of this machine has that address; choose one of its own, or 0.0.0.0"
        case errno.EAFNOSUPPORT:
            why = "this machine has no IPv6; choose an IPv4 address"
        case _:
            why = os.strerror(error.errno) if error.errno else str(error)
    return ListenError(f"cannot listen on {address}: {why}")


def unix_error(address: UnixAddress, error: OSError) -> ListenError:
    """Return `error`, met while binding a Unix socket, as something to act on."""
    directory = Path(address.path).parent
    match error.errno:
        case errno.ENOENT:
            why = f"there is no directory {directory}; create it or choose another path"
        case errno.ENOTDIR:
            why = f"{directory} is no directory; choose another path"
        case errno.EACCES | errno.EPERM:
            why = f"this user may not write in {directory}; choose another path or change its mode"
        case errno.EROFS:
            why = f"{directory} is on a read-only file system; choose a path under /run or /tmp"
        case errno.EADDRINUSE:
            return AddressInUseError(address, None)
        case _:
            why = os.strerror(error.errno) if error.errno else str(error)
    return ListenError(f"cannot listen on {address}: {why}")


def _first_free_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024
