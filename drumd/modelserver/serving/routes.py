"""Which paths there are, and who answers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drumd.modelserver.serving import handlers, paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drumd.modelserver.serving.service import Handler

NOWHERE = "none"
"""The route of a path that leads nowhere, or to what an extension added."""


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that clients can ask for."""

    name: str
    paths: tuple[str, ...]
    handle: Handler
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
    Route("predict", paths.PREDICT, handlers.predict, method="POST", hooks=True),
    Route("transform", paths.TRANSFORM, handlers.transform, method="POST", hooks=True),
    Route(
        "predict_unstructured",
        paths.UNSTRUCTURED,
        handlers.predict_unstructured,
        method="POST",
        hooks=True,
    ),
    Route("chat", paths.CHAT, handlers.chat, method="POST", hooks=True),
    Route("models", paths.MODELS, handlers.models, hooks=True),
)


def routes_by_path(prefix: str) -> dict[str, Route]:
    """Return each route by each of its paths."""
    return {url: route for route in ROUTES for url in route.urls(prefix)}


def names_below(prefix: str) -> Callable[[str], str]:
    """Return what tells the name of the route that a path leads to, or `NOWHERE`."""
    names = {path: route.name for path, route in routes_by_path(prefix).items()}

    def name_of(path: str) -> str:
        name = names.get(path)
        if name is None:
            first = path.removeprefix(prefix).split("/", 2)[1:2]
            name = paths.PROXIED.get(first[0], NOWHERE) if first else NOWHERE
        return name

    return name_of
