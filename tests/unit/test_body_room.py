"""How many bytes of bodies a worker holds, and who gives way when there is no room."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

from drumd.modelserver.flask_app import app_of
from drumd.modelserver.inference.model import Model
from drumd.modelserver.serving.body_room import BodyRoom, NoRoomError, Place
from tests import models
from tests.waiting import CAP


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
def room(clock: Clock) -> BodyRoom:
    """Return room for ten bytes, with patience for 5 s."""
    return BodyRoom(10, patience=5, clock=clock)


def entered(room: BodyRoom, data: bytes = b"") -> Place:
    place = room.place().__enter__()
    if data:
        place.add(data)
    return place


def left(place: Place) -> None:
    place.__exit__()


def test_who_finds_no_room_is_refused(room: BodyRoom) -> None:
    """Those that came before are not touched, and what is refused takes nothing."""
    first, second = entered(room, b"12345"), entered(room, b"1234")
    third = entered(room)
    with pytest.raises(NoRoomError, match="fill the 10 bytes") as refused:
        third.add(b"12")
    assert refused.value.status == 503
    first.add(b"6")
    assert first.whole() == b"123456"
    assert second.whole() == b"1234"


def test_room_is_taken_until_the_place_is_left(room: BodyRoom) -> None:
    """A body that waits or is computed is held as well as one that arrives."""
    for _ in range(3):
        with room.place() as place:
            place.add(b"1" * 10)
            assert place.whole() == b"1" * 10
            with pytest.raises(NoRoomError):
                entered(room, b"1")


def test_room_is_taken_as_long_as_anybody_holds_the_place(room: BodyRoom) -> None:
    """A thread may go on with a body whose request was given up."""
    with room.place() as place:
        place.add(b"1" * 10)
        assert place.whole() == b"1" * 10
        place.__enter__()
    with pytest.raises(NoRoomError):
        entered(room, b"1")
    left(place)
    assert entered(room, b"1").whole() == b"1"


def test_what_is_announced_takes_no_room(room: BodyRoom) -> None:
    """Any number of requests may be open of which nothing came."""
    places = [entered(room) for _ in range(100)]
    assert entered(room, b"1" * 10).whole() == b"1" * 10
    assert places[0].whole() == b""


def test_the_slowest_that_arrives_for_long_gives_way(room: BodyRoom, clock: Clock) -> None:
    """Clients that trickle cannot keep others out for ever; their bytes are gone at once."""
    slow, fast = entered(room, b"123"), entered(room, b"1234")
    clock.now = 5.0
    with pytest.raises(NoRoomError):
        entered(room, b"1234")
    clock.now = 5.1
    new = entered(room, b"1234")
    assert slow.pieces == []
    with pytest.raises(NoRoomError):
        slow.add(b"4")
    with pytest.raises(NoRoomError):
        slow.whole()
    left(slow)
    assert fast.whole() == b"1234"
    assert new.whole() == b"1234"


def test_a_complete_body_gives_way_to_none(room: BodyRoom, clock: Clock) -> None:
    """It waits for a thread or is computed, which is not its client's doing."""
    complete = entered(room, b"1" * 8)
    assert complete.whole() == b"1" * 8
    clock.now = 100.0
    with pytest.raises(NoRoomError):
        entered(room, b"123")


def test_as_many_give_way_as_must(room: BodyRoom, clock: Clock) -> None:
    """The slowest first, and itself when it is that."""
    places = [entered(room, b"1" * size) for size in (1, 2, 3, 4)]
    clock.now = 6.0
    new = entered(room, b"123")
    assert [place.size for place in places] == [0, 0, 3, 4]
    with pytest.raises(NoRoomError):
        places[2].add(b"1")
    assert places[2].size == 0
    assert new.whole() == b"123"


class Halted:
    """A WSGI request's input that ends only when it is let go."""

    def __init__(self, data: bytes, go: threading.Event) -> None:
        self.halted = threading.Event()
        self._pieces = iter((data[:-1], data[-1:]))
        self._go = go

    def read(self, _size: int) -> bytes:
        piece = next(self._pieces)
        if len(piece) == 1:
            self.halted.set()
            self._go.wait(CAP)
        return piece


@pytest.fixture
def moody_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the Flask app with one thread, and bodies of 100 bytes: there is room for 200."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    settings = replace(models.moody(tmp_path).settings, max_body=100, threads=1)
    return app_of(Model.load(settings))


def test_a_wsgi_app_refuses_what_it_has_no_room_for(moody_app: Any) -> None:
    """It is 503 and to be tried again; the requests that had room before are answered."""
    data, go = b"mood\n" + b"fine\n" * 17, threading.Event()

    def asked(stream: Any) -> Any:
        environ = EnvironBuilder("/predict", method="POST", content_type="text/csv").get_environ()
        environ |= {"wsgi.input": stream, "CONTENT_LENGTH": str(len(data))}
        body, status, headers = run_wsgi_app(moody_app, environ)
        return b"".join(body), status, headers

    streams = [Halted(data, go) for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        asking = [threads.submit(asked, stream) for stream in streams]
        assert all(stream.halted.wait(CAP) for stream in streams)
        body, status, headers = asked(Halted(data, go))
        go.set()
        assert status == "503 SERVICE UNAVAILABLE"
        assert headers["Retry-After"] == "1"
        assert b"ERROR: cannot answer now: the bodies of requests fill the 200 bytes" in body
        assert [each.result()[1] for each in asking] == ["200 OK", "200 OK"]
    assert asked(Halted(data, go))[1] == "200 OK"
