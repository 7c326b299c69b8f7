"""The tiny WSGI app with a big model, of which each request reads something."""

from collections.abc import Callable, Iterable
from typing import Any

from bench.apps import model
from bench.apps.tiny_wsgi import app as tiny

__all__ = ["app"]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer as the tiny app does, with a look at the model."""
    model.predict()
    return tiny(environ, start_response)
