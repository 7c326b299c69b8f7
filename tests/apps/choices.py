"""Apps of each kind, as people write them: for telling ASGI from WSGI."""

import functools
from typing import Any

import fastapi
import flask
import starlette.applications

MEMBER = "not an app"


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def wsgi(environ: Any, start_response: Any) -> Any: ...


def wrap(call: Any) -> Any:
    @functools.wraps(call)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    return wrapper


def plain_asgi(scope: Any, receive: Any, send: Any) -> Any:
    return asgi(scope, receive, send)


async def asgi_with_setting(setting: str, scope: Any, receive: Any, send: Any) -> None: ...


def wsgi_with_setting(setting: str, environ: Any, start_response: Any) -> Any: ...


class AsgiMiddleware:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class WsgiMiddleware:
    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self.app(environ, start_response)

    async def other(self, scope: Any, receive: Any, send: Any) -> None: ...


class AsgiClass:
    """Awaited for each connection."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Any: ...


class Asgi2:
    """Called with the scope, then with the rest."""

    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class WsgiClass:
    """Iterated for each request."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any: ...


wrapped_asgi = wrap(asgi)
wrapped_wsgi = wrap(wsgi)
partial_asgi = functools.partial(asgi_with_setting, "x")
partial_wsgi = functools.partial(wsgi_with_setting, "x")
asgi_middleware = AsgiMiddleware(asgi)
wsgi_middleware = WsgiMiddleware(wsgi)
asgi_method = asgi_middleware.__call__
wsgi_method = wsgi_middleware.__call__
flask_app = flask.Flask(__name__)
fastapi_app = fastapi.FastAPI()
starlette_app = starlette.applications.Starlette()


def make_flask() -> flask.Flask:
    return flask_app


def make_nothing() -> None: ...


class Nested:
    app = fastapi_app
