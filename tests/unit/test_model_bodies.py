"""How much of a body is read, and when that stops."""

import pytest

from drumd.modelserver.errors import RequestError
from drumd.modelserver.serving.bodies import Body
from drumd.modelserver.serving.body_room import BodyRoom


def body_of(declared: str | None, limit: int) -> Body:
    return Body(declared, limit, BodyRoom(limit).place().__enter__())


def test_a_declared_length_above_the_limit_is_refused_at_once() -> None:
    """Nothing needs to arrive for that."""
    for declared in ("11", "9" * 5000):
        with pytest.raises(RequestError, match="larger than 10 bytes") as refused:
            body_of(declared, 10)
        assert refused.value.status == 413


def test_a_body_is_refused_at_the_first_byte_above_the_limit() -> None:
    """Without a length, what arrives is counted."""
    body = body_of(None, 10)
    body.add(b"12345")
    body.add(b"67890")
    with pytest.raises(RequestError) as refused:
        body.add(b"1")
    assert refused.value.status == 413


def test_what_arrived_is_the_whole() -> None:
    """Pieces are joined; none at all are an empty body."""
    body = body_of("4", 4)
    assert body.missing == 4
    body.add(b"12")
    body.add(b"34")
    assert body.missing == 0
    assert body.whole() == b"1234"
    assert body_of(None, 4).whole() == b""
    assert body_of("", 4).whole() == b""


def test_a_body_that_ends_early_is_refused() -> None:
    """Rows that are missing must not go unnoticed."""
    body = body_of("4", 4)
    body.add(b"123")
    with pytest.raises(RequestError, match="ended after 3 of 4 bytes") as refused:
        body.whole()
    assert refused.value.status == 400


@pytest.mark.parametrize("declared", ["-1", "+1", "1_0", " 1", "0x1", "٣", "1,1", "x" * 1000])
def test_a_length_that_is_no_number_is_refused(declared: str) -> None:
    """Neither guessed nor echoed at length."""
    with pytest.raises(RequestError, match="it must be a number of bytes") as refused:
        body_of(declared, 10)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 200
