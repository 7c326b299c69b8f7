"""uvicorn's treatment of a proxy's headers, at no cost for requests that have none."""

from collections.abc import Coroutine
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

_PREFIX = b"x-forwarded-"


class ForwardedHeaders(ProxyHeadersMiddleware):
    """Sets client and scheme as uvicorn does, and looks whom to trust only where that matters.

    uvicorn 0.54 parses each client's address first, and adds a coroutine to each request: together
    more than drumd's instruments cost.
    """

    # Not async: the app's own coroutine is handed through.
    def __call__(self, scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
        """Return the app's call for one scope."""
        if scope["type"] != "lifespan":
            for name, _ in scope["headers"]:
                if name.startswith(_PREFIX):
                    return super().__call__(scope, receive, send)
        return self.app(scope, receive, send)  # type: ignore[return-value]  # awaited at once
