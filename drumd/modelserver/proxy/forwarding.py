"""The proxy to the backend beside a model: what is passed on, and what comes back.

Nothing here is of one server or does I/O. The backend is the only host there is: a client chooses
the path and the query that it is asked for, which go on byte for byte, and nothing else.
"""

import errno
import logging
from collections.abc import Iterable
from http import HTTPStatus

import httpx

from drumd.config.modelserver.settings import Backend, ModelSettings
from drumd.modelserver.proxy.refusals import (
    RETRY_AFTER,
    BrokenAnswer,
    Refusal,
    failure_of,
    no_websockets,
    too_large,
)
from drumd.modelserver.serving.calls import REQUEST_ID
from drumd.modelserver.serving.paths import PROXIED

log = logging.getLogger("drumd.modelserver")

MOUNTS = tuple(f"/{each}" for each in PROXIED)
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_SAFE = ("GET", "HEAD", "OPTIONS")

CONNECT_TIMEOUT = 5.0
"""Seconds that the backend may take to accept a connection."""
POOL_TIMEOUT = 1.0
"""Seconds that a request waits for one of the connections to become free."""
IDLE = 1.0
"""Seconds that a connection is kept for the next request. Any usual server keeps one for longer
(Gunicorn 2, Uvicorn 5); a request on one that the backend is just closing is lost."""
BROKEN = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""Errors after which `may_repeat` is worth a question."""

Headers = list[tuple[bytes, bytes]]

# RFC 9110, section 7.6.1, with those that are custom, and those that proxies ask for themselves.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
# Host is the backend's own name. Expect is answered by this server, when it reads the body.
_NOT_TO_BACKEND = _HOP_BY_HOP | {b"host", b"expect", b"via", b"content-length", REQUEST_ID.encode()}
# This server says both itself.
_NOT_TO_CLIENT = _HOP_BY_HOP | {b"date", b"server"}

_DIGITS = 18
"""More than those of any body that could be taken."""
_PLAIN = bytes(range(0x21, 0x7F))


class Route:
    """One mount of the proxy: from what a client asks, to what the backend is asked."""

    def __init__(self, settings: ModelSettings, backend: Backend, mount: str) -> None:
        self._mount = f"{settings.url_prefix}{mount}".encode()
        self._settings = settings
        self._host = authority(backend)
        self._where = f"the backend at {self._host}"
        self._url = httpx.URL(scheme="http", host=backend.host, port=backend.port)
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
        target = self._target(target, root.encode())
        framing = self._framing(headers)
        return httpx.Request(
            method,
            self._url,
            headers=[
                (b"host", self._host.encode()),
                *to_backend(headers),
                (REQUEST_ID.encode(), request_id.encode("latin-1")),
                *framing,
            ],
            stream=body if framing else httpx.ByteStream(b""),
            # As bytes, since httpx would rewrite a URL's path (RFC 3986, section 6.2.2).
            extensions={"target": target, "timeout": self._timeout},
        )

    def headers(self, answer: httpx.Response) -> Headers:
        """Return an answer's headers as they go back; raise `Refusal` if its status is none."""
        status = answer.status_code
        # 101 comes unasked: an upgrade is never passed on.
        if not HTTPStatus.OK <= status < 600:  # noqa: PLR2004 - RFC 9110, section 15
            text = f"cannot use what {self._where} answered: its status {status}"
            _warn(answer.request, text)
            raise Refusal(HTTPStatus.BAD_GATEWAY, text)
        drop = _NOT_TO_CLIENT
        if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            drop |= {b"content-length"}  # there is no body that could have it
        headers = [(name.lower(), value) for name, value in answer.headers.raw]
        return list(_without(headers, drop))

    def refusal(self, error: httpx.TransportError, request: httpx.Request) -> Refusal:
        """Log that the backend did not answer; return what the client is told."""
        _warn(request, f"cannot get an answer from {self._where}: {_said(error)}")
        failure = failure_of(error)
        message = failure.text.format(
            where=self._where,
            connections=limits(self._settings).max_connections,
            silence=self._settings.request_timeout,
        )
        full = failure.status == HTTPStatus.SERVICE_UNAVAILABLE
        return Refusal(failure.status, message, retry_after=RETRY_AFTER if full else None)

    def broken(self, error: httpx.TransportError, request: httpx.Request) -> BrokenAnswer:
        """Log that the backend's answer ended before its time; return what ends the connection."""
        text = f"cannot complete the answer of {self._where}: {_said(error)}"
        _warn(request, text)
        return BrokenAnswer(errno.ECONNRESET, text)

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
        # Python refuses to read thousands of digits.
        if len(length) > _DIGITS or int(length) > self._settings.max_body:
            raise too_large(self._settings.max_body)
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


def limits(settings: ModelSettings) -> httpx.Limits:
    """Return how many connections to the backend one worker has.

    As many as the requests that it takes in for the model: computed, and waiting for that.
    """
    most = settings.threads + settings.queue
    return httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=IDLE)


def to_backend(headers: Headers) -> Headers:
    """Return a request's headers as they go on, with this server in `Via` (RFC 9110, 7.6.3)."""
    # Many backends take X_User for X-User, and Content_Length for what it seems to be.
    headers = [(name, value) for name, value in headers if b"_" not in name]
    via = b", ".join([value for name, value in headers if name == b"via"] + [b"1.1 drumd"])
    return [*_without(headers, _NOT_TO_BACKEND), (b"via", via)]


def may_repeat(request: httpx.Request) -> bool:
    """Return whether a request may be made again whose connection broke before an answer.

    Its connection may have been kept, and the backend have closed it meanwhile. Requests that may
    change something are never repeated (RFC 9110, section 9.2.2), nor is a body kept for that.
    """
    return request.method in _SAFE and isinstance(request.stream, httpx.ByteStream)


def wants_websocket(headers: Headers) -> bool:
    """Return whether a request asks for an upgrade to a websocket; other upgrades are ignored."""
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in headers)


def authority(backend: Backend) -> str:
    """Return `host:port`, as in a URL."""
    host = f"[{backend.host}]" if ":" in backend.host else backend.host
    return f"{host}:{backend.port}"


def _warn(request: httpx.Request, text: str) -> None:
    """Log what went wrong, with the id that the client was told."""
    log.warning("request %s: %s", request.headers[REQUEST_ID], text)


def _said(error: httpx.TransportError) -> str:
    return ": ".join(filter(None, (type(error).__name__, str(error))))


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
