"""Forms: the field `X` of a multipart body."""

import logging
from collections.abc import Mapping
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from drumd.modelserver import reading
from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload

MEDIA_TYPE = "multipart/form-data"
DATA = "X"
COLUMNS = "X.colnames"
_LONGEST_BOUNDARY = 200
"""RFC 2046 says 70."""
_PARTS = 100
"""Fields that a form may have: each one costs far more memory than its bytes."""
_HEADER_BYTES = 8 * 1024
"""Bytes that a field's headers may have; older parsers take any number, and square their time."""
_SHOWN = 10
_BY_SUFFIX = {
    ".csv": reading.CSV,
    ".mtx": reading.MATRIX_MARKET,
    ".json": reading.JSON,
    ".arrow": reading.ARROW_STREAM,
}
_SAYS_NOTHING = ("", "application/octet-stream", "text/plain")
"""What clients send for a file whose type they do not know."""
# The parser warns of each form that it cannot read; that is the client's business alone.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


def is_form(content_type: str) -> bool:
    """Return whether a body of this type is a multipart form."""
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


def payload_of(body: bytes, content_type: str) -> Payload:
    """Return what the form's field `X` holds; raise `RequestError` that says what came instead."""
    parts = _parts(body, content_type)
    data = _data_of(parts)
    columns = parts.get(COLUMNS)
    return Payload(
        data.content, data.media_type(), columns.content if columns is not None else None
    )


def bytes_of(body: bytes, content_type: str) -> tuple[bytes, str]:
    """Return the field `X` and its own content type; raise `RequestError` as `payload_of` does."""
    data = _data_of(_parts(body, content_type))
    return data.content, data.own_type


def _data_of(parts: Mapping[str, "_Part"]) -> "_Part":
    if DATA not in parts:
        came = ", ".join(repr(name) for name in list(parts)[:_SHOWN]) or "no field at all"
        raise RequestError(
            f"cannot find the data: the form has {came}; send the data as the field {DATA!r}"
        )
    return parts[DATA]


class _Part:
    """One field of a form."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.name: str | None = None
        self.file_name = ""
        self.pieces: list[bytes] = []

    @property
    def content(self) -> bytes:
        return b"".join(self.pieces)

    def begin(self) -> None:
        """Read the headers, which are complete."""
        disposition, options = parse_options_header(self.headers.get("content-disposition"))
        if disposition != b"form-data" or b"name" not in options:
            raise RequestError(
                "cannot read the form: a part of it has no Content-Disposition with a name"
            )
        self.name = options[b"name"].decode("utf-8", "replace")
        self.file_name = options.get(b"filename", b"").decode("utf-8", "replace")

    @property
    def own_type(self) -> str:
        """What the part itself says of its content."""
        return self.headers.get("content-type", "").strip()

    def media_type(self) -> str:
        """Return the part's own type, unless that says nothing: then what its file name tells."""
        own = self.own_type
        media_type, _, parameters = own.partition(";")
        if media_type.strip().lower() not in _SAYS_NOTHING:
            return own
        dot = self.file_name.rfind(".")
        suffix = self.file_name[dot:].lower() if dot >= 0 else ""
        found = _BY_SUFFIX.get(suffix, reading.CSV)
        return f"{found};{parameters}" if parameters else found


class _Collector:
    """Takes what the parser finds."""

    def __init__(self) -> None:
        self.parts: dict[str, _Part] = {}
        self.ended = False
        self._part = _Part()
        self._field = b""
        self._value = b""
        self._count = 0
        self._header_bytes = 0

    def callbacks(self) -> dict[str, Any]:
        """Return what the parser is to call."""
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._count += 1
        if self._count > _PARTS:
            raise RequestError(f"cannot read the form: it has more than {_PARTS} fields")
        self._part = _Part()
        self._header_bytes = 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._value += data[start:end]

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > _HEADER_BYTES:
            raise RequestError(
                f"cannot read the form: the headers of a field are larger than {_HEADER_BYTES} "
                "bytes"
            )

    def _header_end(self) -> None:
        self._part.headers[self._field.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        self._part.begin()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._part.pieces.append(data[start:end])

    def _part_end(self) -> None:
        if self._part.name is None:
            raise RequestError("cannot read the form: a part of it has no headers")
        # The first of several with one name, as every framework has it.
        self.parts.setdefault(self._part.name, self._part)

    def _end(self) -> None:
        self.ended = True


def _parts(body: bytes, content_type: str) -> Mapping[str, _Part]:
    if not body:
        raise RequestError("cannot read the form: the body is empty")
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise RequestError(
            "cannot read the form: Content-Type names no boundary; let your HTTP client set it"
        )
    if len(boundary) > _LONGEST_BOUNDARY:
        raise RequestError(
            f"cannot read the form: its boundary has {len(boundary)} bytes; "
            f"it may have {_LONGEST_BOUNDARY}"
        )
    collector = _Collector()
    if body.strip() == b"--%b--" % boundary:
        return collector.parts  # older parsers refuse it
    try:
        parser = MultipartParser(boundary, collector.callbacks())  # type: ignore[arg-type]  # a TypedDict
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(f"cannot read the form: {error}") from None
    if not collector.ended:
        raise RequestError(
            f"cannot read the form: it ends before its last boundary, after {len(body)} bytes"
        )
    return collector.parts
