"""What goes into a model and what comes out, whichever way it came and goes."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Payload:
    """Data to predict from, as a client sent it or as a file holds it."""

    data: bytes
    content_type: str = "text/csv"
    """A media type, with parameters or without: `text/csv; charset=utf-8`."""
    columns: bytes | None = None
    """Names of the columns of sparse data, one a line."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Checked predictions: as many as there were rows."""

    values: list[Any]
    """Per row: a number, a text, or `{label: number}`."""
    extra: dict[str, list[Any]] = field(default_factory=dict)
    """Further columns that the model returned, each as long as `values`."""


@dataclass(frozen=True, slots=True)
class Unstructured:
    """What an unstructured model answered."""

    data: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Table:
    """What a transform answered."""

    data: bytes
    content_type: str
