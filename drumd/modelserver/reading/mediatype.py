"""A content type, and the text that a body holds according to it."""

import codecs
import re
from dataclasses import dataclass
from typing import Self

from drumd.modelserver.errors import EncodingError, RequestError

_CHARSET = re.compile(r"""charset\s*=\s*["']?([^"';]*)""", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9._:+-]{1,40}")
# Codecs of Python that are no charsets of text on the net; idna and punycode take quadratic time.
_NOT_FOR_BODIES = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"}
_UNSUPPORTED = 415


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type in lower case without its parameters, and its charset."""

    name: str
    charset: str = ""

    @classmethod
    def parse(cls, content_type: str) -> Self:
        """Split the value of a Content-Type header."""
        name, _, parameters = content_type.partition(";")
        charset = _CHARSET.search(parameters)
        return cls(name.strip().lower(), charset[1].strip() if charset else "")


def decode(data: bytes, charset: str = "") -> str:
    """Return `data` as text, without a byte order mark; UTF-8 unless `charset` names another.

    Raises `RequestError` if the charset is unknown (415) or the bytes are not of it.
    """
    codec = codec_of(charset)
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        at, name = error.start, charset or "UTF-8"
        told, fact = error.reason, f"it is not {name}"
        if at < len(data):
            byte = f"0x{data[at]:02x}"
            told, fact = f"byte {at} ({byte}) is not valid", f"the byte {byte} is not {name}"
        raise EncodingError(
            f"cannot read the data as {name}: {told}; "
            "send UTF-8, or name the charset in the content type",
            fact,
        ) from None
    except (UnicodeError, ValueError) as error:
        raise RequestError(f"cannot read the data as {charset or 'UTF-8'}: {error}") from None
    return text.removeprefix("\ufeff")


def codec_of(charset: str) -> str:
    """Return the name of Python's codec for a charset, UTF-8 for none; raise `RequestError`."""
    if not charset:
        return "utf-8"
    try:
        codec = codecs.lookup(charset) if _NAME.fullmatch(charset) else None
    except (LookupError, ValueError):
        codec = None
    # bytes.decode refuses base64, zlib and the like by the same mark.
    if codec is None or not codec._is_text_encoding or codec.name in _NOT_FOR_BODIES:  # noqa: SLF001 - there is no public name for it
        raise RequestError(
            f"cannot read the data: the charset {charset!r} is not known; send UTF-8", _UNSUPPORTED
        )
    return codec.name
