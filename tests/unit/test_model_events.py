"""Server-sent events, and what becomes of their source."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from drumd.modelserver.errors import HookError
from drumd.modelserver.serving.events import EventStream
from tests.waiting import wait_until


def explain(error: Exception) -> tuple[int, str]:
    return 500, f"explained {error}"


class Source:
    """Yields what it is given, raises exceptions among it, and notes its end."""

    def __init__(self, *chunks: Any) -> None:
        self.closed = False
        self.made = 0
        self._chunks = chunks

    def __iter__(self) -> Iterator[Any]:
        try:
            for chunk in self._chunks:
                self.made += 1
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.closed = True


def test_chunks_are_events_and_done_ends_them() -> None:
    """Each chunk is one event on one line, in UTF-8; the last one is [DONE]."""
    source = Source({"text": "grün\n日本"}, {})
    assert list(EventStream(iter(source), explain)) == [
        'data: {"text":"grün\\n日本"}\n\n'.encode(),
        b"data: {}\n\n",
        b"data: [DONE]\n\n",
    ]
    assert source.closed


def test_the_first_chunk_is_fetched_at_once_and_no_more() -> None:
    """What raises before it is raised; what comes after it is not asked for."""
    source = Source({}, {})
    stream = EventStream(iter(source), explain)
    assert source.made == 1
    next(stream)
    assert source.made == 1
    failing = Source(ValueError("early"))
    with pytest.raises(ValueError, match="early"):
        EventStream(iter(failing), explain)
    assert failing.closed


def test_an_error_in_the_middle_is_the_last_event() -> None:
    """The status is sent by then, so an event says what the message would have said."""
    events = list(EventStream(iter(Source({}, ValueError("late"), {})), explain))
    assert events == [
        b"data: {}\n\n",
        b'data: {"error":{"message":"ERROR: explained late","code":500}}\n\n',
    ]


def test_a_chunk_that_is_no_json_is_an_error_in_the_middle() -> None:
    """It ends the stream, and its source, and is the hook's."""
    source = Source({}, {"x": float("nan")}, {})
    events = list(EventStream(iter(source), explain))
    assert len(events) == 2
    told = b"explained cannot answer: what chat returned cannot be written as JSON: "
    assert events[1].startswith(b'data: {"error":{"message":"ERROR: ' + told)
    assert source.closed
    with pytest.raises(HookError, match="what chat returned cannot be written as JSON"):
        EventStream(iter(Source({"x": float("nan")})), explain)


def test_a_stream_of_nothing_is_done() -> None:
    """It has no chunk, and says so."""
    assert list(EventStream(iter(()), explain)) == [b"data: [DONE]\n\n"]


def test_a_closed_stream_yields_no_more() -> None:
    """Closing ends the source, also twice, and a source that cannot be closed."""
    source = Source({}, {}, {})
    stream = EventStream(iter(source), explain)
    stream.close()
    stream.close()
    assert source.closed
    assert source.made == 1
    plain = EventStream(iter([{}, {}]), explain)
    plain.close()
    assert list(plain) == [b"data: {}\n\n"]


def test_closing_waits_for_the_chunk_being_made() -> None:
    """A generator cannot be closed while it runs: another thread's close comes after it."""
    asked, go = threading.Event(), threading.Event()

    def chunks() -> Iterator[dict[str, int]]:
        yield {}
        asked.set()
        go.wait(30)
        yield {}

    stream = EventStream(chunks(), explain)
    next(stream)
    reader = threading.Thread(target=next, args=(stream,))
    closer = threading.Thread(target=stream.close)
    reader.start()
    wait_until(asked.is_set, what="the second chunk asked for")
    closer.start()
    go.set()
    reader.join(30)
    closer.join(30)
    assert list(stream) == []
