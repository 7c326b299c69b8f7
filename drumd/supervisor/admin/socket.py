"""The admin socket: claimed without a race, open to the right people, and never taken over alive.

A lock file beside it (`PATH.lock`) says who holds it for as long as that process lives, however
it ends; the socket itself stays behind after a kill -9 and is replaced.
"""

import contextlib
import fcntl
import grp
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drumd.supervisor.admin.paths import (
    SOCKET_VARIABLE,
    PlaceError,
    look_at,
    names,
    places,
    prepare,
)
from drumd.supervisor.fds import Fd

BACKLOG = 128
_MODE = 0o660
_BEFORE_OWNER = 0o600
_MAX_PATH = 107
"""Bytes of sun_path less its final NUL (unix(7))."""


class AdminSocketError(Exception):
    """cannot use that admin socket."""


class SocketTakenError(AdminSocketError):
    """cannot use that admin socket: a live process has it."""


class NoPlaceError(Exception):
    """cannot keep an admin socket anywhere: every default place was refused, the message says why.

    No reason not to serve: the daemon goes on without one.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAdminSocket:
    """The admin socket over a re-exec: it listens, and its lock is held, all the time."""

    path: str
    lock: Fd
    listener: Fd
    device: int
    inode: int


class AdminSocket:
    """A listening Unix socket that is ours until `close`."""

    def __init__(
        self, path: Path, lock: int, listener: socket.socket, identity: tuple[int, int]
    ) -> None:
        self.path = path
        self.listener = listener
        self._lock = lock
        self._identity = identity

    @classmethod
    def claim(cls, path: Path, group: str | None = None) -> "AdminSocket":
        """Listen at `path`, open to the owner and `group` (mode 0660).

        Raise `SocketTakenError` when a live process has it, `AdminSocketError` when it cannot be
        had for another reason. A stale socket is replaced.
        """
        gid = None if group is None else _gid(path, group)
        if len(os.fsencode(path)) > _MAX_PATH:
            raise AdminSocketError(
                f"cannot use admin socket {path}: a path of more than {_MAX_PATH} bytes; "
                "give a shorter one with --admin-socket PATH"
            )
        try:
            lock = _lock(path)
            try:
                listener = _listen(path, gid)
                status = path.lstat()
                return cls(path, lock, listener, (status.st_dev, status.st_ino))
            except BaseException:
                _unlock(path, lock)
                raise
        except OSError as error:
            raise AdminSocketError(
                f"cannot use admin socket {path}: {error.strerror}; "
                "give another one with --admin-socket PATH"
            ) from error

    def keep(self) -> KeptAdminSocket:
        """Return what `resume` needs."""
        device, inode = self._identity
        return KeptAdminSocket(
            path=str(self.path),
            lock=Fd(self._lock),
            listener=Fd(self.listener.fileno()),
            device=device,
            inode=inode,
        )

    @classmethod
    def resume(cls, kept: KeptAdminSocket) -> "AdminSocket":
        """Go on with the socket that was kept over a re-exec; raise OSError."""
        listener = socket.socket(fileno=kept.listener)
        listener.setblocking(False)
        return cls(Path(kept.path), kept.lock, listener, (kept.device, kept.inode))

    def close(self) -> None:
        """Stop listening, and remove the socket file if it is still ours. Again: does nothing."""
        if self._lock < 0:
            return
        self.listener.close()
        with contextlib.suppress(OSError):
            status = self.path.lstat()
            if (status.st_dev, status.st_ino) == self._identity:
                self.path.unlink()
        _unlock(self.path, self._lock)
        self._lock = -1


def claim(
    explicit: str | None, group: str | None = None, environ: Mapping[str, str] | None = None
) -> AdminSocket:
    """Claim the socket that was asked for (`explicit`, or DRUMD_SOCKET), or the first free default.

    An explicit one is had or refused (`AdminSocketError`). By default a second daemon takes the
    next name; raise `NoPlaceError` when no place will do.
    """
    environ = os.environ if environ is None else environ
    asked = explicit or environ.get(SOCKET_VARIABLE)
    if asked:
        return AdminSocket.claim(Path(asked).absolute(), group)
    refusals = []
    for place in places(environ):
        try:
            prepare(place)
            return _first_free(place.directory, group)
        except (PlaceError, AdminSocketError) as error:
            refusals.append(str(error))
    raise NoPlaceError("cannot keep an admin socket anywhere: " + "; ".join(refusals))


def _first_free(directory: Path, group: str | None) -> AdminSocket:
    for name in names():
        with contextlib.suppress(SocketTakenError):
            return AdminSocket.claim(directory / name, group)
    raise SocketTakenError(f"{directory}: every name is taken")


def _lock(path: Path) -> int:
    """Take the lock file of `path`; raise `SocketTakenError` when a process holds it."""
    name = _lock_name(path)
    while True:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have removed it between the two calls: then ours locks nothing.
            if os.path.samestat(os.fstat(fd), name.lstat()):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return fd
        except FileNotFoundError:
            pass
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise _taken(path, f"drumd pid {holder}") from None
        except OSError:
            os.close(fd)
            raise
        os.close(fd)


def _unlock(path: Path, fd: int) -> None:
    with contextlib.suppress(OSError):
        _lock_name(path).unlink()
    os.close(fd)


def _listen(path: Path, gid: int | None) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AdminSocketError(
                f"cannot use admin socket {path}: something that is no socket is there; "
                "remove it, or give another path with --admin-socket PATH"
            )
        found = look_at(path)
        if found.answer != "stale":
            raise _taken(path, f"pid {found.pid}" if found.pid else "a process")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # The file gets the socket's mode less the umask: never wider than this, not for a moment,
        # and without changing the umask, which all threads share.
        os.fchmod(listener.fileno(), _BEFORE_OWNER)
        listener.bind(str(path))
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(_MODE)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _lock_name(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _taken(path: Path, holder: str) -> SocketTakenError:
    return SocketTakenError(
        f"cannot use admin socket {path}: {holder} answers there; stop it, or give this drumd a "
        "socket of its own with --admin-socket PATH"
    )


def _gid(path: Path, group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise AdminSocketError(
            f"cannot use admin socket {path}: there is no group {group!r}; "
            "set admin_group to one that `getent group` lists"
        ) from None
