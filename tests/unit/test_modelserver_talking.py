"""What models that take no table answer: unstructured ones, and chats."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.errors import HookError, RequestError
from drumd.modelserver.inference.model import Model
from drumd.modelserver.payload import Unstructured
from tests import models
from tests.models.built import Built

UNSTRUCTURED = Target(TargetType.UNSTRUCTURED)
HELLO = [{"role": "user", "content": "hello there world"}]


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


def load(built: Built) -> Model:
    return Model.load(built.settings)


def asked(
    model: Model, way: str = "", data: bytes = "grün".encode(), content_type: str = "text/plain"
) -> Unstructured:
    return model.predict_unstructured(data, content_type, {"as": way}, {"x-colour": "red"})


@pytest.mark.parametrize(
    ("way", "data", "content_type"),
    [
        ("", "GRÜN".encode(), "text/plain; charset=utf-8"),
        ("bytes", "GRÜN".encode(), "application/octet-stream"),
        ("html", "<p>GRÜN</p>".encode("latin-1"), "text/html; charset=latin-1"),
        ("png", b"PNG", "image/png"),
        ("header", b"red", "text/plain; charset=utf-8"),
    ],
)
def test_an_unstructured_answer_is_text_or_bytes(
    tmp_path: Path, way: str, data: bytes, content_type: str
) -> None:
    """Its content type is the hook's, or what fits its Python type."""
    assert asked(load(models.unstructured(tmp_path)), way) == Unstructured(data, content_type)


@pytest.mark.parametrize(
    ("content_type", "type_name"),
    [
        ("text/plain", "str"),
        ("text/csv; charset=latin-1", "str"),
        ("application/json", "str"),
        ("application/problem+json", "str"),
        ("image/svg+xml", "str"),
        ("image/png", "bytes"),
        ("application/octet-stream", "bytes"),
        ("", "bytes"),
    ],
)
def test_text_reaches_the_hook_as_text(tmp_path: Path, content_type: str, type_name: str) -> None:
    """What the content type says is text is decoded by its charset, all else is bytes."""
    answer = asked(load(models.unstructured(tmp_path)), "json", b"abc", content_type)
    assert answer.content_type == "application/json"
    mimetype, _, charset = content_type.partition("; charset=")
    assert json.loads(answer.data) == {
        "model": "upper",
        "type": type_name,
        "mimetype": mimetype or None,
        "charset": charset or None,
        "query": {"as": "json"},
    }


@pytest.mark.parametrize(
    ("content_type", "told", "status"),
    [("text/plain", "byte 2", 422), ("text/plain; charset=klingon", "'klingon'", 415)],
)
def test_text_in_a_wrong_encoding_is_the_clients_error(
    tmp_path: Path, content_type: str, told: str, status: int
) -> None:
    """The hook is not bothered with it."""
    with pytest.raises(RequestError, match=told) as caught:
        asked(load(models.unstructured(tmp_path)), data=b"gr\xfcn", content_type=content_type)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("None", "returned a NoneType; expected str, bytes"),
        ("3", "returned an int"),
        ("('a', 'b', 'c')", "returned a tuple of 3"),
        ("('a', 'text/html')", "returned a tuple of 2"),
        ("('a', {'mimetype': 'html'})", "returned the mimetype 'html'"),
        ("('a', {'mimetype': 'text/html\\r\\nX-Own: 1'})", "returned the mimetype"),
        ("('a', {'charset': 'utf-8\\r\\nX-Own: 1'})", "returned the charset"),
        ("('a', {'charset': 'klingon'})", "cannot be sent as klingon"),
        ("('ü', {'charset': 'ascii'})", "cannot be sent as ascii"),
        ("{'a': float('nan')}", "returned what cannot be JSON"),
        ("{'a': object()}", "returned what cannot be JSON: an object is in it"),
        ("'\\ud800'", "cannot be sent as utf-8"),
    ],
)
def test_an_unstructured_answer_that_cannot_be_sent_is_told(
    tmp_path: Path, returned: str, told: str
) -> None:
    """Neither a forgotten return nor a header of the hook's own gets to the client."""
    source = f"def score_unstructured(model, data): return {returned}"
    with pytest.raises(HookError) as caught:
        asked(load(models.with_custom(tmp_path, source, UNSTRUCTURED)))
    assert str(caught.value).startswith("cannot answer: score_unstructured in custom.py returned ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "data", "content_type"),
    [
        ("[np.float32(0.5), np.int64(1), np.arange(2)]", b"[0.5, 1, [0, 1]]", "application/json"),
        ("{'ü': None}", '{"ü": null}'.encode(), "application/json"),
        ("bytearray(b'x')", b"x", "application/octet-stream"),
        ("('x', {})", b"x", "text/plain; charset=utf-8"),
        (
            "(b'x', {'mimetype': 'text/html', 'charset': 'cp1252'})",
            b"x",
            "text/html; charset=cp1252",
        ),
        ("('{}', {'mimetype': 'application/json'})", b"{}", "application/json"),
    ],
)
def test_dicts_and_numbers_of_numpy_are_sent_as_json(
    tmp_path: Path, returned: str, data: bytes, content_type: str
) -> None:
    """A hook need not write JSON itself."""
    source = f"import numpy as np\ndef score_unstructured(model, data): return {returned}"
    model = load(models.with_custom(tmp_path, source, UNSTRUCTURED))
    assert asked(model) == Unstructured(data, content_type)


def test_a_chat_is_answered(tmp_path: Path) -> None:
    """The hook's completion is the answer, and its time is told."""
    model = load(models.chat(tmp_path))
    ran: list[str] = []
    model.on_hook = lambda name, _: ran.append(name)
    answer = model.chat({"model": "owl", "messages": HELLO})
    assert isinstance(answer, dict)
    assert answer["choices"][0]["message"]["content"] == "hello there world"
    assert answer["model"] == "owl"
    assert ran == ["chat"]


def streamed(model: Model, text: str = "hello there world") -> Iterator[dict[str, Any]]:
    messages = [{"role": "user", "content": text}]
    answer = model.chat({"messages": messages, "stream": True})
    assert not isinstance(answer, dict)
    return answer


def contents(chunks: Iterator[dict[str, Any]]) -> list[str]:
    return [chunk["choices"][0]["delta"]["content"] for chunk in chunks]


def test_a_chat_is_streamed_chunk_by_chunk(tmp_path: Path) -> None:
    """Chunks come in order; the hook's time is told once, when the stream has ended."""
    model = load(models.chat(tmp_path))
    ran: list[str] = []
    model.on_hook = lambda name, _: ran.append(name)
    stream = streamed(model)
    assert ran == []
    assert contents(stream) == ["hello", "there", "world"]
    assert next(stream, None) is None
    assert ran == ["chat"]


def test_a_stream_that_fails_at_once_fails_with_a_status(tmp_path: Path) -> None:
    """Before the first chunk there is a status to choose, so it is asked for at once."""
    model = load(models.chat(tmp_path))
    with pytest.raises(HookError, match=r"chat in custom.py raised ValueError") as caught:
        streamed(model, "raise")
    assert caught.value.status == 500
    with pytest.raises(HookError, match="pay first") as caught:
        streamed(model, "own status")
    assert caught.value.status == 402


def test_a_stream_that_fails_later_raises_in_its_midst(tmp_path: Path) -> None:
    """The chunks before the failure arrive, and then it is told."""
    stream = streamed(load(models.chat(tmp_path)), "raise later")
    assert contents(iter([next(stream)])) == ["raise"]
    with pytest.raises(HookError, match="raised ValueError: no such word"):
        next(stream)
    assert next(stream, None) is None


def test_a_stream_that_nobody_reads_on_is_closed(tmp_path: Path) -> None:
    """The hook's `finally` runs, so that it can let go of its backend."""
    source = """
        from pathlib import Path

        def chat(completion_create_params, model):
            try:
                yield from chunks(completion_create_params, ["one", "two"])
            finally:
                (Path(__file__).parent / "closed").touch()
    """
    stream: Any = streamed(load(models.chat_hook(tmp_path, source)))
    assert not (tmp_path / "closed").exists()
    stream.close()
    assert (tmp_path / "closed").exists()
    assert next(stream, None) is None


def test_a_whole_completion_is_streamed_as_one_chunk(tmp_path: Path) -> None:
    """A client that asked for a stream gets one, also from a hook that knows of none."""
    source = "def chat(params, model): return completion(params, 'all at once')"
    chunks = list(streamed(load(models.chat_hook(tmp_path, source))))
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert chunks[0]["choices"][0]["delta"]["content"] == "all at once"
    assert len(chunks) == 1


def test_objects_of_openais_client_are_known(tmp_path: Path) -> None:
    """What has `model_dump` or `to_dict` counts as the dict that it gives."""
    source = """
        from pydantic import BaseModel

        class Completion(BaseModel):
            object: str = "chat.completion"
            choices: list[dict]

        class Chunk:
            def __init__(self, chunk):
                self.chunk = chunk
            def to_dict(self):
                return self.chunk

        class Stream:
            def __init__(self, chunks):
                self.chunks = chunks
            def __iter__(self):
                return (Chunk(chunk) for chunk in self.chunks)

        def chat(params, model, headers):
            if params.get("stream"):
                return Stream(chunks(params, ["one", "two"]))
            return Completion(choices=[{"message": {"content": headers["x-colour"]}}])
    """
    model = load(models.chat_hook(tmp_path, source))
    answer: Any = model.chat({"messages": HELLO}, headers={"x-colour": "red"})
    assert answer == {"object": "chat.completion", "choices": [{"message": {"content": "red"}}]}
    assert contents(streamed(model)) == ["one", "two"]


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ([], "the request is no JSON object"),
        ({}, "the request has no messages"),
        ({"messages": []}, "the request has no messages"),
        ({"messages": "hello"}, "the request has no messages"),
        ({"messages": ["hello"]}, "message 0 has no role"),
        ({"messages": [*HELLO, {"content": "hello"}]}, "message 1 has no role"),
        ({"messages": HELLO, "stream": "yes"}, "stream must be true or false"),
    ],
)
def test_a_chat_without_messages_says_what_is_expected(
    tmp_path: Path, params: Any, told: str
) -> None:
    """The hook gets only what has the form of a chat."""
    with pytest.raises(RequestError, match=told) as caught:
        load(models.chat(tmp_path)).chat(params)
    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("returned", "stream", "told"),
    [
        ("None", False, "returned a NoneType; expected a chat completion"),
        ("'hello'", False, "returned a str"),
        ("'hello'", True, "returned a str"),
        ("['hello']", True, "returned a list"),
        ("{}", False, "returned a dict with nothing in it"),
        ("{'content': 'hello'}", False, "returned a dict with content"),
        ("{'choices': [{}]}", False, "returned a choice without a message"),
        ("chunks({}, ['a'])", False, "returned a stream, which the request did not ask for"),
        ("(each for each in ['a'])", True, "yielded a str; expected chunks"),
        ("(each for each in [None])", True, "yielded a NoneType; expected chunks"),
    ],
)
def test_an_answer_that_is_no_completion_is_told(
    tmp_path: Path, returned: str, stream: bool, told: str
) -> None:
    """The message says what the hook returned, and what a client of OpenAI's would expect."""
    model = load(models.chat_hook(tmp_path, f"def chat(params, model): return {returned}"))
    with pytest.raises(HookError, match=told) as caught:
        model.chat({"messages": HELLO, "stream": stream})
    assert str(caught.value).startswith("cannot answer: chat in custom.py ")


def test_an_empty_stream_is_one(tmp_path: Path) -> None:
    """A hook may have nothing to say."""
    source = "def chat(params, model): return iter(())"
    assert list(streamed(load(models.chat_hook(tmp_path, source)))) == []


@pytest.mark.parametrize(
    "returned",
    [
        "['parrot', {'id': 'owl', 'owned_by': 'forest'}]",
        "{'data': ['parrot', {'id': 'owl', 'owned_by': 'forest'}]}",
        "types.SimpleNamespace(data=['parrot', {'id': 'owl', 'owned_by': 'forest'}])",
    ],
)
def test_supported_models_are_listed(tmp_path: Path, returned: str) -> None:
    """Names, dicts and objects of OpenAI's become one form."""
    source = f"""
        import types
        def chat(params, model): ...
        def get_supported_llm_models(model): return {returned}
    """
    assert load(models.chat_hook(tmp_path, source)).supported_models() == [
        {"id": "parrot", "object": "model"},
        {"id": "owl", "object": "model", "owned_by": "forest"},
    ]


@pytest.mark.parametrize("returned", ["None", "3", "'parrot'", "[3]", "[{'name': 'owl'}]", "{}"])
def test_models_without_a_name_are_told(tmp_path: Path, returned: str) -> None:
    """The message says what the hook returned."""
    source = f"""
        def chat(params, model): ...
        def get_supported_llm_models(model): return {returned}
    """
    with pytest.raises(HookError, match="cannot list the models: get_supported_llm_models in "):
        load(models.chat_hook(tmp_path, source)).supported_models()


def test_a_model_that_lists_none_has_none(tmp_path: Path) -> None:
    """Without the hook the list is empty."""
    assert load(models.text_generation(tmp_path)).supported_models() == []
