"""The daemon as `drumctl` reaches it: requests over its admin socket, with no library.

HTTP/1.0 is asked for, so an answer ends where the connection does and needs no decoding.
"""

import contextlib
import grp
import json
import os
import pwd
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from drumd.exitcodes import ControlExit
from drumd.supervisor.admin.paths import SOCKET_VARIABLE, discover, peer_pid, places

HOW_TO_START = (
    "start one with `drumd serve MODULE:APP`, or name its socket with --socket PATH; "
    "if it is a service: `systemctl status drumd`"
)
_TIMEOUT = 10.0
"""Seconds for an answer that the daemon gives at once."""
_TRIES = 3
"""Requests, until one is answered at all."""
_OK = range(200, 300)
_USAGE_STATUSES = frozenset({400, 404, 405})
_INTERNAL = 500
_MARKS = {"status": "pools", "pools": "reading", "operations": "reading"}
"""By the first part of a path: a key that drumd's document there has, and others' hardly have."""


class ControlError(Exception):
    """cannot do what was asked for. Carries the exit code."""

    def __init__(self, text: str, code: ControlExit, known: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.code = code
        self.known = known
        """The names that there are, when one was wrong."""


class UnansweredError(ControlError):
    """cannot have an answer: the connection ended before the first byte of one."""


class Client:
    """Talks to the daemon whose admin socket is at `path`.

    `named_by`: the environment variable that the path is from, if it is from one.
    """

    def __init__(self, path: Path, named_by: str = "") -> None:
        self.path = path
        self._source = f" (from {named_by})" if named_by else ""

    def get(self, path: str, *, patience: float = 0.0, **query: Any) -> Any:
        """Return the document at `path`. `patience`: seconds that the daemon may take longer."""
        return self._document(path, self.text(path, patience=patience, **query))

    def text(self, path: str, *, patience: float = 0.0, **query: Any) -> bytes:
        """Return what is at `path`, as it is."""
        answer = self._request("GET", path, query=query, timeout=_TIMEOUT + patience)
        with answer:
            return self._body(answer)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask for a change; return the document that answers."""
        return self._change("POST", path, body)

    def delete(self, path: str) -> Any:
        """Take something back; return the document that answers."""
        return self._change("DELETE", path, None)

    def lines(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Ask for a stream now; return its documents as they come, until the daemon ends it."""
        return self._documents(self._request("GET", path, query=query, timeout=None))

    def daemon_pid(self) -> int:
        """Return the pid of the daemon, 0 where it is in another pid namespace."""
        with self._connect(_TIMEOUT) as connection:
            return peer_pid(connection)

    def _change(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        with self._request(method, path, body=body, timeout=_TIMEOUT) as answer:
            return self._document(path, self._body(answer))

    def _document(self, path: str, body: bytes) -> Any:
        """Read the document that `path` answers with; raise if drumd would not answer so."""
        try:
            document = json.loads(body)
        except ValueError as error:
            raise _foreign(self.path) from error
        needed = _MARKS.get(path.split("/")[1])
        if not isinstance(document, dict) or (needed and needed not in document):
            raise _foreign(self.path)
        return document

    def _documents(self, answer: BinaryIO) -> Iterator[dict[str, Any]]:
        # A daemon that dies while it writes ends the stream in the middle of a line.
        with answer, contextlib.suppress(ConnectionError):
            for line in answer:
                if line.endswith(b"\n"):
                    yield self._document("/events", line)

    def _request(
        self,
        method: str,
        path: str,
        *,
        timeout: float | None,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> BinaryIO:
        """Send a request; return its answer's body, or raise what the answer says.

        A daemon that is just replacing its own program closes connections that it has not read
        from yet; whoever only asks may ask again.
        """
        failures: list[ControlError] = []
        for _ in range(_TRIES if method == "GET" else 1):
            try:
                return self._ask(method, path, timeout=timeout, query=query, body=body)
            except ControlError as error:
                failures.append(error)
                if not isinstance(error, UnansweredError):
                    break
        raise failures[0]

    def _ask(
        self,
        method: str,
        path: str,
        *,
        timeout: float | None,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> BinaryIO:
        target = quote(path) + (f"?{urlencode(query)}" if query else "")
        head = f"{method} {target} HTTP/1.0\r\nHost: drumd\r\n"
        content = b"" if body is None else json.dumps(body).encode()
        if content:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        connection = self._connect(timeout)
        try:
            connection.sendall(f"{head}\r\n".encode() + content)
            answer = connection.makefile("rb")
            status = self._status(answer)
        except ConnectionError as error:
            raise self._lost(error.strerror or str(error), UnansweredError) from error
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        finally:
            # The file that was made from it keeps the connection open.
            connection.close()
        if status not in _OK:
            with answer:
                raise self._refusal(status, self._body(answer))
        return answer

    def _refusal(self, status: int, body: bytes) -> ControlError:
        try:
            document = json.loads(body)
            text, known = str(document["error"]), tuple(map(str, document["known"]))
        except (ValueError, KeyError, TypeError):
            if status < _INTERNAL:
                return _foreign(self.path)  # drumd's refusals all have both
            text, known = f"cannot have an answer: HTTP status {status}", ()
        if status in _USAGE_STATUSES:
            return ControlError(text, ControlExit.USAGE, known)
        return ControlError(
            text, ControlExit.UNKNOWN if status >= _INTERNAL else ControlExit.DEGRADED, known
        )

    def _connect(self, timeout: float | None) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout)
        try:
            connection.connect(str(self.path))
        except PermissionError as error:
            connection.close()
            raise denied(self.path) from error
        except OSError as error:
            connection.close()
            raise ControlError(
                f"cannot reach drumd: nothing answers on {self.path}{self._source}: "
                f"{error.strerror or error}; {HOW_TO_START}",
                ControlExit.NOT_RUNNING,
            ) from error
        return connection

    def _status(self, answer: BinaryIO) -> int:
        first = answer.readline()
        if not first:
            raise self._lost("no HTTP answer", UnansweredError)
        version, _, rest = first.partition(b" ")
        status = rest[:3]
        if not (version.startswith(b"HTTP/") and status.isdigit()):
            raise _foreign(self.path)
        while answer.readline().strip():
            pass  # no header matters
        return int(status)

    def _body(self, answer: BinaryIO) -> bytes:
        try:
            return answer.read()
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error

    def _lost(self, why: str, kind: type[ControlError] = ControlError) -> ControlError:
        return kind(
            f"cannot have an answer from the drumd on {self.path}: {why}", ControlExit.UNKNOWN
        )


def find(explicit: str | None, environ: Mapping[str, str]) -> Client:
    """Return a client for the socket that was named, or for the only live daemon there is.

    Raise `ControlError`: no daemon, several, or none that may be talked to.
    """
    if explicit:
        return Client(Path(explicit))
    if named := environ.get(SOCKET_VARIABLE):
        return Client(Path(named), SOCKET_VARIABLE)
    found = discover(environ)
    live = [item for item in found if item.answer == "live"]
    if len(live) > 1:
        choices = "\n".join(f"  --socket {item.path}   (pid {item.pid})" for item in live)
        raise ControlError(
            f"cannot choose between {len(live)} daemons; say which one:\n{choices}",
            ControlExit.USAGE,
        )
    if live:
        return Client(live[0].path)
    if refused := [item for item in found if item.answer == "denied"]:
        raise denied(refused[0].path)
    looked = ", ".join(str(place.directory) for place in places(environ))
    raise ControlError(
        f"cannot reach drumd: no daemon has its socket in {looked}; {HOW_TO_START}",
        ControlExit.NOT_RUNNING,
    )


def denied(path: Path) -> ControlError:
    """Return the error for a socket that this user may not connect to; it says who may."""
    who = ["root", "its owner"]
    with contextlib.suppress(OSError):
        status = path.stat()
        who = ["root"] if status.st_uid == 0 else ["root", f"user {_user(status.st_uid)}"]
        who.append(f"members of group {_group(status.st_gid)}")
    listed = f"{', '.join(who[:-1])} and {who[-1]}"
    return ControlError(
        f"cannot talk to the drumd on {path}: permission denied for {_user(os.geteuid())}; "
        f"{listed} may use it",
        ControlExit.UNKNOWN,
    )


def _foreign(path: Path) -> ControlError:
    return ControlError(
        f"cannot understand what answers on {path}: it is not drumd's admin socket; drumd names "
        "its own in its log and in the first line of `drumctl status`",
        ControlExit.UNKNOWN,
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
