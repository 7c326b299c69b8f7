"""Answers over ASGI: streams, and clients that go away, as seen by the app itself."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.fastapi_app import app_of
from drumd.modelserver.inference.model import Model
from drumd.modelserver.serving.asgi import StreamedAnswer, gone
from drumd.modelserver.serving.calls import Answer
from drumd.modelserver.serving.events import EventStream
from drumd.modelserver.serving.hook_pool import HookPool
from tests import models
from tests.waiting import CAP, until

BODY = b'{"messages": [{"role": "user", "content": "go"}], "stream": true}'
HOLDING = """
    import threading

    class Chunks:
        def __init__(self):
            self.entered, self.go, self.closed = threading.Event(), threading.Event(), False

        def __iter__(self):
            return self

        def __next__(self):
            self.entered.set()
            self.go.wait(30)
            return {"choices": [{"delta": {"content": "x"}}]}

        def close(self):
            self.closed = True

    def load_model(code_dir):
        return Chunks()

    def chat(completion_create_params, model):
        return model
"""


class Replayed:
    """What middleware that has read the body hands on: the body, at once, again and again."""

    def __init__(self, body: bytes = b"") -> None:
        self._message = {"type": "http.request", "body": body, "more_body": False}
        self.asked = 0

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        return self._message


async def raising() -> dict[str, Any]:
    raise RuntimeError("Unexpected message received: http.request")


@pytest.fixture
async def pool() -> AsyncIterator[HookPool]:
    """Return a pool of one thread."""
    pool = HookPool(1, 1)
    yield pool
    pool.close()


@pytest.mark.parametrize("receive", [Replayed(), raising], ids=["replayed", "raising"])
async def test_a_stream_is_sent_whole_whatever_middleware_says(
    pool: HookPool, receive: Callable[[], Any]
) -> None:
    """A body that comes again is no end of the client, and does not keep the loop busy."""
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        sent.append(message.get("body", b""))

    events = EventStream(iter([{"n": number} for number in range(20)]), lambda _: (500, ""))
    answer = StreamedAnswer(Answer(events, content_type="text/event-stream"), pool)
    async with asyncio.timeout(10):
        await answer({"type": "http"}, receive, send)
    assert b"".join(sent).endswith(b'data: {"n":19}\n\ndata: [DONE]\n\n')


async def test_the_end_of_a_client_is_noticed_behind_other_messages() -> None:
    """What comes before it does not end the look-out for it."""
    messages = iter([{"type": "http.request"}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(messages)

    async with asyncio.timeout(10):
        await gone(receive)


async def test_a_stream_that_nobody_gets_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose client left before its first chunk, while nobody could end the hook."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    built = models.with_custom(tmp_path, HOLDING, Target(TargetType.TEXT_GENERATION))
    model = Model.load(built.settings)
    chunks = model.loaded
    answering = asyncio.create_task(ask(app_of(model)))
    await until(chunks.entered.is_set)
    answering.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await answering
    assert not chunks.closed
    chunks.go.set()
    await until(lambda: chunks.closed)


async def test_a_body_takes_room_as_long_as_its_hook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose client has gone away; so three bodies are too many for one thread."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    built = models.with_custom(tmp_path, HOLDING, Target(TargetType.TEXT_GENERATION))
    model = Model.load(replace(built.settings, threads=1, max_body=len(BODY)))
    app, chunks = app_of(model), model.loaded
    given_up = asyncio.create_task(ask(app))
    await until(chunks.entered.is_set)
    given_up.cancel()
    await asyncio.wait([given_up])
    receive = Replayed(BODY)
    waiting = asyncio.create_task(ask(app, receive))
    await until(lambda: receive.asked > 1)
    assert await asyncio.wait_for(ask(app), CAP) == 503
    waiting.cancel()
    await asyncio.wait([waiting])
    chunks.go.set()
    await until(lambda: chunks.closed)


async def ask(app: FastAPI, receive: Replayed | None = None) -> int:
    """Return the status of a chat's answer."""
    statuses: list[int] = []
    path = "/chat/completions"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        statuses.append(message.get("status"))

    await app(scope, receive or Replayed(BODY), send)
    return statuses[0]
