"""What goes wrong between a client, the proxy and its backend, and what the client is told."""

from http import HTTPStatus
from typing import NamedTuple

import httpx

from drumd.modelserver import jsonbytes
from drumd.modelserver.serving.calls import JSON

RETRY_AFTER = "1"
"""Seconds, as the header has them."""


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
        self.headers: list[tuple[bytes, bytes]] = [
            (b"content-type", JSON.encode()),
            (b"content-length", str(len(self.body)).encode()),
        ]
        if retry_after is not None:
            self.headers.append((b"retry-after", retry_after.encode()))


class Failure(NamedTuple):
    """A kind of failure: its status, and its message to be filled in."""

    error: type[httpx.TransportError]
    status: int
    text: str


_FAILURES = (
    Failure(
        httpx.PoolTimeout,
        HTTPStatus.SERVICE_UNAVAILABLE,
        "cannot ask {where}: all {connections} connections to it are in use; try again later",
    ),
    Failure(
        httpx.ConnectTimeout,
        HTTPStatus.GATEWAY_TIMEOUT,
        "cannot connect to {where}: it took too long; check OPENAI_HOST and OPENAI_PORT, and "
        "whether it accepts connections",
    ),
    Failure(
        httpx.TimeoutException,
        HTTPStatus.GATEWAY_TIMEOUT,
        "cannot wait longer for {where}: it was silent for {silence:g} s; check what keeps it, or "
        "raise DRUM_CLIENT_REQUEST_TIMEOUT",
    ),
    Failure(
        httpx.ConnectError,
        HTTPStatus.BAD_GATEWAY,
        "cannot connect to {where}; check that it runs, and OPENAI_HOST and OPENAI_PORT",
    ),
    Failure(
        httpx.LocalProtocolError,
        HTTPStatus.BAD_REQUEST,
        "cannot pass the request on: its headers or its length are not valid HTTP/1.1",
    ),
    Failure(
        httpx.TransportError,
        HTTPStatus.BAD_GATEWAY,
        "cannot use what {where} answered: it is no complete HTTP/1.1 answer; check that "
        "OPENAI_PORT is that of an HTTP server, and look into its log",
    ),
)
"""What a failure means; the first that fits."""


def failure_of(error: httpx.TransportError) -> Failure:
    """Return what a failure means."""
    return next(each for each in _FAILURES if isinstance(error, each.error))


def too_large(most: int) -> Refusal:
    """Return what is answered to a body of more than `most` bytes."""
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"cannot take the request: its body has more than {most} bytes (DRUM_MAX_REQUEST_SIZE)",
    )


def unread() -> Refusal:
    """Return what is answered to a request whose body does not come; mostly nobody is there."""
    return Refusal(HTTPStatus.BAD_REQUEST, "cannot read the request's body to its end")


def no_websockets() -> Refusal:
    """Return what is answered to an upgrade to a websocket."""
    return Refusal(
        HTTPStatus.NOT_IMPLEMENTED, "cannot pass a websocket on to the backend; use plain HTTP"
    )
