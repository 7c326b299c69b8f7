"""Addresses that a pool listens on, as people write them. Pure: nothing is opened or resolved."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

FORMS = "host:port, [v6]:port, unix:/path or fd://NAME"
"""What may be written, for messages."""

_MAX_UNIX_PATH = 107
"""Bytes of sun_path less its final NUL (unix(7))."""
_MAX_PORT = 65_535
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_FD_NAME = re.compile(r"[^\s:/]+")


class AddressError(ValueError):
    """cannot use a bind."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(f"cannot use bind {text!r}: {why}")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host (a name, or an IP address without brackets) and a port; port 0: the kernel chooses."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A path in the file system; a relative one is taken from the working directory."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class InheritedAddress:
    """A socket that the starter of drumd passed: its fd's number, or its systemd name."""

    name: str

    def __str__(self) -> str:
        return f"fd://{self.name}"


Address = TcpAddress | UnixAddress | InheritedAddress


def parse_address(text: str) -> Address:
    """Read one bind; raise `AddressError` that says what to write instead.

    `:8080` is every IPv4 interface, as `0.0.0.0:8080`.
    """
    if text.startswith("unix:"):
        return UnixAddress(_unix_path(text))
    if text.startswith("fd://"):
        name = text.removeprefix("fd://")
        if not _FD_NAME.fullmatch(name):
            raise AddressError(text, "write fd:// and a number (fd://3) or a systemd socket's name")
        return InheritedAddress(name)
    if "://" in text:
        raise AddressError(text, f"no such scheme; write {FORMS}")
    if text.startswith("["):
        return _bracketed(text)
    host, colon, port = text.rpartition(":")
    if not colon:
        hint = f"0.0.0.0:{text}" if text.isdigit() else f"{text or '127.0.0.1'}:8080"
        raise AddressError(text, f"the port is missing; write for example {hint}")
    if ":" in host:
        raise AddressError(text, f"write an IPv6 address in brackets, as [{host}]:{port}")
    return TcpAddress(_host(text, host or "0.0.0.0"), _port(text, port))


def _unix_path(text: str) -> str:
    path = text.removeprefix("unix:").removeprefix("//")
    if not path or "\0" in path:
        raise AddressError(text, "the path is missing; write for example unix:/run/app.sock")
    if path.startswith("@"):
        raise AddressError(text, "abstract sockets have no permissions; write a path")
    if len(path.encode()) > _MAX_UNIX_PATH:
        raise AddressError(
            text, f"the path is {len(path.encode())} bytes long, the kernel takes {_MAX_UNIX_PATH}"
        )
    return path


def _bracketed(text: str) -> TcpAddress:
    host, bracket, port = text[1:].partition("]:")
    if not bracket:
        raise AddressError(text, "the port is missing; write for example [::1]:8080")
    try:
        return TcpAddress(str(IPv6Address(host)), _port(text, port))
    except AddressValueError:
        raise AddressError(
            text, f"{host!r} is no IPv6 address; brackets are for those alone"
        ) from None


def _host(text: str, host: str) -> str:
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return str(IPv4Address(host))
        except AddressValueError:
            raise AddressError(
                text, f"{host!r} is no IPv4 address; write for example 127.0.0.1"
            ) from None
    if not _HOST_NAME.fullmatch(host):
        raise AddressError(text, f"{host!r} is no host name; write {FORMS}")
    return host


def _port(text: str, port: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > _MAX_PORT:
        raise AddressError(text, f"the port must be a number from 0 to 65535, not {port!r}")
    return int(port)
