"""Which paths there are, and who answers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drumd.modelserver.serving import handlers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drumd.modelserver.serving.calls import Answer, Call
    from drumd.modelserver.serving.service import Service

NOWHERE = "none"
"""The route of a path that leads nowhere, or to what an extension added."""

PROXIED = {"directAccess": "direct_access", "nim": "nim"}
"""Routes whose paths go on to a backend, by the first part of these paths."""


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that clients can ask for."""

    name: str
    paths: tuple[str, ...]
    handle: Callable[[Service, Call], Answer]
    method: str = "GET"
    """A route for GET answers HEAD as well."""
    hooks: bool = False
    """Whether the model's code runs, which may take long."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Return the methods that it answers."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)

    def urls(self, prefix: str) -> Iterator[str]:
        """Yield each path below a prefix, without and with the slash at its end."""
        for path in self.paths:
            bare = prefix + path.rstrip("/")
            if bare:
                yield bare
            yield f"{bare}/"


ROUTES = (
    Route("root", ("/",), handlers.ping),
    Route("ping", ("/ping",), handlers.ping),
    Route("health", ("/health",), handlers.health),
    Route("info", ("/info",), handlers.info),
    Route("stats", ("/stats",), handlers.stats),
    Route("capabilities", ("/capabilities",), handlers.capabilities),
    Route(
        "predict",
        ("/predict", "/predictions", "/invocations"),
        handlers.predict,
        method="POST",
        hooks=True,
    ),
    Route("transform", ("/transform",), handlers.transform, method="POST", hooks=True),
    Route(
        "predict_unstructured",
        ("/predictUnstructured", "/predictionsUnstructured"),
        handlers.predict_unstructured,
        method="POST",
        hooks=True,
    ),
    Route(
        "chat",
        ("/chat/completions", "/v1/chat/completions"),
        handlers.chat,
        method="POST",
        hooks=True,
    ),
    Route("models", ("/models", "/v1/models"), handlers.models, hooks=True),
)


def routes_by_path(prefix: str) -> dict[str, Route]:
    """Return each route by each of its paths."""
    return {url: route for route in ROUTES for url in route.urls(prefix)}
