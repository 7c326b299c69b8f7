"""The admin API: what `drumctl` and programs ask of the daemon, as a FastAPI app over an Operator.

Endpoints are coroutines and run on the daemon's loop, since the Operator's calls must. All who can
connect to the socket may read; those whom the policy allows may change things.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from drumd.config import inforce
from drumd.supervisor.admin.documents import (
    ReloadBody,
    RestartBody,
    ScaleBody,
    changes_document,
    is_final,
    operation_document,
    reading,
    reload_document,
)
from drumd.supervisor.admin.operator import Operator, RefusedError, UnknownNameError
from drumd.supervisor.admin.peer import Peer, Policy
from drumd.supervisor.admin.scraper import Scraper
from drumd.supervisor.core.model import OperationKind
from drumd.supervisor.observe.journal import Page
from drumd.supervisor.observe.levels import level_of
from drumd.supervisor.observe.metrics import CONTENT_TYPE

MAX_BODY = 65_536
"""Bytes of a request's body."""
MAX_WAIT = 60.0
"""Seconds of the longest poll; a client asks again."""
MAX_EVENTS = 100_000

NDJSON = "application/x-ndjson"


class ForbiddenError(Exception):
    """cannot let that caller change things. The message says who may."""


def create_app(operator: Operator, scraper: Scraper, policy: Policy) -> ASGIApp:
    """Return the app for the admin socket. Each request's state must have its `peer`."""
    app = _bare_app()
    _add_observing(app, operator, scraper)
    _add_reading(app, operator)
    _add_changing(app, operator, policy)
    return _BoundedBody(app)


def create_public_app(operator: Operator, scraper: Scraper) -> ASGIApp:
    """Return the app for the TCP address: metrics and probes, and nothing else."""
    app = _bare_app()
    _add_observing(app, operator, scraper)
    return _BoundedBody(app)


def _bare_app() -> FastAPI:
    app = FastAPI(title="drumd", docs_url=None, redoc_url=None, openapi_url=None)
    answers: dict[type[Exception], Callable[[Exception], tuple[int, str]]] = {
        UnknownNameError: lambda error: (404, str(error)),
        RefusedError: lambda error: (409, str(error)),
        ForbiddenError: lambda error: (403, str(error)),
        RequestValidationError: lambda error: (400, _invalid(error)),
        HTTPException: _plain,
        Exception: lambda error: (500, f"cannot answer: internal error {error!r}"),
    }

    def handler(
        answer: Callable[[Exception], tuple[int, str]],
    ) -> Callable[[Request, Exception], Awaitable[Response]]:
        async def handle(_: Request, error: Exception) -> Response:
            status, text = answer(error)
            return JSONResponse({"error": text, "known": []}, status)

        return handle

    for kind, answer in answers.items():
        app.add_exception_handler(kind, handler(answer))
    return app


def _add_observing(app: FastAPI, operator: Operator, scraper: Scraper) -> None:
    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(await scraper.scrape(), media_type=CONTENT_TYPE)

    @app.get("/livez")
    async def livez() -> dict[str, bool]:
        # That the loop answers is what liveness means here; pools are readiness.
        return {"live": True}

    @app.get("/readyz")
    async def readyz() -> Response:
        ready, reason = operator.ready()
        return JSONResponse({"ready": ready, "reason": reason}, 200 if ready else 503)


def _add_reading(app: FastAPI, operator: Operator) -> None:
    @app.get("/status")
    async def status() -> dict[str, Any]:
        return operator.status()

    # Of the secrets that the config may have, neither document shows any.

    @app.get("/config")
    async def config(color: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - a query parameter
        return inforce.document(operator.config(), color=color)

    @app.get("/config/changes")
    async def config_changes(color: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - a query parameter
        return changes_document(await operator.changes(), color=color)

    @app.get("/events")
    async def events(
        since: Annotated[int | None, Query(ge=0)] = None,
        last: Annotated[int, Query(ge=0, le=MAX_EVENTS)] = MAX_EVENTS,
        follow: bool = False,  # noqa: FBT001, FBT002 - a query parameter
    ) -> Response:
        journal = operator.journal
        page = journal.tail(last) if since is None else journal.since(since)
        return StreamingResponse(_lines(operator, page, follow=follow), media_type=NDJSON)

    @app.get("/operations/{operation_id}")
    async def operation(
        operation_id: str,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 0.0,
        seen: str | None = None,
    ) -> dict[str, Any]:
        found = operator.operation(operation_id)
        # `seen` is the client's last reading: a change between two polls is answered at once.
        if wait and not is_final(found) and seen in (None, reading(found)):
            found = await operator.wait(operation_id, wait)
        return operation_document(found)


def _add_changing(app: FastAPI, operator: Operator, policy: Policy) -> None:
    by_caller = Depends(_Caller(policy))

    @app.post("/pools/{pool}/restart")
    async def restart(
        pool: str, by: str = by_caller, body: Annotated[RestartBody | None, Body()] = None
    ) -> Response:
        slot = body.slot if body else None
        return _submit(operator, OperationKind.RESTART, pool, by, slot=slot)

    @app.post("/pools/{pool}/stop")
    async def stop(pool: str, by: str = by_caller) -> Response:
        return _submit(operator, OperationKind.STOP, pool, by)

    @app.post("/pools/{pool}/start")
    async def start(pool: str, by: str = by_caller) -> Response:
        return _submit(operator, OperationKind.START, pool, by)

    @app.post("/pools/{pool}/scale")
    async def scale(pool: str, body: ScaleBody, by: str = by_caller) -> Response:
        return _submit(operator, OperationKind.SCALE, pool, by, size=body.size)

    @app.post("/re-exec")
    async def re_exec(by: str = by_caller) -> Response:
        return JSONResponse(operation_document(operator.re_exec(by=by)), 202)

    @app.post("/reload")
    async def reload(
        by: str = by_caller, body: Annotated[ReloadBody | None, Body()] = None
    ) -> Response:
        begun = await operator.reload(body.pool if body else None, by=by)
        return JSONResponse(reload_document(begun), 202)

    @app.delete("/operations/{operation_id}")
    async def cancel(operation_id: str, by: str = by_caller) -> dict[str, Any]:
        return operation_document(operator.cancel(operation_id, by=by))

    @app.post("/stop")
    async def shutdown(by: str = by_caller) -> Response:
        operator.shutdown(by=by)
        return JSONResponse({"state": "stopping"}, 202)


class _Caller:
    """Say who calls, for the journal; refuse those who may not change things."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def __call__(self, request: Request) -> str:
        peer: Peer = request.state.peer
        if not self._policy.allows(peer):
            raise ForbiddenError(f"cannot let {peer} operate drumd: {self._policy} may")
        return str(peer)


def _submit(
    operator: Operator,
    kind: OperationKind,
    pool: str,
    by: str,
    *,
    slot: int | None = None,
    size: int | None = None,
) -> Response:
    try:
        submitted = operator.submit(kind, pool, slot=slot, size=size, by=by)
    except UnknownNameError as error:
        text, known = str(error), _known(operator, pool)
        return JSONResponse({"error": text, "known": known}, 404)
    return JSONResponse(operation_document(submitted), 202)


async def _lines(operator: Operator, page: Page, *, follow: bool) -> AsyncIterator[bytes]:
    """Yield a page of the journal, then what follows, one JSON document a line.

    Where entries were lost, a line `{"lost": N}` stands in their place.
    """
    yield _page_lines(page)
    if follow:
        async for further in operator.journal.follow(page.last):
            yield _page_lines(further)


def _page_lines(page: Page) -> bytes:
    documents: list[dict[str, Any]] = [{"lost": page.lost}] if page.lost else []
    documents += [{**entry.document(), "level": level_of(entry)} for entry in page.entries]
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def _known(operator: Operator, pool: str) -> list[str]:
    """Return the names that there are: of pools, or of the slots of a pool that exists."""
    pools = {entry["name"]: entry for entry in operator.status()["pools"]}
    if pool not in pools:
        return list(pools)
    return [f"{pool}/{slot['slot']}" for slot in pools[pool].get("slots", [])]


def _invalid(error: Exception) -> str:
    details: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    said = "; ".join(
        f"{'.'.join(str(part) for part in detail['loc'][1:]) or detail['loc'][0]}: {detail['msg']}"
        for detail in details
    )
    return f"cannot read the request: {said}"


def _plain(error: Exception) -> tuple[int, str]:
    if not isinstance(error, HTTPException):
        return 500, repr(error)
    return error.status_code, f"cannot answer: {error.detail.lower()}"


class _BoundedBody:
    """Refuse bodies of more than `MAX_BODY` bytes before anything is built from them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        message: Message = {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > MAX_BODY:
                text = f"cannot read the request: its body is longer than {MAX_BODY} bytes"
                answer = JSONResponse({"error": text, "known": []}, 413)
                await answer(scope, receive, send)
                return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)
