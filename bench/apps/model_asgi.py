"""The tiny ASGI app with a big model, of which each request reads something."""

from typing import Any

from bench.apps import model
from bench.apps.tiny_asgi import app as tiny

__all__ = ["app"]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer as the tiny app does, with a look at the model."""
    model.predict()
    await tiny(scope, receive, send)
