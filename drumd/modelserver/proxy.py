"""The proxy to the backend beside a model: what is passed on, and what its failures mean.

Nothing here is of one server or does I/O. The backend is the only host there is: a client chooses
the path and the query that it is asked for, which go on byte for byte, and nothing else.
"""

import errno
import logging
from collections.abc import Iterable
from http import HTTPStatus

import httpx

from drumd.config.modelserver.settings import Backend, ModelSettings
from drumd.modelserver import jsonbytes
from drumd.modelserver.calls import JSON, REQUEST_ID
from drumd.modelserver.routes import PROXIED

log = logging.getLogger("drumd.model")

MOUNTS = tuple(f"/{each}" for each in PROXIED)
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

CONNECT_TIMEOUT = 5.0
"""Seconds that the backend may take to accept a connection."""
POOL_TIMEOUT = 1.0
"""Seconds that a request waits for one of the connections to become free."""
IDLE = 1.0
"""Seconds that a connection is kept for the next request. Any usual server keeps one for longer
(Gunicorn 2, Uvicorn 5); a request on one that the backend is just closing would be lost."""
RETRY_AFTER = "1"
"""Seconds, as the header has them."""

Headers = list[tuple[bytes, bytes]]

# RFC 9110, section 7.6.1, with the two that RFC 9112 and custom add, and what asks a proxy itself.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
# Host is the backend's own name. Expect is answered by this server, when it reads the body.
_NOT_TO_BACKEND = _HOP_BY_HOP | {b"host", b"expect", b"via", b"content-length", REQUEST_ID.encode()}
# This server says both itself.
_NOT_TO_CLIENT = _HOP_BY_HOP | {b"date", b"server"}

_PLAIN = bytes(range(0x21, 0x7F))


class ClientGone(Exception):  # noqa: N818 - nobody's error
    """the client is gone."""


class BrokenAnswer(ConnectionResetError):  # noqa: N818 - as ClientGone
    """cannot go on with an answer of which a part was sent.

    A connection that is reset is what servers end without a word, and without a clean end.
    """


class Refusal(Exception):  # noqa: N818 - an answer
    """cannot pass a request on, or its answer back; the message is for the client."""

    def __init__(self, status: int, message: str, *, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = jsonbytes.dumps({"message": f"ERROR: {message}"})
        self.headers: Headers = [
            (b"content-type", JSON.encode()),
            (b"content-length", str(len(self.body)).encode()),
        ]
        if retry_after is not None:
            self.headers.append((b"retry-after", retry_after.encode()))


class Route:
    """One mount of the proxy: from what a client asks, to what the backend is asked."""

    def __init__(self, settings: ModelSettings, mount: str) -> None:
        self._mount = f"{settings.url_prefix}{mount}".encode()
        self._max_body = settings.max_body
        self._backend = settings.backend
        self._timeout = httpx.Timeout(
            settings.request_timeout,
            connect=min(CONNECT_TIMEOUT, settings.request_timeout),
            pool=POOL_TIMEOUT,
        ).as_dict()

    def request(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: httpx.AsyncByteStream | httpx.SyncByteStream,
        *,
        request_id: str,
        root: str = "",
    ) -> httpx.Request:
        """Return what the backend is asked; `root` is where the server put the app.

        `target` is a request line's: a path, perhaps with a query. Raises `Refusal`.
        """
        if wants_websocket(headers):
            raise no_websockets()
        if self._backend is None:
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "there is no backend to pass this on to; set OPENAI_HOST and OPENAI_PORT to the "
                "host and the port of one",
            )
        target = self._target(target, root.encode())
        framing = self._framing(headers)
        return httpx.Request(
            method,
            httpx.URL(scheme="http", host=self._backend.host, port=self._backend.port),
            headers=[
                (b"host", authority(self._backend).encode()),
                *to_backend(headers),
                (REQUEST_ID.encode(), request_id.encode("latin-1")),
                *framing,
            ],
            stream=body if framing else httpx.ByteStream(b""),
            # As bytes, since httpx would rewrite a URL's path (RFC 3986, section 6.2.2).
            extensions={"target": target, "timeout": self._timeout},
        )

    def _framing(self, headers: Headers) -> Headers:
        """Return the header that says how long the body is, if there is one."""
        said = dict(headers)
        if b"transfer-encoding" in said:
            return [(b"transfer-encoding", b"chunked")]
        length = said.get(b"content-length")
        if length is None:
            return []
        if not length.isdigit():
            raise Refusal(
                HTTPStatus.BAD_REQUEST, f"cannot take Content-Length {length!r}: it is no number"
            )
        if int(length) > self._max_body:
            raise too_large(self._max_body)
        return [(b"content-length", length)]

    def _target(self, target: bytes, root: bytes) -> bytes:
        target = target.partition(b"#")[0]
        if not target.startswith(b"/"):  # absolute-form: RFC 9112, section 3.2.2
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        path, _, query = target.partition(b"?")
        mount = root + self._mount
        rest = path.removeprefix(mount)
        if rest == path or not (not rest or rest.startswith(b"/")):
            # Such as /direct%41ccess/, which a router takes for the same.
            raise Refusal(
                HTTPStatus.NOT_FOUND, f"there is nothing here; the backend is at {mount.decode()}/"
            )
        path = _printable(rest or b"/")
        return path + b"?" + _printable(query) if query else path


class BodyLimit:
    """Counts the bytes of a body whose length nobody said before."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen = 0

    def count(self, chunk: bytes) -> None:
        """Take note of one more chunk; raise `Refusal` if there are too many bytes."""
        self._seen += len(chunk)
        if self._seen > self._most:
            raise too_large(self._most)


def too_large(most: int) -> Refusal:
    """Return what is answered to a body of more than `most` bytes."""
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"cannot take the request: its body has more than {most} bytes",
    )


def limits(settings: ModelSettings) -> httpx.Limits:
    """Return how many connections to the backend one worker has.

    As many as the requests that it takes in for the model: computed, and waiting for that.
    """
    most = settings.threads + settings.queue
    return httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=IDLE)


def to_backend(headers: Headers) -> Headers:
    """Return a request's headers as they go on, with this server in `Via` (RFC 9110, 7.6.3)."""
    via = b", ".join([value for name, value in headers if name == b"via"] + [b"1.1 drumd"])
    return [*_without(headers, _NOT_TO_BACKEND), (b"via", via)]


def to_client(answer: httpx.Response, backend: Backend) -> Headers:
    """Return an answer's headers as they go back; raise `Refusal` if its status is none."""
    status = answer.status_code
    # 101 comes unasked: an upgrade is never passed on.
    if not HTTPStatus.OK <= status < 600:  # noqa: PLR2004 - RFC 9110, section 15
        raise Refusal(
            HTTPStatus.BAD_GATEWAY,
            f"cannot use what the backend at {authority(backend)} answered: its status {status}",
        )
    drop = _NOT_TO_CLIENT
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        drop |= {b"content-length"}  # there is no body that could have it
    headers = [(name.lower(), value) for name, value in answer.headers.raw]
    return list(_without(headers, drop))


def refusal(error: httpx.TransportError, settings: ModelSettings) -> Refusal:
    """Log that the backend did not answer; return what the client is told."""
    where = _where(settings)
    log.warning("cannot get an answer from %s: %s: %s", where, type(error).__name__, error)
    match error:
        case httpx.PoolTimeout():
            return Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"cannot ask {where}: all {limits(settings).max_connections} connections to it are "
                "in use; try again later",
                retry_after=RETRY_AFTER,
            )
        case httpx.ConnectTimeout():
            return Refusal(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"cannot connect to {where}: it took too long; check OPENAI_HOST and OPENAI_PORT, "
                "and whether it accepts connections",
            )
        case httpx.TimeoutException():
            return Refusal(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"cannot wait longer for {where}: it was silent for {settings.request_timeout:g} s;"
                " check what keeps it, or raise DRUM_CLIENT_REQUEST_TIMEOUT",
            )
        case httpx.ConnectError():
            return Refusal(
                HTTPStatus.BAD_GATEWAY,
                f"cannot connect to {where}; check that it runs, and OPENAI_HOST and OPENAI_PORT",
            )
        case httpx.LocalProtocolError():
            return Refusal(
                HTTPStatus.BAD_REQUEST,
                "cannot pass the request on: its headers or its length are not valid HTTP/1.1",
            )
    return Refusal(
        HTTPStatus.BAD_GATEWAY,
        f"cannot use what {where} answered: it is no complete HTTP/1.1 answer; check that "
        "OPENAI_PORT is that of an HTTP server, and look into its log",
    )


def broken(error: httpx.TransportError, settings: ModelSettings) -> BrokenAnswer:
    """Log that the backend's answer ended before its time; return what ends the connection."""
    text = f"cannot complete the answer of {_where(settings)}: {type(error).__name__}: {error}"
    log.warning("%s", text)
    return BrokenAnswer(errno.ECONNRESET, text)


def unread() -> Refusal:
    """Return what is answered to a request whose body does not come; mostly nobody is there."""
    return Refusal(HTTPStatus.BAD_REQUEST, "cannot read the request's body to its end")


def no_websockets() -> Refusal:
    """Return what is answered to an upgrade to a websocket."""
    return Refusal(
        HTTPStatus.NOT_IMPLEMENTED, "cannot pass a websocket on to the backend; use plain HTTP"
    )


def wants_websocket(headers: Headers) -> bool:
    """Return whether a request asks for an upgrade to a websocket; other upgrades are ignored."""
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in headers)


def authority(backend: Backend) -> str:
    """Return `host:port`, as in a URL."""
    host = f"[{backend.host}]" if ":" in backend.host else backend.host
    return f"{host}:{backend.port}"


def _where(settings: ModelSettings) -> str:
    assert settings.backend is not None  # noqa: S101 - for the type checker: it was asked
    return f"the backend at {authority(settings.backend)}"


def _without(headers: Headers, drop: frozenset[bytes]) -> Iterable[tuple[bytes, bytes]]:
    """Return all but those in `drop` and those that `Connection` names; names in lower case."""
    named = {
        option.strip().lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }
    return ((name, value) for name, value in headers if name not in drop and name not in named)


def _printable(part: bytes) -> bytes:
    """Return `part` with what must not be in a request line percent-encoded."""
    return b"".join(bytes((c,)) if c in _PLAIN else b"%%%02X" % c for c in part)
