"""JSON as every answer has it, the same bytes from each server, and as requests may have it."""

import json
import re
from typing import Any, NoReturn

from drumd.modelserver.errors import RequestError

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def loads(text: str) -> Any:
    """Parse a client's JSON strictly; raise `RequestError`.

    Python's parser also takes NaN and Infinity, and half a surrogate pair, which is no text.
    """
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise RequestError("cannot read the JSON: it is nested too deeply") from None
    except UnicodeEncodeError:
        raise RequestError("cannot read the JSON: half a surrogate pair is no text") from None
    except ValueError as error:  # also of numbers with too many digits
        raise RequestError(f"cannot read the JSON: {error}") from None
    return found


def dumps(value: Any) -> bytes:
    """Return `value` as JSON in UTF-8.

    Numbers and arrays of numpy become Python's, dates the text of ISO 8601. Raises `ValueError` for
    what JSON has no word for, such as NaN, and `TypeError` for what is no data.
    """
    # A lone surrogate has no UTF-8; it can only have come from a text that was broken before.
    return _ENCODER.encode(value).encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    """Return what Python's encoder knows, for what it does not."""
    # Asked for by its methods, since neither numpy nor pandas may be here at all.
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "model_dump"):  # pydantic's, as OpenAI's client returns them
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is no JSON")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; write null for a missing value")


# Made once: json.dumps would make one for each call with these options.
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
)
