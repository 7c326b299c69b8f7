"""What WSGI has to say of a request, and what is done around each of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from drumd.modelserver.errors import RequestError
from drumd.modelserver.serving.bodies import Body
from drumd.modelserver.serving.body_room import Place
from drumd.modelserver.serving.calls import EXCHANGE, REQUEST_ID
from drumd.modelserver.serving.service import Service

Environ = dict[str, Any]
_PIECE = 256 * 1024
_ID_VARIABLE = "HTTP_" + REQUEST_ID.upper().replace("-", "_")


def header_values(environ: Environ) -> Mapping[str, str]:
    """Return the request's headers by name in lower case."""
    headers = {
        key[5:].replace("_", "-").lower(): value
        for key, value in environ.items()
        if key.startswith("HTTP_")
    }
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            headers[key.replace("_", "-").lower()] = environ[key]
    return headers


def read(environ: Environ, limit: int, place: Place) -> bytes:
    """Return the body; raise `RequestError` when it is too large, or ends too early."""
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    body = Body(None if chunked else environ.get("CONTENT_LENGTH"), limit, place)
    if body.length is None and not (chunked and environ.get("wsgi.input_terminated")):
        return b""  # where it would end, nobody said
    stream = environ["wsgi.input"]
    while body.missing:
        try:
            piece = stream.read(min(body.missing, _PIECE))
        except Exception as error:
            raise RequestError(
                f"cannot read the body: it is broken ({type(error).__name__})",
                HTTPStatus.BAD_REQUEST,
            ) from error
        if not piece:
            break
        body.add(piece)
    return body.whole()


class Exchanges:
    """Around everything: gives each request its id, counts it, and echoes the id in the answer."""

    def __init__(self, app: Callable[..., Iterable[bytes]], service: Service) -> None:
        self._app = app
        self._service = service

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        exchange = self._service.began(environ["REQUEST_METHOD"], path, environ.get(_ID_VARIABLE))
        environ[EXCHANGE] = exchange
        status = HTTPStatus.INTERNAL_SERVER_ERROR.value

        def start(line: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            nonlocal status
            status = int(line[:3])
            if not any(name.lower() == REQUEST_ID for name, _ in headers):
                headers = [*headers, ("X-Request-ID", exchange.request_id)]
            return start_response(line, headers, *rest)

        try:
            pieces = self._app(environ, start)
        except BaseException:
            self._service.ended(exchange, status)
            raise
        return _Pieces(pieces, lambda: self._service.ended(exchange, status))


class _Pieces:
    """An answer's body, and what is to be done once it is complete."""

    def __init__(self, pieces: Iterable[bytes], done: Callable[[], None]) -> None:
        self._pieces = pieces
        self._done = done

    def __iter__(self) -> Iterator[bytes]:
        """Return the pieces."""
        return iter(self._pieces)

    def close(self) -> None:
        """End the body; the server calls it in any case."""
        try:
            close = getattr(self._pieces, "close", None)
            if close is not None:
                close()
        finally:
            self._done()
