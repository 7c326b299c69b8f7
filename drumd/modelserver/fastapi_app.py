"""The model server as a FastAPI app: it only translates, the answers are the service's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Match
from starlette.types import Scope

import drumd
from drumd.config.modelserver.reading import read_settings
from drumd.modelserver import jsonbytes
from drumd.modelserver.inference.model import Model
from drumd.modelserver.serving import asgi, stuck
from drumd.modelserver.serving.body_room import Place
from drumd.modelserver.serving.calls import Answer, Call, error_answer
from drumd.modelserver.serving.extension import extend
from drumd.modelserver.serving.hook_pool import HookPool, PoolFullError
from drumd.modelserver.serving.openapi import operation
from drumd.modelserver.serving.routes import ROUTES, Route, names_below
from drumd.modelserver.serving.service import Service
from drumd.modelserver.tracing import telemetry

EXTENSION = "custom_fastapi.py"


def make_app() -> FastAPI:
    """Load the model that the environment names, and return the app that serves it."""
    return app_of(Model.load(read_settings()))


def app_of(model: Model) -> FastAPI:
    """Return the app that serves a model; raise `LoadError` when its extension cannot be used."""
    settings = model.settings
    service = Service(model, names_below(settings.url_prefix))
    pool = HookPool(
        settings.threads,
        settings.queue,
        patience=settings.request_timeout,
        stuck=partial(stuck.leave, settings),
    )

    app = FastAPI(
        title="Model",
        version=drumd.__version__,
        # Their pages fetch scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{settings.url_prefix}/openapi.json",
        redirect_slashes=False,
        exception_handlers={HTTPException: _refusals(service)},
    )
    for route in ROUTES:
        _add(app, route, _endpoint(service, pool, route), settings.url_prefix)
    if settings.backend is not None:
        from drumd.modelserver.proxy import in_fastapi as proxy_fastapi  # noqa: PLC0415 - few need it, and httpx

        proxy_fastapi.mount(app, settings, settings.backend)
    telemetry.instrument_fastapi(app, settings)
    extend(app, EXTENSION, settings.code_dir)
    _close_at_the_end(app, pool)
    # Last, so that it sees what the extension's own layers answer.
    app.user_middleware.insert(0, Middleware(asgi.Exchanges, service=service, owner=app))
    return app


def _close_at_the_end(app: FastAPI, pool: HookPool) -> None:
    """Close the pool after all that the extension does at the app's end."""
    # Around the app's own: in place of it no on_event of an extension would be heard.
    around = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with around(app) as state:
            yield state
        pool.close()

    app.router.lifespan_context = lifespan


def _add(app: FastAPI, route: Route, endpoint: Callable[..., Any], prefix: str) -> None:
    described = set(route.paths)
    for url in route.urls(prefix):
        path = url.removeprefix(prefix) or "/"
        documented = path in described
        described.discard(path)
        details: dict[str, Any] = operation(route, path) if documented else {}
        app.add_api_route(
            url,
            endpoint,
            methods=[route.method],
            include_in_schema=documented,
            response_class=Response,
            **details,
        )
        if route.method == "GET":
            app.add_api_route(url, endpoint, methods=["HEAD"], include_in_schema=False)


def _endpoint(
    service: Service, pool: HookPool, route: Route
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    takes_body = route.method == "POST"

    async def endpoint(request: Request) -> Response:
        with service.room.place() as place:
            answer = await answer_of(request, place)
        if isinstance(answer.body, bytes):
            return asgi.response(answer)
        return asgi.StreamedAnswer(answer, pool)

    async def answer_of(request: Request, place: Place) -> Answer:
        scope, receive = request.scope, request.receive
        headers = asgi.header_values(scope["headers"])
        request_id = asgi.exchange_of(scope).request_id
        try:
            limit = service.settings.max_body
            body = await asgi.read(receive, headers, limit, place) if takes_body else b""
        except Exception as error:  # noqa: BLE001 - what it means is decided in one place
            return service.failure(error, request_id)
        call = Call(
            method=scope["method"],
            path=scope["path"],
            query_string=scope["query_string"],
            headers=headers,
            body=body,
            request_id=request_id,
        )
        if not route.hooks:
            return service.answer(route.handle, call)
        try:
            return await _unless_gone(pool, receive, partial(answered, call, place))
        except PoolFullError as full:
            return service.failure(full, request_id)

    def answered(call: Call, place: Place) -> Answer:
        with place:  # also once nobody waits for the answer any more
            return service.answer(route.handle, call)

    return endpoint


async def _unless_gone(pool: HookPool, receive: Any, answered: Callable[[], Answer]) -> Answer:
    """Return an answer, made in the pool; give up a place in its queue with the client.

    Raises `PoolFullError`.
    """
    if pool.free:
        # Once the model's code runs nothing can end it, so nobody needs to look.
        return await pool.run(answered, unwanted=_end)
    answering = asyncio.ensure_future(pool.run(answered, unwanted=_end))
    away = asyncio.ensure_future(asgi.gone(receive))
    try:
        await asyncio.wait({answering, away}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            return error_answer("cannot answer: the client went away", HTTPStatus.BAD_REQUEST)
        return await answering
    finally:
        answering.cancel()
        away.cancel()


def _end(answer: Answer) -> None:
    """End the source of an answer that nobody gets."""
    if not isinstance(answer.body, bytes):
        answer.body.close()


def _refusals(service: Service) -> Callable[[Request, Any], Coroutine[Any, Any, Response]]:
    async def refuse(request: Request, error: HTTPException) -> Response:
        """Return in our form what the routing, or an extension, refused."""
        scope = request.scope
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = _allowed(request.app, scope)
            answer = service.not_allowed(scope["method"], scope["path"], allowed)
        elif error.status_code == HTTPStatus.NOT_FOUND and "endpoint" not in scope:
            answer = service.not_found(scope["path"])
        else:
            said: Any = error.detail  # FastAPI's own exception takes any value
            text = said if isinstance(said, str) else jsonbytes.dumps(said).decode()
            answer = error_answer(text, error.status_code, error.headers)
        return asgi.response(answer)

    return refuse


def _allowed(app: FastAPI, scope: Scope) -> set[str]:
    """Return the methods of all routes that have the path: Starlette tells those of one alone."""
    methods: set[str] = set()
    for route in app.routes:
        match, _ = route.matches(scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return methods
