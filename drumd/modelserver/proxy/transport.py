"""A transport that notices, while it waits for the backend, that the client is gone.

A WSGI app learns nothing of its client until it sends something. Meanwhile a thread would wait, and
a backend compute, for nobody.
"""

import contextlib
import select
import ssl
import threading
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType
from typing import Any

import httpcore
import httpx

from drumd.modelserver.proxy.refusals import ClientGone

_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
"""The client closed its connection, or its half of it; what it sent before may still be unread."""


class _Watched(threading.local):
    socket: Any = None


_watched = _Watched()


@contextlib.contextmanager
def watching(client: Any) -> Iterator[None]:
    """Have this thread's waits for a backend raise `ClientGone` when `client`, a socket, ends."""
    _watched.socket = client
    try:
        yield
    finally:
        _watched.socket = None


class WatchingTransport(httpx.HTTPTransport):
    """httpx's own transport, on a pool of connections that look at the client."""

    def __init__(self, *, limits: httpx.Limits, verify: ssl.SSLContext, trust_env: bool) -> None:
        super().__init__(verify=verify, trust_env=trust_env)
        # httpx 0.27 and 0.28 cannot be told which backend their pool is to use.
        self._pool = httpcore.ConnectionPool(
            ssl_context=verify,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Backend(),
        )


class _Backend(httpcore.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(super().connect_tcp(host, port, timeout, local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if _watched.socket is not None and _can_watch():
            _wait(self._stream.get_extra_info("socket"), _watched.socket, timeout)
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return self._stream.start_tls(ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _can_watch() -> bool:
    """Return whether `poll` is the system's: gevent's does not know the events asked for here."""
    return isinstance(select.poll, BuiltinFunctionType)


def _wait(backend: Any, client: Any, timeout: float | None) -> None:
    """Wait for the backend to say something, while the client is there."""
    fd = client.fileno()
    if fd < 0:
        raise ClientGone
    poller = select.poll()
    poller.register(backend, select.POLLIN)
    poller.register(fd, _GONE)
    events = poller.poll(None if timeout is None else timeout * 1000)
    if not events:
        raise httpcore.ReadTimeout("timed out")
    if any(each == fd for each, _ in events):
        raise ClientGone
