"""Where admin sockets are: the places that the daemon tries, and where `drumctl` looks for daemons.

Both sides must agree, so both take it from here. Only the quick parts of the standard library are
imported: `drumctl status` answers at once.
"""

import os
import socket
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SOCKET_VARIABLE = "DRUMD_SOCKET"
"""Environment variable that names the admin socket, for `drumd` and `drumctl` alike."""
SYSTEM_DIRECTORY = Path("/run/drumd")
_MAX_INSTANCES = 64
_PRIVATE = 0o700
CONNECT_TIMEOUT = 2.0
"""Seconds; a daemon that does not accept within them is there all the same."""


class PlaceError(Exception):
    """cannot keep an admin socket in that directory."""


@dataclass(frozen=True, slots=True)
class Place:
    """A directory for admin sockets. `private`: nobody else may be able to enter it."""

    directory: Path
    private: bool


def places(environ: Mapping[str, str]) -> list[Place]:
    """Return the directories in which an admin socket may be, the best first."""
    found = []
    # systemd sets it for a unit with RuntimeDirectory=; several are separated by colons.
    if runtime := environ.get("RUNTIME_DIRECTORY"):
        found.append(Place(Path(runtime.split(":")[0]), private=False))
    found.append(Place(SYSTEM_DIRECTORY, private=False))
    if session := environ.get("XDG_RUNTIME_DIR"):
        found.append(Place(Path(session, "drumd"), private=True))
    # TMPDIR may differ between the daemon's environment and drumctl's; /tmp is common ground.
    temporary = filter(None, (environ.get("TMPDIR"), "/tmp"))  # noqa: S108 - `prepare` checks
    found += [Place(Path(path, f"drumd-{os.getuid()}"), private=True) for path in temporary]
    return list(dict.fromkeys(found))


def prepare(place: Place) -> None:
    """Make the directory if it is not there; raise `PlaceError` when it cannot be used.

    In a directory that all may write to (/tmp), somebody else may have put one of this name, or a
    link: a private one must be ours, a real directory, and closed to all others.
    """
    directory = place.directory
    try:
        if place.private:
            directory.mkdir(mode=_PRIVATE, exist_ok=True)
        elif directory == SYSTEM_DIRECTORY and os.geteuid() == 0:
            directory.mkdir(mode=0o755, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise PlaceError(f"{directory}: {error.strerror}") from error
    if place.private:
        if not stat.S_ISDIR(status.st_mode):
            raise PlaceError(f"{directory}: it is no directory")
        if status.st_uid != os.geteuid():
            raise PlaceError(f"{directory}: it belongs to uid {status.st_uid}")
        if stat.S_IMODE(status.st_mode) & ~_PRIVATE:
            raise PlaceError(f"{directory}: others may enter it; chmod 0700 {directory}")
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise PlaceError(f"{directory}: not writable")


def names() -> Iterator[str]:
    """Yield the names of sockets in a directory; a second daemon takes the next that is free."""
    yield "admin.sock"
    for number in range(2, _MAX_INSTANCES + 1):
        yield f"admin-{number}.sock"


@dataclass(frozen=True, slots=True)
class Found:
    """A socket file, and what came of connecting to it."""

    path: Path
    answer: Literal["live", "denied", "stale"]
    pid: int = 0
    """Of the daemon that answers."""


def discover(environ: Mapping[str, str]) -> list[Found]:
    """Return every admin socket in the default places, with what connecting to it gives."""
    found: dict[tuple[int, int], Found] = {}
    for place in places(environ):
        try:
            paths = sorted(place.directory.glob("*.sock"))
        except OSError:
            continue
        for path in paths:
            try:
                status = path.stat()
            except OSError:
                continue
            # One directory may be reached by two names; a socket counts once.
            if stat.S_ISSOCK(status.st_mode):
                found.setdefault((status.st_dev, status.st_ino), look_at(path))
    return list(found.values())


def look_at(path: Path) -> Found:
    """Connect to the socket at `path` and say whether a daemon is there."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(CONNECT_TIMEOUT)
        try:
            client.connect(str(path))
        except PermissionError:
            return Found(path, "denied")
        except (TimeoutError, BlockingIOError):
            # Its queue is full: it lives, however busy it is.
            return Found(path, "live")
        except OSError:
            return Found(path, "stale")
        return Found(path, "live", peer_pid(client))


def peer_pid(connection: socket.socket) -> int:
    """Return the pid of the process at the other end; 0 where it is in another pid namespace."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], "little")
