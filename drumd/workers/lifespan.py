"""The lifespan of an ASGI app: started before it serves, ended after (ASGI specs, lifespan 2.0)."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Literal

from drumd.workers.runtime import AppError

log = logging.getLogger("drumd.lifespan")

LifespanMode = Literal["auto", "on", "off"]

SHUTDOWN_PATIENCE = 30.0
"""Seconds that an app's shutdown may take; the supervisor's grace period usually ends it before."""


class LifespanError(AppError):
    """cannot start the app."""


class Lifespan:
    """Runs an app's lifespan, without a limit of its own: `start_timeout` is the supervisor's.

    `mode` "auto": an app that never asked for a lifespan message, or answered with one of another
    protocol, has none. One that took `lifespan.startup` and then failed cannot serve.
    """

    def __init__(self, app: Callable[..., Any], state: dict[str, Any], mode: LifespanMode) -> None:
        self._app = app
        self._state = state
        self._mode = mode
        self._inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._asked = False
        self._foreign = False
        self._refusal: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Start the app; raise its own error, or `LifespanError`, when it could not."""
        if self._mode == "off":
            return
        self._inbox.put_nowait({"type": "lifespan.startup"})
        task = self._task = asyncio.create_task(self._run())
        started = asyncio.create_task(self._started.wait())
        await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._refusal is not None:
            # Frameworks say `startup.failed` and then raise what went wrong, which says more.
            await asyncio.wait((task,), timeout=1.0)
            if not (task.done() and task.exception()):
                raise _refused(self._refusal)
        if self._started.is_set() and self._refusal is None:
            return
        self._task = None
        error = task.exception()
        if self._refusal is None and self._mode == "auto" and (self._foreign or not self._asked):
            return  # it speaks no lifespan
        raise error or LifespanError(
            "cannot start the app: its lifespan ended without `lifespan.startup.complete`"
        )

    async def shutdown(self) -> None:
        """End the app; what goes wrong here is logged, since the worker ends anyway."""
        if self._task is None or self._task.done():
            return
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        ended = asyncio.create_task(self._ended.wait())
        await asyncio.wait(
            (self._task, ended), timeout=SHUTDOWN_PATIENCE, return_when=asyncio.FIRST_COMPLETED
        )
        ended.cancel()
        if self._task.done():
            with contextlib.suppress(asyncio.CancelledError):
                if error := self._task.exception():
                    log.error("the app's lifespan failed at shutdown", exc_info=error)

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, str]:
        message = await self._inbox.get()
        self._asked = True
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.startup.failed":
                self._refusal = str(message.get("message", ""))
                self._started.set()
            case "lifespan.shutdown.complete":
                self._ended.set()
            case "lifespan.shutdown.failed":
                log.error("the app's shutdown failed: %s", message.get("message", ""))
                self._ended.set()
            case other:
                self._foreign = True
                raise LifespanError(f"cannot send {other!r}: this is the lifespan, not a request")


def _refused(reason: str) -> LifespanError:
    # Frameworks send a whole traceback, whose last line tells most.
    lines = reason.strip().splitlines() or ["its lifespan said `lifespan.startup.failed`"]
    return LifespanError(f"cannot start the app: {lines[-1]}", reason if len(lines) > 1 else "")
