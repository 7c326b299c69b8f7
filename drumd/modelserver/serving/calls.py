"""A request and its answer, as no framework's."""

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from time import monotonic
from typing import Any, Protocol
from urllib.parse import parse_qsl
from uuid import uuid4

from drumd.modelserver import jsonbytes
from drumd.modelserver.errors import HookError, RequestError

JSON = "application/json"
REQUEST_ID = "x-request-id"
EXCHANGE = "drumd.exchange"
"""The key of the request's `Exchange` in a WSGI environ or an ASGI scope."""
_ID_LENGTH = 128
_ID_CHARACTERS = frozenset(string.ascii_letters + string.digits + string.punctuation)
_FIELDS = 1000
"""Fields that a query may have."""


@dataclass(slots=True)
class Exchange:
    """What is noted of one request, from its first byte to the last one of its answer."""

    method: str
    route: str
    """The route's name; `none` where the path leads nowhere."""
    request_id: str
    started: float = field(default_factory=monotonic)
    broken: Exception | None = None
    """What ended the answer before its time; it must not seem to have come to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request whose body is there."""

    method: str
    path: str
    query_string: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name in lower case; the values of one that came repeatedly are joined by commas."""
    body: bytes = b""
    request_id: str = ""

    @property
    def content_type(self) -> str:
        """Return the body's media type with its parameters; nothing where the client said none."""
        return self.headers.get("content-type", "").strip()

    def query(self) -> dict[str, str]:
        """Return the query's fields; of one that came repeatedly, the last."""
        try:
            return dict(
                parse_qsl(
                    self.query_string.decode("latin-1"),
                    keep_blank_values=True,
                    max_num_fields=_FIELDS,
                )
            )
        except ValueError:
            raise RequestError(
                f"cannot read the query: it has more than {_FIELDS} fields"
            ) from None


class Events(Protocol):
    """An answer's body that comes piece by piece."""

    def __iter__(self) -> Iterator[bytes]: ...

    def __next__(self) -> bytes: ...

    def close(self) -> None:
        """End the source, whether it was read to its end or not; may be called repeatedly."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to be sent."""

    body: bytes | Events
    status: int = HTTPStatus.OK
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(value: Any, status: int = HTTPStatus.OK) -> Answer:
    """Return an answer with `value` as JSON."""
    return Answer(jsonbytes.dumps(value), status)


def hook_json(value: Any, hook: str) -> bytes:
    """Return what a hook returned as JSON; raise `HookError` when it cannot be that."""
    try:
        return jsonbytes.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise HookError(
            hook, f"cannot answer: what {hook} returned cannot be written as JSON: {error}"
        ) from error


def error_answer(message: str, status: int, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer that says what went wrong, in the one form that all errors have."""
    return Answer(jsonbytes.dumps({"message": f"ERROR: {message}"}), status, JSON, headers or {})


def request_id(given: str | None) -> str:
    """Return the id that a client gave if it can be echoed and logged as it is; else a new one."""
    if given and len(given) <= _ID_LENGTH and _ID_CHARACTERS.issuperset(given):
        return given
    return uuid4().hex
