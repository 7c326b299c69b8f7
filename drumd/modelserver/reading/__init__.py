"""Reading what a client sent: one module per format, each imported when it is first needed."""

import importlib
from typing import Any

from drumd.modelserver.errors import EmptyDataError, RequestError
from drumd.modelserver.payload import Payload
from drumd.modelserver.reading.mediatype import MediaType

CSV = "text/csv"
MATRIX_MARKET = "text/mtx"
JSON = "application/json"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
ARROW_FILE = "application/vnd.apache.arrow.file"

_READERS = {
    "": "csv",
    "application/octet-stream": "csv",
    "application/csv": "csv",
    CSV: "csv",
    MATRIX_MARKET: "matrix_market",
    "application/x-matrix-market": "matrix_market",
    JSON: "json_records",
    ARROW_STREAM: "arrow",
    ARROW_FILE: "arrow",
    "application/x-apache-arrow-stream": "arrow",
    "application/x-apache-arrow-file": "arrow",
}
_KNOWN = (CSV, MATRIX_MARKET, JSON, ARROW_STREAM, ARROW_FILE)
_UNSUPPORTED = 415


def read(payload: Payload) -> Any:
    """Return a DataFrame, or a scipy sparse matrix in CSR form; raise `RequestError`."""
    media_type = MediaType.parse(payload.content_type)
    reader = format_of(media_type)
    if not payload.data or payload.data.isspace():
        raise EmptyDataError("cannot read the data: the body is empty; send rows with a header")
    try:
        module = importlib.import_module(f"{__name__}.{reader}")
    except ModuleNotFoundError as error:
        package = (error.name or reader).partition(".")[0]
        raise RequestError(
            f"cannot read data of the content type {media_type.name!r}: {package} is not "
            f"installed where the model is; send {CSV}, or run pip install 'drumd[model]' there",
            _UNSUPPORTED,
        ) from None
    return module.read(payload, media_type)


def format_of(media_type: MediaType) -> str:
    """Return the name of the reader for a content type; raise `RequestError` for an unknown one."""
    if media_type.name not in _READERS:
        raise RequestError(
            f"cannot read data of the content type {media_type.name!r}: "
            f"send {', '.join(_KNOWN[:-1])} or {_KNOWN[-1]}",
            _UNSUPPORTED,
        )
    return _READERS[media_type.name]


def is_arrow(content_type: str) -> bool:
    """Return whether a content type is one of Arrow's."""
    return _READERS.get(MediaType.parse(content_type).name) == "arrow"
