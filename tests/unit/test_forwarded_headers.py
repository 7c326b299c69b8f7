"""A proxy's headers under drumd's own class and under uvicorn's."""

import copy
from typing import Any

import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from drumd.workers.uvicorn_forwarded import ForwardedHeaders

PROTO = (b"x-forwarded-proto", b"https")
FOR = (b"x-forwarded-for", b"203.0.113.7")
OTHER = (b"host", b"example.org")


async def seen(kind: type[ProxyHeadersMiddleware], scope: dict[str, Any]) -> dict[str, Any]:
    """Return the scope that the app gets."""
    scopes = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        scopes.append(scope)

    await kind(app, "127.0.0.1")(copy.deepcopy(scope), None, None)  # type: ignore[arg-type]
    (scope,) = scopes
    return scope


@pytest.mark.parametrize("client", [("127.0.0.1", 5), ("192.0.2.1", 5), None])
@pytest.mark.parametrize("headers", [[], [OTHER], [OTHER, PROTO], [FOR, OTHER], [PROTO, FOR]])
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_the_app_gets_the_same_scope(kind: str, headers: list[Any], client: Any) -> None:
    """The app sees what it would under uvicorn, from trusted clients and from others."""
    scope = {"type": kind, "scheme": "http", "headers": headers, "client": client}
    assert await seen(ForwardedHeaders, scope) == await seen(ProxyHeadersMiddleware, scope)


async def test_a_trusted_proxy_is_believed() -> None:
    """The scheme and the client are those that a trusted proxy tells."""
    scope = {"type": "http", "scheme": "http", "headers": [PROTO, FOR], "client": ("127.0.0.1", 5)}
    got = await seen(ForwardedHeaders, scope)
    assert (got["scheme"], got["client"][0]) == ("https", "203.0.113.7")


async def test_the_lifespan_goes_through() -> None:
    """A scope without headers, the lifespan's, reaches the app."""
    assert (await seen(ForwardedHeaders, {"type": "lifespan"}))["type"] == "lifespan"
