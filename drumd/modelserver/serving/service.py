"""The model as a service: one answer to one call, whichever framework brought it."""

from __future__ import annotations

from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING

from drumd.modelserver.errors import BusyError
from drumd.modelserver.serving import metrics, paths
from drumd.modelserver.serving.body_room import BodyRoom
from drumd.modelserver.serving.calls import Exchange, error_answer, request_id
from drumd.modelserver.serving.failures import explain
from drumd.modelserver.serving.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from drumd.modelserver.inference.model import Model
    from drumd.modelserver.serving.calls import Answer, Call

    Handler = Callable[["Service", Call], Answer]
    """What answers the calls of a route; it may raise what `explain` knows."""

RETRY_AFTER = 1
"""Seconds after which a client that was refused may try again."""
_SHOWN = 200
"""Characters of a path that a message repeats."""


class Service:
    """A loaded model, and what is counted of its requests. Used by several threads at once."""

    def __init__(self, model: Model, name_of: Callable[[str], str]) -> None:
        """Begin to count for a model; `name_of` tells the name of a path's route."""
        self.model = model
        self.settings = model.settings
        self.statistics = Statistics()
        self._name_of = name_of
        # One for each thread, and one that arrives meanwhile.
        self.room = BodyRoom((model.settings.threads + 1) * model.settings.max_body)
        model.on_hook = metrics.hook_took
        metrics.loaded(model.load_seconds)

    def began(self, method: str, path: str, given_id: str | None) -> Exchange:
        """Note a request that begins; `ended` must follow."""
        exchange = Exchange(method, self._name_of(path), request_id(given_id))
        metrics.began(exchange.route)
        return exchange

    def ended(self, exchange: Exchange, status: int) -> None:
        """Note that its answer is complete, or was given up."""
        seconds = monotonic() - exchange.started
        metrics.ended(exchange.route, exchange.method, status, seconds)
        self.statistics.finished(exchange.route, status, seconds)

    def answer(self, handle: Handler, call: Call) -> Answer:
        """Return the answer to a call; never raises."""
        try:
            return handle(self, call)
        except Exception as error:  # noqa: BLE001 - what it means is decided in one place
            return self.failure(error, call.request_id)

    def failure(self, error: Exception, request_id: str) -> Answer:
        """Return the answer for an exception."""
        status, message = self.explain(error, request_id)
        headers = {"Retry-After": str(RETRY_AFTER)} if isinstance(error, BusyError) else None
        return error_answer(message, status, headers)

    def explain(self, error: Exception, request_id: str) -> tuple[int, str]:
        """Return the status and the message that a client gets for an exception; log the rest."""
        return explain(error, request_id, self.settings.code_dir)

    def not_found(self, path: str) -> Answer:
        """Return the answer for a path that leads nowhere."""
        if self.settings.backend is None and self._name_of(path) in paths.PROXIED.values():
            return error_answer(
                "there is no backend to pass this on to; set OPENAI_HOST and OPENAI_PORT to the "
                "host and the port of one",
                HTTPStatus.NOT_FOUND,
            )
        return error_answer(
            f"cannot find {path[:_SHOWN]}: "
            f"GET {self.settings.url_prefix}/capabilities lists the endpoints",
            HTTPStatus.NOT_FOUND,
        )

    def not_allowed(self, method: str, path: str, allowed: set[str]) -> Answer:
        """Return the answer for a method that the path does not have."""
        names = ", ".join(sorted(allowed))
        return error_answer(
            f"cannot {method[:_SHOWN]} {path[:_SHOWN]}: use {names}",
            HTTPStatus.METHOD_NOT_ALLOWED,
            {"Allow": names},
        )
