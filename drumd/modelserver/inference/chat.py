"""Asking a chat model, in the form of OpenAI's chat completions."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from drumd.modelserver.errors import HookError, RequestError
from drumd.modelserver.inference.directory import Loaded
from drumd.modelserver.inference.running import Runner, cannot
from drumd.modelserver.shown import kind_of, some_of

_HOOK = "chat"
_MODELS_HOOK = "get_supported_llm_models"
_EXPECTED = 'expected {"messages": [{"role": "user", "content": "…"}, …]}'
_COMPLETION = "expected a chat completion: a dict, or an object of OpenAI's, with choices"
_DUMPING = ("model_dump", "to_dict")
_END = object()
_CHUNK = "chat.completion.chunk"


def answer(loaded: Loaded, params: Any, **kwargs: Any) -> dict[str, Any] | Iterator[dict[str, Any]]:
    """Return the completion, or its chunks; raise `RequestError` or `HookError`.

    A hook that answers a request for a stream with a whole completion is streamed in one chunk.
    """
    if _HOOK not in loaded.hooks:
        raise RequestError(
            "cannot chat: this model has no chat hook; write chat in custom.py, "
            "or send POST /predict"
        )
    is_streamed = _checked(params)
    runner, hook = loaded.runner, loaded.hooks[_HOOK]
    started = time.perf_counter()
    try:
        returned = runner.guarded(_HOOK, hook, params, loaded.model, **({"headers": {}} | kwargs))
        if is_streamed and _is_stream(returned):
            return Chunks(runner, returned, started)
        completion = _checked_completion(runner.guarded(_HOOK, _plain, returned), returned)
    except BaseException:
        runner.watched(_HOOK, time.perf_counter() - started)
        raise
    runner.watched(_HOOK, time.perf_counter() - started)
    return iter([_as_chunk(completion)]) if is_streamed else completion


def supported_models(loaded: Loaded) -> list[dict[str, Any]]:
    """Return what the hook lists, none without it: a list of names or of objects with an id."""
    if _MODELS_HOOK not in loaded.hooks:
        return []
    returned = loaded.runner.run(_MODELS_HOOK, loaded.hooks[_MODELS_HOOK], loaded.model)
    data = loaded.runner.guarded(_MODELS_HOOK, _plain, returned)
    if isinstance(data, dict):
        data = data.get("data")
    elif not isinstance(data, list | tuple):
        data = getattr(returned, "data", None)
    if not isinstance(data, list | tuple):
        _no_models(returned)
    return [_described_model(each) for each in data]


def _described_model(each: Any) -> dict[str, Any]:
    if isinstance(each, str):
        return {"id": each, "object": "model"}
    described = _plain(each)
    if not isinstance(described, dict) or not isinstance(described.get("id"), str):
        _no_models(each)
    return {"object": "model"} | described


def _no_models(returned: Any) -> NoReturn:
    raise HookError(
        _MODELS_HOOK,
        f"{cannot(_MODELS_HOOK)} returned {kind_of(returned)}; "
        'expected a list of names, or {"data": [{"id": …}, …]}',
    )


def _checked(params: Any) -> bool:
    """Check a request, and return whether it asks for a stream."""
    if not isinstance(params, dict):
        raise RequestError(f"cannot chat: the request is no JSON object; {_EXPECTED}")
    messages = params.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(f"cannot chat: the request has no messages; {_EXPECTED}")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RequestError(f"cannot chat: message {index} has no role; {_EXPECTED}")
    stream = params.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise RequestError("cannot chat: stream must be true or false")
    return bool(stream)


class Chunks:
    """The chunks that a hook yields, each checked; one thread at a time may ask for them.

    The first one is asked for at once: a hook that fails before it has answered anything fails with
    a status, not in the midst of a stream. The hook's time is told when the stream ends.
    """

    def __init__(self, runner: Runner, stream: Any, started: float) -> None:
        """Take a hook that was called at `started` (`time.perf_counter`), and what it returned."""
        self._runner = runner
        self._returned = stream
        self._is_open = True
        self._seconds = time.perf_counter() - started
        self._stream = runner.guarded(_HOOK, iter, stream)
        self._first = self._next()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        chunk, self._first = self._first, None
        if chunk is None and self._is_open:
            chunk = self._next()
        if chunk is None:
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Tell the hook that nobody reads on."""
        self._first = None
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._runner.guarded(_HOOK, getattr(self._returned, "close", _nothing))
        finally:
            self._runner.watched(_HOOK, self._seconds)

    def _next(self) -> dict[str, Any] | None:
        """Return the next chunk; None, and close, at the end."""
        started = time.perf_counter()
        chunk = None
        try:
            returned = self._runner.guarded(_HOOK, next, self._stream, _END)
            if returned is not _END:
                chunk = _checked_chunk(self._runner.guarded(_HOOK, _plain, returned), returned)
        finally:
            self._seconds += time.perf_counter() - started
            if chunk is None:
                self.close()
        return chunk


def _nothing() -> None:
    """Do nothing: not every iterator can be closed."""


def _is_stream(returned: Any) -> bool:
    """Tell chunks from a completion: pydantic's models can be iterated, too."""
    if any(hasattr(returned, name) for name in _DUMPING) or isinstance(returned, Mapping):
        return False
    return hasattr(returned, "__iter__") and not isinstance(returned, str | bytes | list | tuple)


def _checked_chunk(chunk: Any, returned: Any) -> dict[str, Any]:
    if not isinstance(chunk, dict) or not isinstance(chunk.get("choices"), list):
        _fail(
            f"yielded {_kind(returned)}",
            "expected chunks of a chat completion: dicts, or objects of OpenAI's, with choices",
        )
    return chunk


def _checked_completion(completion: Any, returned: Any) -> dict[str, Any]:
    if not isinstance(completion, dict) or not isinstance(completion.get("choices"), list):
        if _is_stream(returned):
            getattr(returned, "close", _nothing)()
            _fail("returned a stream, which the request did not ask for", _COMPLETION)
        _fail(f"returned {_kind(returned)}", _COMPLETION)
    for choice in completion["choices"]:
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            _fail(
                "returned a choice without a message",
                'expected {"message": {"role": "assistant", "content": …}} in each choice',
            )
    return completion


def _kind(returned: Any) -> str:
    if isinstance(returned, dict):
        return f"a dict with {some_of(list(returned)) or 'nothing in it'}"
    return kind_of(returned)


def _as_chunk(completion: dict[str, Any]) -> dict[str, Any]:
    choices = [
        {
            "index": choice.get("index", index),
            "delta": choice["message"],
            "finish_reason": choice.get("finish_reason", "stop"),
        }
        for index, choice in enumerate(completion["choices"])
    ]
    return completion | {"object": _CHUNK, "choices": choices}


def _plain(value: Any) -> Any:
    """Return an object of OpenAI's, or of pydantic, as a dict; others as they are."""
    for name in _DUMPING:
        method = getattr(value, name, None)
        if callable(method):
            return method()
    return dict(value) if isinstance(value, Mapping) else value


def _fail(what: str, expected: str) -> NoReturn:
    raise HookError(_HOOK, f"{cannot(_HOOK)} {what}; {expected}")
