"""Metering of an ASGI app's requests, from outside the app."""

from collections.abc import Awaitable, Callable
from typing import Any

from drumd.workers.meter import Meter

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]


class MeteredApp:
    """Counts an app's HTTP requests; one ends with its last body message, not with its call.

    What an app does after its answer (background tasks) is not part of the request. For protocols
    that say nothing themselves of a request's end: gunicorn's HTTP/2 and uwsgi. It costs a request
    some 4 µs, three times as much as `gunicorn_asgi_protocol` spends on it.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        """Run the app for one scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        meter = self._meter
        ticket = meter.begin()
        status: int | None = None

        def metered_send(message: Message) -> Awaitable[None]:
            nonlocal status
            kind = message["type"]
            if kind == "http.response.body":
                if not message.get("more_body", False):
                    return finish(message)
            elif kind == "http.response.start":
                status = message["status"]
            return send(message)

        async def finish(message: Message) -> None:
            await send(message)
            meter.end(ticket, status)

        try:
            await self._app(scope, receive, metered_send)
        except Exception:
            # The server answers 500 if the app had not begun to; else it cuts the answer off.
            meter.end(ticket, 500 if status is None else None)
            raise
        finally:
            # No last body message: the app gave up, or the client went away.
            meter.end(ticket, None)
