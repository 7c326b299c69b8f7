"""What ASGI has to say of a request, and what is done around each of them."""

import asyncio
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drumd.modelserver.errors import RequestError
from drumd.modelserver.serving.bodies import Body
from drumd.modelserver.serving.body_room import Place
from drumd.modelserver.serving.calls import EXCHANGE, REQUEST_ID, Answer, Exchange
from drumd.modelserver.serving.hook_pool import HookPool
from drumd.modelserver.serving.service import Service

RawHeaders = Iterable[tuple[bytes, bytes]]
_ID_HEADER = REQUEST_ID.encode()
_LOOK_AGAIN = 1.0
"""Seconds until a client is looked after again of which something else was said than its end."""


def header_values(raw: RawHeaders) -> Mapping[str, str]:
    """Return the request's headers by name in lower case."""
    headers: dict[str, str] = {}
    for key, value in raw:
        if b"_" in key:
            continue  # WSGI cannot tell it from a hyphen, so its servers drop it
        name, text = key.decode("latin-1"), value.decode("latin-1")
        headers[name] = f"{headers[name]},{text}" if name in headers else text
    return headers


async def read(receive: Receive, headers: Mapping[str, str], limit: int, place: Place) -> bytes:
    """Return the body; raise `RequestError` when it is too large, or ends too early."""
    body = Body(headers.get("content-length"), limit, place)
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError("cannot read the body: the client went away", HTTPStatus.BAD_REQUEST)
        body.add(message.get("body", b""))
        more = message.get("more_body", False)
    return body.whole()


async def gone(receive: Receive) -> None:
    """Return once the client has gone away; only after the body was read.

    An extension's middleware that has read the body may hand it on again and again, at once, or
    raise when it is asked for more: then there is nothing to be learned.
    """
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            await asyncio.sleep(_LOOK_AGAIN)
    except Exception:  # noqa: BLE001 - whatever a middleware raises
        await asyncio.get_running_loop().create_future()


class StreamedAnswer(Response):
    """An answer that comes event by event, each made in a thread of the pool.

    A client that goes away ends the source, once the event being made is there.
    """

    def __init__(self, answer: Answer, pool: HookPool) -> None:
        self._events: Any = answer.body
        self._pool = pool
        self.status_code = answer.status
        self.background = None
        self.init_headers({**answer.headers, "content-type": answer.content_type})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send it all, or until the client is gone."""
        away = asyncio.ensure_future(gone(receive))
        ended = False
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            while not ended:
                step = asyncio.ensure_future(
                    self._pool.run(next, self._events, None, admitted=True)
                )
                try:
                    await asyncio.wait({step, away}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not step.done():
                        step.cancel()
                if away.done():
                    return
                piece = await step
                ended = piece is None
                await send(
                    {"type": "http.response.body", "body": piece or b"", "more_body": not ended}
                )
        finally:
            away.cancel()
            if not ended:
                self._pool.detach(self._events.close)


class Exchanges:
    """Around everything: gives each request its id, counts it, and echoes the id in the answer.

    What an extension's layers raise is answered here, since Starlette's own answer to it would be
    made further out, without the id.
    """

    def __init__(self, app: ASGIApp, service: Service, owner: Starlette) -> None:
        self._app = app
        self._service = service
        self._owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = [value for key, value in scope["headers"] if key == _ID_HEADER]
        exchange = self._service.began(
            scope["method"], scope["path"], b",".join(given).decode("latin-1")
        )
        scope[EXCHANGE] = exchange
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR
        started = False

        async def sending(message: Message) -> None:
            nonlocal status, started
            if exchange.broken is not None:
                # Starlette's BaseHTTPMiddleware completes an answer whose app has raised.
                raise exchange.broken
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                headers = message.get("headers", ())
                if not any(key.lower() == _ID_HEADER for key, _ in headers):
                    echo = (_ID_HEADER, exchange.request_id.encode("latin-1"))
                    message = {**message, "headers": [*headers, echo]}
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            handlers = self._owner.exception_handlers
            if started or Exception in handlers or HTTPStatus.INTERNAL_SERVER_ERROR in handlers:
                raise
            answer = self._service.failure(error, exchange.request_id)
            await response(answer)(scope, receive, sending)
        finally:
            self._service.ended(exchange, status)


def exchange_of(scope: Scope) -> Exchange:
    """Return what `Exchanges` noted of a request."""
    exchange: Exchange = scope[EXCHANGE]
    return exchange


def response(answer: Answer) -> Response:
    """Return an answer whose body is there."""
    assert isinstance(answer.body, bytes)  # noqa: S101 - only events come piece by piece
    return Response(
        answer.body,
        status_code=answer.status,
        headers={**answer.headers, "content-type": answer.content_type},
    )
