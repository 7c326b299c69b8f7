"""The requests, good and bad, that every server type must answer alike."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from drumd.config.modelserver.target import TargetType
from drumd.modelserver.payload import Payload
from tests.e2e.model_servers import Asked
from tests.models import Built
from tests.models.built import (
    ARROW_FILE,
    ARROW_STREAM,
    CSV,
    JSON,
    arrow_of,
    csv_of,
    json_of,
    matrix_market_of,
)
from tests.models.hooked import FAILING_HOOKS

MAX_BODY = 200_000
_BOUNDARY = "-----here"
FORM = f"multipart/form-data; boundary={_BOUNDARY}"
Part = tuple[str, bytes]
"""A part's headers, and its content."""


def form(*parts: Part) -> bytes:
    """Return the body of a form."""
    begin = f"--{_BOUNDARY}\r\n".encode()
    bodies = [begin + f"{headers}\r\n\r\n".encode() + data + b"\r\n" for headers, data in parts]
    return b"".join(bodies) + f"--{_BOUNDARY}--\r\n".encode()


def part(name: str, data: bytes, file: str = "", content_type: str = "") -> Part:
    """Return a part of a form."""
    headers = f'Content-Disposition: form-data; name="{name}"'
    headers += f'; filename="{file}"' if file else ""
    headers += f"\r\nContent-Type: {content_type}" if content_type else ""
    return headers, data


def form_of(payload: Payload) -> bytes:
    """Return a payload as a form."""
    parts = [part("X", payload.data, "data", payload.content_type)]
    if payload.columns is not None:
        parts.append(part("X.colnames", payload.columns))
    return form(*parts)


READING = {
    path: Asked("GET", path)
    for each in ("", "/ping", "/health", "/info", "/capabilities", "/models", "/v1/models")
    for path in (each, f"{each}/")
    if path
}
"""What every model answers to."""

_ENDPOINTS = {
    TargetType.UNSTRUCTURED: ("/predictUnstructured", "/predictionsUnstructured"),
    TargetType.TRANSFORM: ("/transform",),
    TargetType.TEXT_GENERATION: ("/chat/completions", "/v1/chat/completions"),
}
_PREDICT = ("/predict", "/predictions", "/invocations")


def data_requests(built: Built) -> dict[str, Asked]:
    """Return the model's own data at each of its endpoints, and at those of other targets."""
    data, content_type = built.payload.data, built.payload.content_type
    own = _ENDPOINTS.get(built.target.type, _PREDICT)
    others = {
        path for paths in (*_ENDPOINTS.values(), _PREDICT) for path in paths if path not in own
    }
    requests = {
        f"{path}{slash}": Asked("POST", path + slash, 200, data, content_type)
        for path in own
        for slash in ("", "/")
    }
    for path in sorted(others):
        is_chat = "chat" in path
        body, body_type = (_QUESTION, JSON) if is_chat else (data, content_type)
        requests[f"wrong target: {path}"] = Asked("POST", path, 422, body, body_type)
    return requests


_QUESTION = json.dumps({"messages": [{"role": "user", "content": "hello"}]}).encode()


def table_requests(built: Built) -> dict[str, Asked]:
    """Return rows of a table, in each format and out of form."""
    frame, data = built.frame, built.payload.data

    def ask(body: bytes, content_type: str | None = CSV, status: int = 200) -> Asked:
        return Asked("POST", "/predict", status, body, content_type)

    return {
        "one row": ask(csv_of(frame.head(1)).data),
        "json": ask(json_of(frame).data, JSON),
        "arrow stream": ask(arrow_of(frame).data, ARROW_STREAM),
        "arrow file": ask(arrow_of(frame, ARROW_FILE).data, ARROW_FILE),
        "form": ask(form_of(built.payload), FORM),
        "form of a file": ask(form(part("X", data, "x.csv", "application/octet-stream")), FORM),
        "form of arrow": ask(form(part("X", arrow_of(frame).data, "x.arrow")), FORM),
        "form of json": ask(form(part("X", json_of(frame).data, "x.json")), FORM),
        "byte order mark": ask(b"\xef\xbb\xbf" + data),
        "line ends of windows": ask(data.replace(b"\n", b"\r\n")),
        "quoted": ask(quoted(data)),
        "json with a byte order mark": ask(b"\xef\xbb\xbf" + json_of(frame).data, JSON),
        "json in utf-16": ask(
            json_of(frame).data.decode().encode("utf-16"), f"{JSON}; charset=utf-16"
        ),
        "columns in another order": ask(csv_of(frame[frame.columns[::-1]]).data),
        "utf-16": ask(data.decode().encode("utf-16"), f"{CSV}; charset=utf-16"),
        "latin-1": ask(data, f"{CSV}; charset=latin-1"),
        "chunked": Asked("POST", "/predict", 200, data, CSV, chunked=True),
        "no content type": ask(data, None),
        "wrong encoding": ask(b"a,b\n\xff\xfe,1\n", status=422),
        "unknown charset": ask(data, f"{CSV}; charset=klingon", 415),
        "other columns": ask(b"colour\nred\n", status=422),
        "a header alone": ask(data.splitlines()[0] + b"\n", status=422),
        "rows of other lengths": ask(b"a,b\n1,2,3,4\n1\n", status=422),
        "empty": ask(b"", status=422),
        "spaces": ask(b"  \n ", status=422),
        "bad json": ask(b'[{"a": 1', JSON, 422),
        "deep json": ask(b"[" * 50_000, JSON, 422),
        "json of no rows": ask(b"3", JSON, 422),
        "bad arrow": ask(b"ARROW1 or not", ARROW_STREAM, 422),
        "bad matrix": ask(b"%%MatrixMarket matrix coordinate real general\n1 1\n", "text/mtx", 422),
        "unknown content type": ask(data, "application/x-parquet", 415),
        "no media type at all": ask(data, "csv", 415),
        "random bytes": ask(bytes(range(256)) * 4, status=422),
    }


SAME_ROWS = (
    "form", "form of a file", "byte order mark", "line ends of windows", "quoted", "utf-16",
    "latin-1", "chunked", "no content type",
)  # fmt: skip
"""Requests of `table_requests` that send the rows of `/predict` in another way."""


def quoted(data: bytes) -> bytes:
    """Return a CSV with quotes around each of its fields."""
    lines = (b",".join(b'"%b"' % field for field in line.split(b",")) for line in data.splitlines())
    return b"\n".join(lines)


def transform_requests(built: Built) -> dict[str, Asked]:
    """Return a table, and a sparse matrix, in each format and out of form."""
    frame = built.frame

    def ask(payload: Payload, path: str = "/transform", status: int = 200) -> Asked:
        return Asked("POST", path, status, payload.data, payload.content_type)

    matrix, named = matrix_market_of(frame), matrix_market_of(frame, list(frame.columns))
    return {
        "json": ask(json_of(frame)),
        "arrow stream": ask(arrow_of(frame)),
        "arrow file": ask(arrow_of(frame, ARROW_FILE), "/transform/"),
        "matrix": ask(matrix),
        "matrix, slash": ask(matrix, "/transform/"),
        "form": ask(Payload(form_of(built.payload), FORM)),
        "form of arrow": ask(Payload(form_of(arrow_of(frame)), FORM)),
        "form of a matrix": ask(Payload(form_of(matrix), FORM)),
        "form of a matrix with names": ask(Payload(form_of(named), FORM)),
        "names for another matrix": ask(
            Payload(form_of(replace(named, columns=b"a")), FORM), status=422
        ),
        "other columns": ask(Payload(b"a,b\n1\n", CSV), status=422),
        "unknown content type": ask(Payload(b"a,b\n1,2\n", "image/png"), status=415),
    }


def hook_requests(built: Built) -> dict[str, Asked]:
    """Return bytes of no format that drumd knows, and those that each hook fails for."""
    data = built.payload.data

    def ask(body: bytes, status: int = 200, content_type: str | None = None) -> Asked:
        return Asked("POST", "/predictions", status, body, content_type)

    return {
        "any type": ask(data, 200, "image/png"),
        "no type": ask(data),
        "csv that is none": ask(data, 200, CSV),
        "form": ask(form(part("X", data, "x.png", "image/png")), 200, FORM),
        "form without X": ask(form(part("Y", data)), 422, FORM),
        **{hook: ask(hook.encode(), 500) for hook in FAILING_HOOKS},
        **{f"{hook}, own status": ask(f"{hook} 451".encode(), 451) for hook in FAILING_HOOKS},
    }


def protocol_requests(data: bytes) -> dict[str, Asked]:
    """Return what HTTP allows, asked of a regression with `data` as CSV."""

    def ask(body: bytes, content_type: str | None = CSV, status: int = 200, **more: str) -> Asked:
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        return Asked("POST", "/predict", status, body, content_type, headers)

    def formed(*parts: Part, status: int = 422) -> Asked:
        return ask(form(*parts), FORM, status)

    with_id = {"X-Request-ID": "abc-123"}
    return {
        "HEAD /ping": Asked("HEAD", "/ping"),
        "HEAD /info/": Asked("HEAD", "/info/"),
        "HEAD /predict": Asked("HEAD", "/predict", 405),
        "GET /predict": Asked("GET", "/predict", 405),
        "PUT /predict/": Asked("PUT", "/predict/", 405, data),
        "POST /ping": Asked("POST", "/ping", 405, data),
        "DELETE /": Asked("DELETE", "/", 405),
        "PATCH /v1/models": Asked("PATCH", "/v1/models", 405, data),
        "OPTIONS /predict": Asked("OPTIONS", "/predict", 405),
        "OPTIONS /ping": Asked("OPTIONS", "/ping", 405),
        "TRACE /ping": Asked("TRACE", "/ping", 405),
        "unknown method": Asked("BREW", "/ping", 405),
        "not there": Asked("GET", "/pinguin", 404, headers=with_id),
        "not there, POST": Asked("POST", "/predict/it", 404, data),
        "not there, in other letters": Asked("GET", "/Ping", 404),
        "not there, beyond ASCII": Asked("GET", "/p%C3%AFng/%E6%97%A5", 404),
        "not there, no UTF-8": Asked("GET", "/%ff%fe", 404),
        "not there, with a query": Asked("GET", "/pong?ping=1", 404),
        "not there, long": Asked("GET", f"/{'x' * 3000}", 404),
        "static": Asked("GET", "/static/custom.py", 404),
        "up and out": Asked("GET", "/../custom.py", 404),
        "two slashes at the end": Asked("GET", "/ping//", 404),
        "two slashes at the front": Asked("GET", "//ping", 200),
        "slash by its number": Asked("GET", "/ping%2F", 200),
        "letter by its number": Asked("GET", "/p%69ng", 200),
        "query": Asked("GET", "/ping?x=1&y", 200),
        "openapi": Asked("GET", "/openapi.json", 404),
        "docs": Asked("GET", "/docs", 404),
        "redoc": Asked("GET", "/redoc", 404),
        "id": ask(data, X_Request_ID="abc-123"),
        "id of an error": ask(b"", status=422, X_Request_ID="abc-123"),
        "id of 405": Asked("GET", "/predict", 405, headers=with_id),
        "id at its longest": ask(data, X_Request_ID="x" * 128),
        "id too long": ask(data, X_Request_ID="x" * 129),
        "id with a space": ask(data, X_Request_ID="a b"),
        "id beyond ASCII": ask(data, X_Request_ID="\xe4"),
        "empty id": ask(data, X_Request_ID=""),
        "gzip": ask(gzip.compress(data, mtime=0), status=415, Content_Encoding="gzip"),
        "identity": ask(data, Content_Encoding="identity"),
        "gzip is accepted": ask(data, Accept_Encoding="gzip"),
        "large": ask(b"mood\nfine\n" + b"x" * (MAX_BODY - 10)),
        "too large": ask(b"x" * (MAX_BODY + 1), status=413, X_Request_ID="abc-123"),
        "far too large": ask(b"x" * (40 * MAX_BODY), status=413),
        "chunked": Asked("POST", "/predict", 200, data, CSV, chunked=True),
        "chunked, too large": Asked("POST", "/predict", 413, b"x" * (MAX_BODY + 1), CSV, {}, True),
        "chunked, far too large": Asked("POST", "/predict", 413, b"x" * 2**23, CSV, {}, True),
        "chunked, empty": Asked("POST", "/predict", 422, b"", CSV, chunked=True),
        "empty, no content type": ask(b"", None, 422),
        "form without X": formed(part("Y", data), part("Zörn", data)),
        "form of nothing": formed(),
        "form with X twice": formed(part("X", data), part("X", b"colour\nred\n"), status=200),
        "form with more fields": formed(part("y", b"1"), part("X", data), status=200),
        "form with too many fields": formed(*[part(f"f{n}", b"") for n in range(200)]),
        "form with an empty X": formed(part("X", b"")),
        "form of an unknown type": formed(part("X", data, "x", "image/png"), status=415),
        "form of a charset": formed(part("X", data, "x", f"{CSV}; charset=latin-1"), status=200),
        "form without a name": formed(("Content-Type: text/csv", data)),
        "form without headers": formed(("", data)),
        "form with a bad header": formed(("b\xe4d header", data)),
        "form cut off": ask(form(part("X", data))[:-10], FORM, 422),
        "form cut off in its headers": ask(form(part("X", data))[:40], FORM, 422),
        "form of garbage": ask(b"no form\r\n at all", FORM, 422),
        "form, empty": ask(b"", FORM, 422),
        "form without a boundary": ask(data, "multipart/form-data", 422),
        "form with a long boundary": ask(data, f"multipart/form-data; boundary={'x' * 300}", 422),
        "form in other letters": ask(form(part("X", data)), FORM.replace("m", "M", 1)),
        "multipart, no form": ask(form(part("X", data)), FORM.replace("form-data", "mixed"), 415),
    }


def mood_requests(moods: Mapping[str, int]) -> dict[str, Asked]:
    """Return one request for each mood of the moody model, by its status."""
    return {
        f"mood: {mood}": Asked("POST", "/predict", status, f"mood\n{mood}\n{mood}\n".encode(), CSV)
        for mood, status in moods.items()
    }


BREAKING_STREAMS = {
    "raise later": "cannot answer: chat in custom.py raised ValueError: no such word",
    "status later": "pay now",
    "no json later": "cannot answer: what chat returned cannot be written as JSON: ",
}
"""Messages after whose first chunk the chat fails, and what the last event begins with."""


def chat_requests() -> dict[str, Asked]:
    """Return chats, streamed and not, good and bad."""

    def ask(text: str, status: int = 200, **more: object) -> Asked:
        question = {"messages": [{"role": "user", "content": text}], **more}
        return Asked("POST", "/v1/chat/completions", status, json.dumps(question).encode(), JSON)

    def raw(body: bytes, content_type: str | None = JSON, status: int = 422) -> Asked:
        return Asked("POST", "/chat/completions", status, body, content_type)

    good = b'{"messages": [{"role": "user", "content": "hi"}]}'
    return {
        "completion": ask("hello grün 日本"),
        "no stream": ask("hello", stream=False),
        "stream": ask("hello grün 日本", stream=True),
        "stream of many": ask("word " * 500, stream=True),
        "raises": ask("raise", 500),
        "raises in a stream": ask("raise", 500, stream=True),
        **{f"stream: {text}": ask(text, 200, stream=True) for text in BREAKING_STREAMS},
        "own status": ask("own status", 402),
        "own status in a stream": ask("own status", 402, stream=True),
        "models": Asked("GET", "/models"),
        "v1 models": Asked("GET", "/v1/models/"),
        "HEAD models": Asked("HEAD", "/v1/models"),
        "GET chat": Asked("GET", "/v1/chat/completions", 405),
        "no content type": raw(good, None, 200),
        "json with a charset": raw(good, f"{JSON}; charset=utf-8", 200),
        "problem json": raw(good, "application/vnd.x+json", 200),
        "of a web form": raw(b"a=b", "application/x-www-form-urlencoded", 415),
        "csv": raw(b"a,b\n1,2\n", CSV, 415),
        "empty": raw(b""),
        "bad json": raw(b'{"messages": ['),
        "no utf-8": raw(b'{"messages": "\xff"}'),
        "deep": raw(b'{"messages":' * 50_000),
        "long number": raw(b'{"messages": ' + b"1" * 5000 + b"}"),
        "array": raw(b"[]"),
        "string": raw(b'"x"'),
        "null": raw(b"null"),
        "no messages": raw(b"{}"),
        "messages of no use": raw(b'{"messages": [1]}'),
        "stream of no use": raw(b'{"messages": [{"role": "user"}], "stream": "yes"}'),
    }


def unstructured_requests() -> dict[str, Asked]:
    """Return what an unstructured model is asked for, in the ways that it can answer."""

    def ask(path: str, status: int = 200, content_type: str | None = "text/plain") -> Asked:
        headers = {"X-Colour": "red", "X-Request-ID": "abc-123"}
        return Asked("POST", f"/predictUnstructured{path}", status, b"hello", content_type, headers)

    def sent(field: Part, status: int = 200) -> Asked:
        return Asked("POST", "/predictUnstructured?as=json", status, form(field), FORM)

    ways: Sequence[str] = ("text", "bytes", "json", "html", "png", "header")
    return {
        **{f"as {way}": ask(f"?as={way}") for way in ways},
        "as nothing": ask("?as=nothing", 500),
        "as what raises": ask("?as=broken", 500),
        "query twice": ask("?as=png&as=json&x=%C3%A4&y=a+b&z"),
        "query of no UTF-8": ask("?as=json&x=%ff"),
        "query of many fields": ask("?" + "a&" * 1100, 422),
        "bytes": ask("/?as=json", 200, "application/x-anything"),
        "form": sent(part("X", b"hello", "hello.txt", "text/plain")),
        "form of bytes": sent(part("X", b"\x89PNG", "hello.png", "image/png")),
        "form without X": sent(part("Y", b"hello"), 422),
        "no content type": ask("?as=json", 200, None),
        "empty": Asked("POST", "/predictUnstructured?as=json", 200, b"", "text/plain"),
        "wrong encoding": Asked("POST", "/predictUnstructured", 422, b"\xff", "text/plain"),
        "gzip": Asked(
            "POST",
            "/predictUnstructured?as=bytes",
            200,
            b"\x1f\x8b",
            "application/octet-stream",
            {"Content-Encoding": "gzip"},
        ),
    }
