"""Asking an unstructured model: bytes or text in, bytes, text or JSON out."""

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from drumd.modelserver.errors import HookError
from drumd.modelserver.inference.directory import Loaded
from drumd.modelserver.inference.plain import plain
from drumd.modelserver.inference.running import cannot
from drumd.modelserver.payload import Unstructured
from drumd.modelserver.reading.mediatype import MediaType, decode
from drumd.modelserver.shown import kind_of

_HOOK = "score_unstructured"
_WITH_HOW = 2
_TEXT = "text/plain"
_BYTES = "application/octet-stream"
_JSON = "application/json"
_TEXT_SUFFIXES = ("/json", "/xml", "/javascript", "+json", "+xml")
# What may stand in a header: a hook's word must not add headers of its own.
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
_CHARSET = re.compile(r"[A-Za-z0-9._:+-]+")


def answer(
    loaded: Loaded,
    data: bytes,
    content_type: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
) -> Unstructured:
    """Return what the hook answers; raise `RequestError` for text in a wrong encoding."""
    media_type = MediaType.parse(content_type)
    returned = loaded.runner.run(
        _HOOK,
        loaded.hooks[_HOOK],
        loaded.model,
        decode(data, media_type.charset) if is_text(media_type) else data,
        query=dict(query),
        mimetype=media_type.name or None,
        charset=media_type.charset or None,
        headers=dict(headers),
    )
    return _answered(returned)


def is_text(media_type: MediaType) -> bool:
    """Return whether a hook gets the data as text: also what is JSON or XML."""
    name = media_type.name
    return name.startswith("text/") or name.endswith(_TEXT_SUFFIXES)


def _answered(returned: Any) -> Unstructured:
    mimetype = charset = None
    if isinstance(returned, tuple):
        if len(returned) != _WITH_HOW or not isinstance(returned[1], dict):
            _fail(f"returned a tuple of {len(returned)}")
        returned, how = returned
        mimetype, charset = how.get("mimetype"), how.get("charset")
        if mimetype is not None and not _is(mimetype, _MEDIA_TYPE):
            _fail(f"returned the mimetype {mimetype!r}", "expected one such as 'image/png'")
        if charset is not None and not _is(charset, _CHARSET):
            _fail(f"returned the charset {charset!r}", "expected one such as 'utf-8'")
    if isinstance(returned, bytes | bytearray | memoryview):
        suffix = f"; charset={charset}" if charset else ""
        return Unstructured(bytes(returned), f"{mimetype or _BYTES}{suffix}")
    if isinstance(returned, str):
        default = _TEXT
    elif isinstance(returned, dict | list):
        returned, default = _json(returned), _JSON
    else:
        _fail(f"returned {kind_of(returned)}")
    name = f"{mimetype or default}"
    if charset is None and (is_text(MediaType(name)) and not name.endswith("json")):
        name += "; charset=utf-8"
    elif charset is not None:
        name += f"; charset={charset}"
    return Unstructured(_encoded(returned, charset or "utf-8"), name)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except (ValueError, TypeError, RecursionError) as error:
        _fail(f"returned what cannot be JSON: {error}")


def _plain(value: Any) -> Any:
    """Return a value of numpy's as Python's, for `json`; others are refused."""
    if not hasattr(value, "dtype"):
        raise TypeError(f"{kind_of(value)} is in it")
    return plain(value)


def _encoded(text: str, charset: str) -> bytes:
    try:
        return text.encode(charset)
    except (LookupError, UnicodeError) as error:
        _fail(f"returned text that cannot be sent as {charset}: {error}")


def _is(value: Any, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _fail(what: str, expected: str = "") -> NoReturn:
    expected = expected or (
        "expected str, bytes, a dict or list (sent as JSON), "
        "or one of them with {'mimetype': …, 'charset': …} in a tuple"
    )
    raise HookError(_HOOK, f"{cannot(_HOOK)} {what}; {expected}")
