"""Who is at the other end of an admin connection, and whether they may change things."""

import contextlib
import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_SO_PEERGROUPS = 59
"""Linux 4.13 and later (asm-generic/socket.h); the socket module has no name for it."""
_MAX_OPTION = 1024
"""Bytes that Python's getsockopt takes at most: 256 groups."""
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """A client, as it was when it connected: the kernel says so, not the client."""

    pid: int
    uid: int
    gids: frozenset[int]
    """Its primary group and the supplementary ones."""

    def __str__(self) -> str:
        return f"{_user(self.uid)} (uid {self.uid}, pid {self.pid})"


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected (unix(7), SO_PEERCRED and SO_PEERGROUPS)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid, frozenset({gid, *_supplementary(connection, pid)}))


def _supplementary(connection: socket.socket, pid: int) -> tuple[int, ...]:
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_OPTION)
        return struct.unpack(f"{len(raw) // 4}I", raw)
    except OSError:
        # ERANGE: in more groups than fit. Then as the process is now (proc_pid_status(5)).
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("Groups:"):
                    return tuple(map(int, line.split()[1:]))
        return ()


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may operate the daemon: root, its own user, and the members of `group`."""

    group: str | None = None

    def allows(self, peer: Peer) -> bool:
        """Say whether `peer` may change things."""
        if peer.uid in (0, os.geteuid()):
            return True
        return self.group is not None and _gid(self.group) in peer.gids

    def __str__(self) -> str:
        allowed = ["root", *([] if os.geteuid() == 0 else [_user(os.geteuid())])]
        if self.group is not None:
            allowed.append(f"members of group {self.group}")
        return " and ".join(filter(None, [", ".join(allowed[:-1]), allowed[-1]]))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _gid(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None
