"""Who holds an address: looked up in /proc, for the message that says so."""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drumd.wire.spec import INSTANCE_VARIABLE

_LISTEN = "0A"
"""TCP_LISTEN in the `st` column of /proc/net/tcp (proc_net_tcp(5))."""
_MAX_COMMAND = 80


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that listens on an address."""

    pid: int

    def __str__(self) -> str:
        return f"pid {self.pid}{command_of(self.pid)}"

    @classmethod
    def responsible(cls, pid: int) -> "Holder":
        """Return who is to be stopped: for what a drumd has started, that drumd."""
        supervisor = _supervisor_of(pid)
        return cls(pid if supervisor is None else supervisor)


def command_of(pid: int) -> str:
    """Return ` (command line)` of a process, cut to a readable length; empty when unreadable."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    line = " ".join(a.decode(errors="replace") for a in arguments if a)
    line = "".join(c if c.isprintable() else "?" for c in line)
    if not line:
        return ""
    return f" ({line if len(line) <= _MAX_COMMAND else line[:_MAX_COMMAND] + '…'})"


def tcp_holder(family: int, host: str, port: int) -> Holder | None:
    """Return who listens on `port` at `host` or on all addresses; None when it can't be told.

    Reading other users' fds takes root. Other network namespaces are not seen.
    """
    inodes = _listening_inodes(family, host, port)
    return _process_with(inodes) if inodes else None


def peer_holder(connection: socket.socket) -> Holder | None:
    """Return who listens at the other end of a connected Unix socket (SO_PEERCRED, unix(7))."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid = struct.unpack("iII", credentials)[0]
    return Holder.responsible(pid) if pid > 0 else None


def _listening_inodes(family: int, host: str, port: int) -> set[str]:
    wanted = {bytes(4), bytes(16), _packed(family, host)}
    wanted |= {b"\0" * 10 + b"\xff\xff" + a for a in wanted if len(a) == len(bytes(4))}
    if not any(_packed(family, host)):
        wanted = set()  # all addresses: whoever has the port on any of them is in the way
    inodes = set()
    # IPv6 listeners of drumd's own are V6ONLY, so no IPv4 socket is in their way
    for table in ("tcp", "tcp6") if family == socket.AF_INET else ("tcp6",):
        try:
            rows = Path("/proc/self/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            address, _, hex_port = columns[1].partition(":")
            if columns[3] != _LISTEN or int(hex_port, 16) != port:
                continue
            if not wanted or _unhex(address) in wanted:
                inodes.add(columns[9])
    return inodes


def _packed(family: int, host: str) -> bytes:
    return socket.inet_pton(family, host.partition("%")[0])


def _unhex(address: str) -> bytes:
    """Decode an address of /proc/net/tcp: 32-bit words in the machine's byte order."""
    words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
    return struct.pack(f"={len(words)}I", *words)


def _supervisor_of(pid: int) -> int | None:
    """Return the pid of the drumd below which a worker, or what a worker started, runs."""
    entry = f"{INSTANCE_VARIABLE}=".encode()
    with suppress(OSError, ValueError):
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if variable.startswith(entry):
                # The mark begins with the supervisor's pid (see processes.marks), which means
                # something else where that one is in another pid namespace.
                supervisor = int(variable.removeprefix(entry).partition(b"-")[0])
                return supervisor if supervisor in _ancestors(pid) else None
    return None


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        yield pid


def _process_with(inodes: set[str]) -> Holder | None:
    targets = {f"socket:[{inode}]" for inode in inodes}
    for pid in sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        if any(target in targets for target in _open_files(pid)):
            return Holder.responsible(pid)
    return None


def _open_files(pid: int) -> Iterator[str]:
    """Yield where the fds of a process lead, as far as that may be read."""
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield str(entry.readlink())
