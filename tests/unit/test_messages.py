import pytest
from hypothesis import given
from hypothesis import strategies as st

from drumd.wire.messages import (
    MAX_LISTENERS,
    MAX_PACKET,
    MAX_TRACEBACK,
    Accept,
    Accepting,
    Drain,
    Drained,
    Failed,
    Leaving,
    Loaded,
    Message,
    MessageError,
    Ready,
    Stop,
    decode,
    encode,
)


@pytest.mark.parametrize(
    "message",
    [
        Loaded(interface="asgi", runtime="uvicorn", event_loop=True),
        Ready(),
        Accepting(epoch=7, listeners=(0, 2)),
        Leaving(signal=15),
        Drained(),
        Failed(error="cannot import shop:app", traceback="Traceback …\n"),
        Accept(epoch=1, listeners=()),
        Drain(deadline=12.5, linger=2.0),
        Stop(),
    ],
)
def test_what_is_sent_arrives(message: Message) -> None:
    """Each message is the same on both sides."""
    assert decode(encode(message)) == message


@given(error=st.text(max_size=5000), traceback=st.text(max_size=60_000))
def test_a_failure_always_fits_a_packet(error: str, traceback: str) -> None:
    """However long or strange a traceback is, the error's line arrives."""
    packet = encode(Failed(error=error, traceback=traceback))
    assert len(packet) <= MAX_PACKET
    message = decode(packet)
    assert isinstance(message, Failed)
    assert message.error == error[:2000]


def test_a_traceback_keeps_its_end() -> None:
    """The last lines say what was raised."""
    message = decode(encode(Failed(error="e", traceback="a" * MAX_TRACEBACK + "the end")))
    assert isinstance(message, Failed)
    assert message.traceback.endswith("the end")
    assert len(message.traceback) == MAX_TRACEBACK


def test_the_largest_accept_fits() -> None:
    """All listeners that one packet can carry fds for can be named in it."""
    listeners = tuple(range(10_000, 10_000 + MAX_LISTENERS))
    assert len(encode(Accept(epoch=10**9, listeners=listeners))) <= MAX_PACKET


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'"ready"',
        b'{"kind": "dance"}',
        b'{"kind": ["ready"]}',
        b'{"kind": "drain"}',
        b'{"kind": "ready", "surprise": 1}',
        b'{"kind": "accept", "epoch": 1, "listeners": 3}',
    ],
)
def test_what_is_no_message_is_refused(packet: bytes) -> None:
    """A packet that is none of ours raises one error, whatever is wrong with it."""
    with pytest.raises(MessageError, match="cannot read a control message"):
        decode(packet)
