"""The model server's proxy to a backend: the same by each server type, over real connections."""

import gzip
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.backend import Backend
from tests.e2e.daemon import free_port
from tests.e2e.modelled import SERVERS, Models, Reply, Site, models, read_reply
from tests.waiting import wait_until

LIMIT = 100_000
OWN = ("date", "server", "connection", "x-request-id", "transfer-encoding")
"""Headers that each server sets in its own way."""


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend() as running:
        yield running


@pytest.fixture(scope="module")
def served(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    there = {"OPENAI_HOST": "127.0.0.1", "OPENAI_PORT": str(backend.port)}
    variants = {
        "main": {**there, "MLOPS_RUNTIME_PARAM_DRUM_MAX_REQUEST_SIZE": str(LIMIT)},
        "tight": {
            **there,
            "URL_PREFIX": "/models/a",
            "GUARDED": "1",
            "MLOPS_RUNTIME_PARAM_DRUM_CLIENT_REQUEST_TIMEOUT": "1",
            # Would lead elsewhere.
            "HTTP_PROXY": "http://127.0.0.1:1",
            "ALL_PROXY": "http://127.0.0.1:1",
        },
        "few": {
            **there,
            "GUARDED": "1",
            "MLOPS_RUNTIME_PARAM_CUSTOM_MODEL_THREADS": "1",
            "MLOPS_RUNTIME_PARAM_CUSTOM_MODEL_QUEUE": "1",
        },
        "alone": {},
        "refused": {"OPENAI_HOST": "localhost", "OPENAI_PORT": str(free_port())},
    }
    with models(tmp_path_factory.mktemp("proxy"), variants) as running:
        yield running


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def main(served: Models, server: str) -> Site:
    return served.site(server, "main")


@pytest.fixture
def tight(served: Models, server: str) -> Site:
    return served.site(server, "tight")


def echoed(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, reply
    document: dict[str, Any] = json.loads(reply.body)
    return document


def values(document: dict[str, Any], name: str) -> list[str]:
    return [value for key, value in document["headers"] if key == name]


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


# --- what goes on -------------------------------------------------------------------------------


@pytest.mark.parametrize("mount", ["/directAccess", "/nim"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_any_method(main: Site, mount: str, method: str) -> None:
    """Method, path, query and body go on as they came, by both mounts."""
    body = b"\x00\xff{}"
    got = echoed(main.ask(f"{mount}/v1/x?b=%20+&a=1&&b", method=method, body=body))
    assert (got["method"], got["target"]) == (method, "/v1/x?b=%20+&a=1&&b")
    assert got["body"].encode("latin-1") == body


def test_head(main: Site) -> None:
    """The answer to a HEAD has the backend's headers and no body."""
    reply = main.ask("/directAccess/x", method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.all("content-length")[0]) > 0


def test_method_that_is_none(main: Site, backend: Backend) -> None:
    """Another method is refused with 405, and the backend is not asked."""
    reply = main.ask("/directAccess/purged", method="PURGE")
    assert reply.status == 405
    assert reply.all("allow") == ["DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"]
    assert reply.message.startswith("ERROR: cannot PURGE /directAccess/purged: use DELETE")
    assert not [each for each in backend.asked if each.method == "PURGE"]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/directAccess", "/"),
        ("/directAccess/", "/"),
        ("/directAccess?a", "/?a"),
        ("/directAccess//evil.example/x", "//evil.example/x"),
        ("/directAccess/http://evil.example/", "/http://evil.example/"),
        ("/directAccess/http:%2F%2Fevil.example/", "/http:%2F%2Fevil.example/"),
        ("/directAccess/@evil.example/", "/@evil.example/"),
        ("/directAccess/..//evil.example", "/..//evil.example"),
        ("/directAccess/%2e%2e/%2E./../x", "/%2e%2e/%2E./../x"),
        ("/directAccess/a%2Fb%5cc\\d", "/a%2Fb%5cc\\d"),
        ("/directAccess/%0d%0aHost:%20evil/x", "/%0d%0aHost:%20evil/x"),
        ("/directAccess/%00%ff", "/%00%ff"),
        ("/directAccess/x?u=http://evil.example/@%0d%0a", "/x?u=http://evil.example/@%0d%0a"),
        ("http://evil.example/directAccess/x?y", "/x?y"),
        ("http://evil.example@127.0.0.1/directAccess/x", "/x"),
    ],
)
def test_no_other_host(main: Site, backend: Backend, path: str, target: str) -> None:
    """Whatever the path, the configured backend is asked for it, under its own name."""
    request = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    got = echoed(main.raw(request.encode()))
    assert got["target"] == target
    assert values(got, "host") == [f"127.0.0.1:{backend.port}"]


@pytest.mark.parametrize(
    "path",
    [
        "/direct%41ccess/x",
        "/directAccess%2Fx",
        "/directAccessible",
        "/x/directAccess/x",
        "/directaccess/x",
    ],
)
def test_not_the_proxy(main: Site, backend: Backend, path: str) -> None:
    """What only resembles the proxy's paths is not found, and the backend is not asked."""
    before = len(backend.asked)
    reply = main.ask(path)
    assert reply.status == 404
    assert reply.message.startswith("ERROR: ")
    assert len(backend.asked) == before


@pytest.mark.parametrize(
    "line", [b"GET /directAccess/x\r y HTTP/1.1", b"GET /directAccess/x y HTTP/1.1"]
)
def test_broken_request_line(main: Site, backend: Backend, line: bytes) -> None:
    """A request line with a blank or a line end in it never gets as far as the backend."""
    before = len(backend.asked)
    with main.connect() as sock:
        sock.sendall(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65_536), b""))
    assert b" 400 " in answer
    assert len(backend.asked) == before


def test_redirect_is_not_followed(main: Site, backend: Backend) -> None:
    """A redirect goes back to the client."""
    backend.raw["moved"] = (
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    )
    reply = main.ask("/nim/raw/moved")
    assert (reply.status, reply.all("location")) == (302, ["http://127.0.0.1:1/"])


def test_headers_of_the_request(main: Site, backend: Backend) -> None:
    """A request's own headers go on; those for this hop, and the host's name, do not."""
    got = echoed(
        main.ask(
            "/directAccess/x",
            headers={
                "Accept": "text/event-stream",
                "Authorization": "Bearer secret",
                "Cookie": "a=1; b=2",
                "X-Forwarded-For": "192.0.2.1",
                "Connection": "X-Mine, close",
                "X-Mine": "1",
                "Keep-Alive": "timeout=5",
                "Proxy-Authorization": "Basic x",
                "Proxy-Connection": "keep-alive",
                "TE": "trailers",
                "Trailer": "X-Sum",
                "Upgrade": "h2c",
                "Via": "1.0 front",
                "X-Request-ID": "mine-1",
            },
        )
    )
    assert sorted(map(tuple, got["headers"])) == [
        ("accept", "text/event-stream"),
        ("authorization", "Bearer secret"),
        ("cookie", "a=1; b=2"),
        ("host", f"127.0.0.1:{backend.port}"),
        ("via", "1.0 front, 1.1 drumd"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-request-id", "mine-1"),
    ]


def test_made_request_id(main: Site) -> None:
    """A request without an id gets one, which backend and client are told alike."""
    reply = main.ask("/directAccess/x")
    assert values(echoed(reply), "x-request-id") == reply.all("x-request-id")


def test_expectation(main: Site) -> None:
    """A client that waits for 100 Continue is told by this server; the backend is not asked to."""
    with main.connect() as sock:
        sock.sendall(
            b"POST /directAccess/expects HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
            b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert sock.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        got = echoed(read_reply(sock))
    assert (got["body"], values(got, "expect")) == ("abc", [])


def test_streamed_request(main: Site, backend: Backend) -> None:
    """The backend has the first part of a body before the client sends the last."""
    target = "/streamed-request"
    before = len(backend.asked)
    with main.connect() as sock:
        sock.sendall(
            b"POST /directAccess/streamed-request HTTP/1.1\r\nHost: x\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunked(b"a" * 40_000)
        )
        wait_until(lambda: len(backend.asked) > before, what="the request")
        asked = backend.asked[-1]
        wait_until(lambda: len(asked.body) > 0, what="the first part of the body")
        assert not asked.whole
        sock.sendall(chunked(b"b" * 10, b""))
        got = echoed(read_reply(sock))
    assert got["target"] == target
    assert got["body"] == "a" * 40_000 + "b" * 10
    assert values(got, "transfer-encoding") == ["chunked"]
    assert values(got, "content-length") == []


# --- what comes back ----------------------------------------------------------------------------


def test_headers_of_the_answer(main: Site, backend: Backend) -> None:
    """An answer's own headers come back, repeated ones too, an encoded body as it is."""
    body = gzip.compress(b"text")
    backend.raw["answer"] = (
        b"HTTP/1.1 418 Teapot\r\nSet-Cookie: a=1; Path=/\r\nContent-Encoding: gzip\r\n"
        b"Set-Cookie: b=2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
        b"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: X\r\nDate: then\r\n"
        b"Server: theirs\r\nX-Request-ID: theirs\r\nETag: W/1\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    reply = main.ask("/directAccess/raw/answer")
    assert (reply.status, reply.body) == (418, body)
    assert sorted(
        pair for pair in reply.headers if pair[0] not in ("date", "connection", "server")
    ) == [
        ("content-encoding", "gzip"),
        ("content-length", str(len(body))),
        ("etag", "W/1"),
        ("set-cookie", "a=1; Path=/"),
        ("set-cookie", "b=2"),
        ("x-request-id", "theirs"),
    ]
    assert reply.all("server") != ["theirs"]
    assert (len(reply.all("date")), len(reply.all("server"))) == (1, 1)


def test_cookies_are_not_kept(main: Site, backend: Backend) -> None:
    """A cookie that the backend sets for one client is not sent along with another's request."""
    backend.raw["login"] = (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: s=1; Path=/\r\nContent-Length: 0\r\n\r\n"
    )
    main.ask("/directAccess/raw/login")
    assert values(echoed(main.ask("/directAccess/x")), "cookie") == []


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_answers_without_a_body(main: Site, backend: Backend, status: bytes) -> None:
    """Answers that have no body come back with their headers, and end."""
    backend.raw["none"] = (
        b"HTTP/1.1 " + status + b"\r\nETag: 1\r\nLast-Modified: x\r\nContent-Length: 7\r\n\r\n"
    )
    reply = main.ask("/directAccess/raw/none")
    assert (reply.status, reply.body) == (int(status[:3]), b"")
    assert (reply.all("etag"), reply.all("last-modified")) == (["1"], ["x"])
    assert reply.all("content-type") == []


def test_streamed_answer(main: Site, backend: Backend, server: str) -> None:
    """Events come one by one, the status and the headers before the first of them."""
    with main.connect() as sock:
        sock.sendall(
            b"GET /directAccess/gated/%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            % server.encode()
        )
        with sock.makefile("rb") as reader:
            head = b"".join(iter(reader.readline, b"\r\n")).lower()
            assert head.startswith(b"http/1.1 200 ")
            assert b"content-type: text/event-stream" in head
            assert b"transfer-encoding: chunked" in head
            for number in range(3):
                backend.gate(f"{server}{number}").set()
                event = f"data: {number}\n\n".encode()
                assert reader.read(3 + len(event) + 2) == b"9\r\n" + event + b"\r\n"
            assert reader.read() == b"0\r\n\r\n"


def test_large_answer(main: Site, backend: Backend) -> None:
    """An answer of some megabytes comes whole."""
    body = bytes(range(256)) * 20_000
    backend.raw["large"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    assert main.ask("/directAccess/raw/large").body == body


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/directAccess/v1/models", "/nim/x", "/nim"])
def test_no_backend(served: Models, server: str, path: str) -> None:
    """Without a backend the paths are not found, and the answer says what to set."""
    reply = served.site(server, "alone").ask(path, method="POST", body=b"{}")
    assert reply.status == 404
    assert reply.message == (
        "ERROR: there is no backend to pass this on to; set OPENAI_HOST and OPENAI_PORT to the "
        "host and the port of one"
    )


def test_refused(served: Models, server: str) -> None:
    """A backend that does not run is told as 502, with its address and what to check."""
    reply = served.site(server, "refused").ask("/directAccess/x", method="POST", body=b"{}")
    assert reply.status == 502
    [identity] = reply.all("x-request-id")
    assert "cannot get an answer from the backend at localhost" in logged(served, identity)
    assert re.fullmatch(
        r"ERROR: cannot connect to the backend at localhost:\d+; check that it runs, and "
        "OPENAI_HOST and OPENAI_PORT",
        reply.message,
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_broken_answers(served: Models, main: Site, backend: Backend, answer: bytes) -> None:
    """An answer that is none is told as 502, with the backend's address and what to check; the log
    has the request's id.
    """
    backend.raw["broken"] = answer
    reply = main.ask("/directAccess/raw/broken")
    assert reply.status == 502
    [identity] = reply.all("x-request-id")
    assert f"the backend at 127.0.0.1:{backend.port}" in logged(served, identity)
    assert f"the backend at 127.0.0.1:{backend.port} answered" in reply.message


def test_silent_backend(tight: Site, backend: Backend) -> None:
    """A backend that is silent for too long is told as 504, and the request to it is ended."""
    reply = tight.ask("/models/a/directAccess/silent?504", method="POST", body=b"{}")
    assert reply.status == 504
    assert reply.message == (
        f"ERROR: cannot wait longer for the backend at 127.0.0.1:{backend.port}: it was silent for "
        "1 s; check what keeps it, or raise DRUM_CLIENT_REQUEST_TIMEOUT"
    )
    assert backend.asked[-1].left.wait(30)


@pytest.mark.parametrize(
    "cut", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"]
)
def test_answer_that_breaks(served: Models, main: Site, backend: Backend, cut: bytes) -> None:
    """An answer that breaks off at the backend breaks off here too: it has no clean end."""
    backend.raw["cut"] = b"HTTP/1.1 200 OK\r\n" + cut
    identity = uuid4().hex
    assert broken_off(main, "/directAccess/raw/cut", identity) in (b"ab", b"abc")
    assert "cannot complete the answer of the backend" in logged(served, identity)


def test_answer_that_stops(tight: Site, backend: Backend) -> None:
    """An answer in which the backend falls silent for too long has no clean end."""
    assert broken_off(tight, "/models/a/nim/begun") == b"begun"
    assert backend.asked[-1].left.wait(30)


def logged(served: Models, identity: str) -> str:
    """Return the line that the log has of the request with this id."""
    head = f"request {identity}: "
    return wait_until(
        lambda: next(
            (str(e["line"]) for e in served.events("worker.output") if head in str(e.get("line"))),
            "",
        ),
        what=head,
    )


def broken_off(site: Site, path: str, identity: str = "1") -> bytes:
    """Return what comes of an answer's body; it must not come to its end."""
    with site.connect() as sock:
        sent = f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Request-ID: {identity}\r\n\r\n"
        sock.sendall(sent.encode())
        data = b""
        try:
            while chunk := sock.recv(65_536):
                data += chunk
        except ConnectionResetError:
            pass
    head, _, body = data.partition(b"\r\n\r\n")
    assert b" 200 " in head
    if b"chunked" in head.lower():
        assert not body.endswith(b"0\r\n\r\n")
        return body.partition(b"\r\n")[2].removesuffix(b"\r\n")
    assert b"content-length: 10" in head.lower()
    return body


def test_connections_in_use(served: Models, server: str, backend: Backend) -> None:
    """With all connections to the backend in use, another request is refused with 503.

    There are two: for one thread and one place in the queue.
    """
    site = served.site(server, "few")
    before = len(backend.asked)
    with site.connect() as first, site.connect() as second:
        for sock in (first, second):
            sock.sendall(b"GET /nim/begun HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: len(backend.asked) == before + 2, what="both requests")
        reply = site.ask("/nim/x")
    assert reply.status == 503
    assert reply.all("retry-after") == ["1"]
    assert "all 2 connections to it are in use" in reply.message
    for asked in backend.asked[before:]:
        assert asked.left.wait(30)
    assert site.ask("/nim/x").status == 200


def test_too_large(main: Site, backend: Backend) -> None:
    """A body that says that it is too large is refused with 413, and the backend is not asked."""
    before = len(backend.asked)
    reply = main.ask("/directAccess/x", method="POST", body=b"a" * (LIMIT + 1))
    assert reply.status == 413
    assert f"more than {LIMIT} bytes" in reply.message
    assert len(backend.asked) == before
    assert main.ask("/directAccess/x", method="POST", body=b"a" * LIMIT).status == 200


def test_grows_too_large(main: Site, backend: Backend) -> None:
    """A body that grows too large is refused with 413; the backend sees no end of it."""
    before = len(backend.asked)
    reply = main.raw(
        b"POST /directAccess/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n" + chunked(b"a" * LIMIT, b"b", b"")
    )
    assert reply.status == 413
    assert f"more than {LIMIT} bytes" in reply.message
    for asked in backend.asked[before:]:
        assert asked.left.wait(30)
        assert not asked.whole


def test_websocket(main: Site, backend: Backend) -> None:
    """An upgrade to a websocket is refused with 501, and the backend is not asked."""
    before = len(backend.asked)
    reply = main.raw(
        b"GET /directAccess/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert reply.status == 501
    assert reply.message == "ERROR: cannot pass a websocket on to the backend; use plain HTTP"
    # The backend may only now have noted what a test before had broken off.
    assert "/socket" not in [asked.target for asked in backend.asked[before:]]


# --- clients that go, and the rest that stays ---------------------------------------------------


@pytest.mark.parametrize("path", ["silent", "begun"])
@pytest.mark.parametrize("variant", ["main", "few"])
def test_client_goes(
    served: Models, server: str, backend: Backend, path: str, variant: str
) -> None:
    """When a client goes, the connection to the backend is ended, in wait and in stream."""
    before = len(backend.asked)
    with served.site(server, variant).connect() as sock:
        sock.sendall(
            f"POST /nim/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        wait_until(lambda: len(backend.asked) > before, what="the request")
        asked = backend.asked[-1]
        if path == "begun":
            data = b""
            while b"begun" not in data:
                data += sock.recv(65_536)
        assert not asked.left.is_set()
    assert asked.left.wait(30)


def test_client_goes_in_its_request(main: Site, backend: Backend) -> None:
    """When a client goes before its body is whole, the backend never gets a whole one."""
    before = len(backend.asked)
    with main.connect() as sock:
        sock.sendall(
            b"POST /nim/x HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + b"a" * 40_000
        )
        wait_until(lambda: len(backend.asked) > before, what="the request")
        asked = backend.asked[-1]
    assert asked.left.wait(30)
    assert not asked.whole


@pytest.mark.parametrize("server", ["flask", "gunicorn"], indirect=True)
def test_a_body_ends_too_early(served: Models, server: str) -> None:
    """A client that says no more than half of its body, but listens, is told what is wrong."""
    with served.site(server, "main").connect() as sock:
        sock.sendall(b"POST /nim/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        sock.shutdown(socket.SHUT_WR)
        reply = read_reply(sock)
    assert reply.status == 400
    assert reply.message == "ERROR: cannot read the request's body to its end"


def test_silent_backend_delays_nobody(served: Models, backend: Backend) -> None:
    """While fifty requests wait for the backend in FastAPI's one loop, others are answered."""
    site = served.site("fastapi", "main")
    before = len(backend.asked)
    waiting = [site.connect() for _ in range(50)]
    for sock in waiting:
        sock.sendall(b"GET /directAccess/silent HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: len(backend.asked) == before + 50, what="all requests at the backend")
    assert site.ask("/ping").status == 200
    assert site.ask("/directAccess/x").status == 200
    assert site.ask("/predictUnstructured", method="POST", body=b"x").body == b"scored"
    assert not any(asked.left.is_set() for asked in backend.asked[before : before + 50])
    for sock in waiting:
        sock.close()
    for asked in backend.asked[before : before + 50]:
        assert asked.left.wait(30)


@pytest.mark.parametrize("server", ["gunicorn", "fastapi"], indirect=True)
def test_connection_goes_on(served: Models, server: str) -> None:
    """A connection is of use after a request with a body that was refused."""
    site = served.site(server, "refused")
    with site.connect() as sock:
        for _ in range(2):
            sock.sendall(
                b"POST /nim/x HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n" + b"a" * 30_000
            )
            assert read_reply(sock).status == 502
        sock.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_reply(sock).status == 200


def test_connections_are_kept(main: Site, backend: Backend) -> None:
    """Connections to the backend serve several requests."""
    before = backend.connections
    for _ in range(10):
        main.ask("/nim/x")
    assert backend.connections < before + 10


def test_closed_connections(main: Site, backend: Backend) -> None:
    """Requests are answered though the backend closes each connection without a word before."""
    backend.raw["curt"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert [main.ask("/nim/raw/curt").body for _ in range(100)] == [b"ok"] * 100


def test_broken_once(main: Site, backend: Backend) -> None:
    """A request that may change something is never asked twice."""
    backend.raw["nothing"] = b""
    before = len(backend.asked)
    assert main.ask("/nim/raw/nothing", method="POST", body=b"x").status == 502
    assert main.ask("/nim/raw/nothing", method="DELETE").status == 502
    assert [each.method for each in backend.asked[before:]] == ["POST", "DELETE"]


def test_prefix(tight: Site) -> None:
    """With a URL prefix the proxy is below it, and only there; the backend sees nothing of it."""
    for path, target in (
        ("/directAccess/v1/x", "/v1/x"),
        ("/directAccess", "/"),
        ("/directAccess/", "/"),
        ("/nim?x", "/?x"),
        ("/nim/v1/x/", "/v1/x/"),
        ("/nim//models/a/nim/", "//models/a/nim/"),
    ):
        assert echoed(tight.ask(f"/models/a{path}"))["target"] == target
        assert tight.ask(path).status == 404


def test_guarded(tight: Site, backend: Backend) -> None:
    """What the model directory's own code denies never gets as far as the backend."""
    before = len(backend.asked)
    reply = tight.ask("/models/a/directAccess/x", headers={"X-Deny": "1"})
    assert (reply.status, reply.body) == (401, b"denied")
    assert len(backend.asked) == before
    assert tight.ask("/models/a/directAccess/x").status == 200


def test_counted(main: Site) -> None:
    """What goes on to the backend is counted by mount, not by path."""
    main.ask("/nim/some/path")
    routes = json.loads(main.ask("/stats").body)["requests"]
    assert {"nim"} <= set(json.dumps(routes).replace('"', " ").split())


def test_parity(served: Models, backend: Backend) -> None:
    """The three servers answer the same, and ask the backend the same."""
    backend.raw["same"] = b"HTTP/1.1 200 OK\r\nX: 1\r\nX: 2\r\nContent-Length: 2\r\n\r\nok"
    backend.raw["odd"] = b"HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n"
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("main", "/directAccess/x?y", {"method": "PUT", "body": b"abc", "headers": {"A-B": "c"}}),
        ("main", "/directAccess/raw/same", {}),
        ("main", "/directAccess/raw/odd", {}),
        ("main", "/nim/x", {"method": "HEAD"}),
        ("main", "/nim/x", {"method": "TRACE"}),
        ("main", "/nim/x", {"method": "POST", "body": b"a" * (LIMIT + 1)}),
        ("main", "/nim/x", {"headers": {"Connection": "upgrade", "Upgrade": "h2c"}}),
        ("alone", "/nim/x", {"method": "OPTIONS"}),
        ("alone", "/nim/x", {"method": "HEAD"}),
        ("refused", "/nim/x", {}),
        ("tight", "/models/a/nim/silent", {}),
    ]

    def answers(server: str) -> list[Any]:
        found = []
        for variant, target, options in asked:
            reply = served.site(server, variant).ask(
                target,
                **{**options, "headers": {"X-Request-ID": "same", **options.get("headers", {})}},
            )
            headers = sorted(pair for pair in reply.headers if pair[0] not in OWN)
            body = re.sub(rb"localhost:\d+", b"", reply.body)
            try:
                got = json.loads(body)
                got["headers"] = sorted(got.get("headers", []))
            except ValueError:
                got = body
            lengths = variant == "refused"  # the ports differ
            found.append(
                (
                    target,
                    reply.status,
                    [h for h in headers if not (lengths and h[0] == "content-length")],
                    got,
                )
            )
        return found

    flask, gunicorn, fastapi = map(answers, SERVERS)
    assert gunicorn == flask
    assert fastapi == flask
