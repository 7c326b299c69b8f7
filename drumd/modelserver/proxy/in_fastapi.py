"""The proxy in the FastAPI app: one `httpx.AsyncClient` a worker, in the worker's own loop."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import Route, WebSocketRoute

from drumd.config.modelserver.settings import Backend, ModelSettings
from drumd.modelserver.proxy import forwarding
from drumd.modelserver.proxy.refusals import ClientGone, Refusal, no_websockets
from drumd.modelserver.serving.asgi import exchange_of, gone
from drumd.modelserver.serving.calls import Exchange
from drumd.modelserver.tracing import telemetry

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def mount(app: FastAPI, settings: ModelSettings, backend: Backend) -> None:
    """Add the proxy's routes to `app`, and the end of its client to the app's lifespan."""
    register_url_convertor("rest", _Rest())
    client = _Client(settings)
    for each in forwarding.MOUNTS:
        route = forwarding.Route(settings, backend, each)
        endpoint = _Endpoint(route, client, settings.max_body)
        for path in (f"{settings.url_prefix}{each}", f"{settings.url_prefix}{each}/{{path:rest}}"):
            app.router.routes.append(
                Route(path, endpoint, methods=list(forwarding.METHODS), include_in_schema=False)
            )
            app.router.routes.append(WebSocketRoute(path, endpoint))
    around = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with around(app) as state:
            try:
                yield state
            finally:
                await client.close()

    app.router.lifespan_context = lifespan


class _Rest(Convertor[str]):
    """All that is left of a path; Starlette's own `path` ends at a line end."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _Client:
    """The worker's client, made when it is first needed: in its loop, after any fork."""

    def __init__(self, settings: ModelSettings) -> None:
        self._limits = forwarding.limits(settings)
        self._client: httpx.AsyncClient | None = None

    def get(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                limits=self._limits,
                trust_env=False,
                follow_redirects=False,
                # The backend's cookies are the clients', each one's own.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                # There is no TLS to the backend; the default would read all root certificates.
                verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            )
            telemetry.instrument_client(self._client)
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class _Endpoint:
    """An ASGI app for the requests below one mount."""

    def __init__(self, route: forwarding.Route, client: _Client, max_body: int) -> None:
        self._route = route
        self._client = client
        self._max_body = max_body

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await _refuse_websocket(scope, receive, send)
            return
        body = _Body(receive, self._max_body)
        answer = _Answer(send)
        relay = asyncio.ensure_future(self._relay(scope, body, answer))
        away = asyncio.ensure_future(body.client_gone())
        try:
            await asyncio.wait({relay, away}, return_when=asyncio.FIRST_COMPLETED)
            if answer.complete:  # a server calls its client gone then
                await relay
        finally:
            # Closes the connection to the backend, which learns by that that nobody listens.
            relay.cancel()
            away.cancel()
            await asyncio.wait({relay, away})
        with contextlib.suppress(asyncio.CancelledError, ClientGone):
            relay.result()

    async def _relay(self, scope: Message, body: "_Body", answer: "_Answer") -> None:
        try:
            response = await self._ask(scope, body)
            try:
                await answer.relay(response, self._route, exchange_of(scope))
            finally:
                await response.aclose()
        except Refusal as refusal:
            await answer.refuse(refusal)

    async def _ask(self, scope: Message, body: "_Body") -> httpx.Response:
        query = scope["query_string"]
        request = self._route.request(
            scope["method"],
            scope["raw_path"] + (b"?" + query if query else b""),
            scope["headers"],
            body,
            request_id=exchange_of(scope).request_id,
            root=scope.get("root_path", ""),
        )
        if request.stream is not body:
            body.is_nothing()
        client = self._client.get()
        try:
            try:
                return await client.send(request, stream=True)
            except forwarding.BROKEN:
                if not forwarding.may_repeat(request):
                    raise
                return await client.send(request, stream=True)
        except httpx.TransportError as error:
            raise self._route.refusal(error, request) from error


class _Body(httpx.AsyncByteStream):
    """A request's body, as it comes; after it, the end of the client's connection."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._limit = forwarding.BodyLimit(most)
        self._ended = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            self._limit.count(chunk)
            if chunk:
                yield chunk
            more = message.get("more_body", False)
        self._ended.set()

    def is_nothing(self) -> None:
        """Let nobody but `client_gone` read."""
        self._ended.set()

    async def client_gone(self) -> None:
        """Return once the client is gone; not before all of the body has been read."""
        await self._ended.wait()
        await gone(self._receive)


class _Answer:
    """What the client is sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.complete = False
        """Whether all that there is was handed to the server, or is just being handed."""

    async def relay(
        self, response: httpx.Response, route: forwarding.Route, exchange: Exchange
    ) -> None:
        """Send the backend's answer as it comes. Raises `Refusal`, `BrokenAnswer`."""
        await self._start(response.status_code, route.headers(response))
        try:
            async for chunk in response.aiter_raw():
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx.TransportError as error:
            exchange.broken = route.broken(error, response.request)
            raise exchange.broken from None
        await self._end(b"")

    async def refuse(self, refusal: Refusal) -> None:
        """Send why there is no answer of the backend."""
        await self._start(refusal.status, refusal.headers)
        await self._end(refusal.body)

    async def _start(self, status: int, headers: forwarding.Headers) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _end(self, body: bytes) -> None:
        self.complete = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


async def _refuse_websocket(scope: Message, receive: Receive, send: Send) -> None:
    """Answer the handshake; without the extension for that, a server answers 403 by itself."""
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})
        return
    refusal = no_websockets()
    kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": refusal.headers})
    await send({"type": f"{kind}.body", "body": refusal.body})
