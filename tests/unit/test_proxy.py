"""The proxy's pure half: whatever a client says, one host is asked, for a path of its own."""

from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drumd.config.modelserver.settings import Backend, ModelSettings
from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.proxy import forwarding
from drumd.modelserver.proxy.forwarding import Route
from drumd.modelserver.proxy.refusals import Refusal

SETTINGS = ModelSettings(
    code_dir=Path("/nowhere"),
    target=Target(TargetType.UNSTRUCTURED),
    url_prefix="/a/b",
    max_body=100,
)
ROUTE = Route(SETTINGS, Backend("::1", 8000), "/nim")

header_names = st.sampled_from(
    [b"host", b"connection", b"content-length", b"transfer-encoding", b"x", b"upgrade", b"expect"]
)


class Body(httpx.SyncByteStream):
    pass


def asked(
    target: bytes, headers: forwarding.Headers | None = None, root: str = ""
) -> httpx.Request:
    return ROUTE.request("POST", target, headers or [], Body(), request_id="1", root=root)


@given(rest=st.binary(), headers=st.lists(st.tuples(header_names, st.binary())))
def test_one_host(rest: bytes, headers: forwarding.Headers) -> None:
    """Whatever path and headers say, the backend is asked for a path, and by its own name."""
    try:
        request = asked(b"/a/b/nim/" + rest, headers)
    except Refusal as refusal:
        assert refusal.status in (400, 413, 501)  # noqa: PT017 - one of two outcomes
        return
    assert (request.url.scheme, request.url.host, request.url.port) == ("http", "::1", 8000)
    assert request.headers.get_list("host") == ["[::1]:8000"]
    target: bytes = request.extensions["target"]
    assert target.startswith(b"/")
    assert all(0x20 < each < 0x7F for each in target)


@given(target=st.binary())
def test_nothing_else(target: bytes) -> None:
    """What does not begin with the mount is not passed on."""
    path = target.partition(b"#")[0].partition(b"?")[0]
    if b"/a/b/nim" not in path:
        with pytest.raises(Refusal, match="there is nothing here"):
            asked(target)


def test_where_the_app_is_put() -> None:
    """What the server itself puts before the app's paths is no part of the backend's."""
    assert asked(b"/root/a/b/nim/x", root="/root").extensions["target"] == b"/x"
    with pytest.raises(Refusal, match="the backend is at /root/a/b/nim/"):
        asked(b"/a/b/nim/x", root="/root")


@pytest.mark.parametrize(
    ("headers", "framing", "has_body"),
    [
        ([], [], False),
        ([(b"content-length", b"0")], [("content-length", "0")], True),
        ([(b"content-length", b"100")], [("content-length", "100")], True),
        ([(b"transfer-encoding", b"gzip, chunked")], [("transfer-encoding", "chunked")], True),
        (
            [(b"content-length", b"7"), (b"transfer-encoding", b"chunked")],
            [("transfer-encoding", "chunked")],
            True,
        ),
        (
            [(b"content-length", b"7"), (b"connection", b"content-length")],
            [("content-length", "7")],
            True,
        ),
    ],
)
def test_framing(
    headers: forwarding.Headers, framing: list[tuple[str, str]], *, has_body: bool
) -> None:
    """A body goes on framed once, and no body as none."""
    request = asked(b"/a/b/nim", headers)
    said = [
        pair for pair in request.headers.multi_items() if pair[0].endswith(("length", "encoding"))
    ]
    assert said == framing
    assert isinstance(request.stream, Body) == has_body


def test_names_that_are_taken_for_others() -> None:
    """A name with an underscore, which many backends take for a hyphen, does not go on."""
    request = asked(b"/a/b/nim", [(b"content_length", b"7"), (b"x_user", b"me"), (b"x-a", b"1")])
    assert [name for name in request.headers if name not in ("host", "via", "x-request-id")] == [
        "x-a"
    ]


@pytest.mark.parametrize(
    ("length", "status"),
    [(b"101", 413), (b"9" * 5000, 413), (b"-1", 400), (b"x", 400), (b"", 400), (b"1, 1", 400)],
)
def test_refused_lengths(length: bytes, status: int) -> None:
    """A length that is too large, or none, is refused before anybody is asked."""
    with pytest.raises(Refusal) as refused:
        asked(b"/a/b/nim", [(b"content-length", length)])
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (httpx.ConnectTimeout, 504),
        (httpx.ReadTimeout, 504),
        (httpx.WriteTimeout, 504),
        (httpx.PoolTimeout, 503),
        (httpx.ConnectError, 502),
        (httpx.ReadError, 502),
        (httpx.WriteError, 502),
        (httpx.CloseError, 502),
        (httpx.RemoteProtocolError, 502),
        (httpx.LocalProtocolError, 400),
    ],
)
def test_failures(error: type[httpx.TransportError], status: int) -> None:
    """Each way in which a backend may fail has its status; all but the client's own name it."""
    refusal = ROUTE.refusal(error("text"), asked(b"/a/b/nim/x"))
    assert refusal.status == status
    assert ("[::1]:8000" in str(refusal)) == (status != 400)
    assert ((b"retry-after", b"1") in refusal.headers) == (status == 503)
