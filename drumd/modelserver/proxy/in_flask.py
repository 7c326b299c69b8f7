"""The proxy in the Flask app: one `httpx.Client` a worker, for all of its threads."""

import errno
import os
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast
from urllib.parse import quote_from_bytes

import httpx
from flask import Flask, Response, request
from werkzeug.routing import BaseConverter
from werkzeug.wsgi import get_input_stream

from drumd.config.modelserver.settings import Backend, ModelSettings
from drumd.modelserver.proxy import forwarding
from drumd.modelserver.proxy.refusals import BrokenAnswer, ClientGone, Refusal, unread
from drumd.modelserver.proxy.transport import WatchingTransport, watching
from drumd.modelserver.serving.calls import EXCHANGE
from drumd.modelserver.tracing import telemetry

PIECE = 16 * 1024
"""Bytes of a request's body that are passed on at once; WSGI servers wait for all of them."""


def mount(app: Flask, settings: ModelSettings, backend: Backend) -> None:
    """Add the proxy's routes to `app`."""
    app.url_map.converters["rest"] = _Rest
    client = _Client(settings)
    for each in forwarding.MOUNTS:
        view = _View(forwarding.Route(settings, backend, each), client, settings.max_body)
        for path in (f"{settings.url_prefix}{each}", f"{settings.url_prefix}{each}/<rest:path>"):
            for websocket in (False, True):  # Werkzeug asks for rules of their own
                app.add_url_rule(
                    path,
                    endpoint=f"proxy{each}",
                    view_func=view,
                    methods=["GET"] if websocket else list(forwarding.METHODS),
                    provide_automatic_options=False,
                    websocket=websocket,
                )


class _Rest(BaseConverter):
    """All that is left of a path; Werkzeug's own `path` does not begin with a slash."""

    part_isolating = False
    regex = r"[\s\S]*"


class _Client:
    """The worker's client, made when it is first needed: after any fork."""

    def __init__(self, settings: ModelSettings) -> None:
        self._limits = forwarding.limits(settings)
        self._guard = threading.Lock()
        self._client: httpx.Client | None = None
        self._pid = 0

    def get(self) -> httpx.Client:
        with self._guard:
            if self._client is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._client = httpx.Client(
                    transport=WatchingTransport(
                        limits=self._limits,
                        trust_env=False,
                        # There is no TLS to the backend; the default would read all certificates.
                        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                    ),
                    trust_env=False,
                    follow_redirects=False,
                    # The backend's cookies are the clients', each one's own.
                    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                )
                telemetry.instrument_client(self._client)
            return self._client


class _View:
    """The view of the requests below one mount."""

    def __init__(self, route: forwarding.Route, client: _Client, max_body: int) -> None:
        self._route = route
        self._client = client
        self._max_body = max_body

    def __call__(self, **_parts: str) -> Response:
        environ = request.environ
        try:
            return self._relay(
                environ, environ.get("gunicorn.socket", environ.get("werkzeug.socket"))
            )
        except Refusal as refusal:
            body = [] if request.method == "HEAD" else [refusal.body]
            return _answer(refusal.status, refusal.headers, body)

    def _relay(self, environ: dict[str, Any], sock: Any) -> Response:
        headers = _headers(environ)
        asked = self._route.request(
            environ["REQUEST_METHOD"],
            _target(environ),
            headers,
            _Body(environ, self._max_body),
            request_id=environ[EXCHANGE].request_id,
            root=environ.get("SCRIPT_NAME", ""),
        )
        with watching(sock):
            response = self._send(asked)
        try:
            headers = self._route.headers(response)
        except Refusal:
            response.close()
            raise
        return _answer(response.status_code, headers, _Relayed(response, sock, self._route))

    def _send(self, asked: httpx.Request) -> httpx.Response:
        client = self._client.get()
        try:
            try:
                return client.send(asked, stream=True)
            except forwarding.BROKEN:
                if not forwarding.may_repeat(asked):
                    raise
                return client.send(asked, stream=True)
        except httpx.TransportError as error:
            raise self._route.refusal(error, asked) from error
        except ClientGone:
            raise unread() from None


class _Body(httpx.SyncByteStream):
    """A request's body, in pieces."""

    def __init__(self, environ: dict[str, Any], most: int) -> None:
        self._environ = environ
        self._limit = forwarding.BodyLimit(most)

    def __iter__(self) -> Iterator[bytes]:
        stream = get_input_stream(self._environ)
        left = self._length()
        try:
            while chunk := stream.read(PIECE):
                self._limit.count(chunk)
                left -= len(chunk)
                yield chunk
        except Refusal:
            raise
        except Exception as error:  # each server has exceptions of its own for that
            raise ClientGone from error
        if left > 0:  # and Gunicorn has none
            raise ClientGone

    def _length(self) -> int:
        """Return how many bytes there must be; 0 where that is not said."""
        length: str = self._environ.get("CONTENT_LENGTH", "")
        return int(length) if length and "HTTP_TRANSFER_ENCODING" not in self._environ else 0


class _Relayed:
    """The backend's answer, as it comes."""

    def __init__(self, response: httpx.Response, sock: Any, route: forwarding.Route) -> None:
        self._response = response
        self._socket = sock
        self._route = route

    def __iter__(self) -> Iterator[bytes]:
        yield b""  # the status and the headers, which WSGI servers send with the first piece
        chunks = self._response.iter_raw()
        while True:
            try:
                with watching(self._socket):
                    chunk = next(chunks, None)
            except httpx.TransportError as error:
                raise self._route.broken(error, self._response.request) from None
            except ClientGone:
                raise BrokenAnswer(errno.ECONNRESET, "the client is gone") from None
            if chunk is None:
                return
            yield chunk

    def close(self) -> None:
        """End the request to the backend, at whatever point it is; the server calls this."""
        self._response.close()


class _Raw(Response):
    """An answer to which Werkzeug adds nothing and from which it takes nothing."""

    def __call__(
        self, _environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        start_response(self.status, self.headers.to_wsgi_list())
        return cast("Iterable[bytes]", self.response)


def _answer(status: int, headers: forwarding.Headers, body: Iterable[bytes]) -> Response:
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    answer = _Raw(body, status, pairs, direct_passthrough=True)
    if not any(name == "content-type" for name, _ in pairs):
        del answer.headers["content-type"]  # Flask's default
    return answer


def _headers(environ: dict[str, Any]) -> forwarding.Headers:
    """Return a request's headers; WSGI has joined those that were repeated."""
    headers = []
    for key, value in environ.items():
        name = key.removeprefix("HTTP_")
        if name != key or key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            headers.append(
                (name.lower().replace("_", "-").encode("latin-1"), value.encode("latin-1"))
            )
    return headers


def _target(environ: dict[str, Any]) -> bytes:
    """Return the target of the request line; PEP 3333 has only a decoded path."""
    raw: str | None = environ.get("RAW_URI", environ.get("REQUEST_URI"))
    if raw is not None:
        return raw.encode("latin-1")
    path = f"{environ.get('SCRIPT_NAME', '')}{environ['PATH_INFO']}".encode("latin-1")
    return f"{quote_from_bytes(path)}?{environ.get('QUERY_STRING', '')}".encode("latin-1")
