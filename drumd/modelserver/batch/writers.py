"""Predictions as rows of a CSV, of JSON, or of JSON Lines."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from drumd.config.modelserver.target import Target
from drumd.modelserver.batch.errors import BatchError
from drumd.modelserver.jsonbytes import dumps
from drumd.modelserver.payload import Predictions


class Writer(Protocol):
    """Makes bytes of predictions, chunk by chunk."""

    def add(self, predictions: Predictions) -> bytes:
        """Return what is to be written for some more rows."""

    def end(self) -> bytes:
        """Return what is to be written after the last row."""


class Columns:
    """The columns of a result: one of the target or one a label, then the model's further ones.

    The first chunk says which; a later one with others is an error, since its rows would not fit.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self.names: list[str] | None = None

    def rows(self, predictions: Predictions) -> Iterator[Sequence[Any]]:
        """Return the rows, each in the order of `names`; raise `BatchError` when they don't fit."""
        labels = list(self._target.labels) if self._target.type.has_labels else []
        names = [*(labels or [self._target.name]), *predictions.extra]
        if self.names is None:
            self.names = names
        if names != self.names:
            raise BatchError(
                f"the model returned the columns {', '.join(names)}, and for earlier rows "
                f"{', '.join(self.names)}; return the same columns for any rows"
            )
        extras = predictions.extra.values()
        return (
            [*([value[label] for label in labels] if labels else [value]), *more]
            for value, *more in zip(predictions.values, *extras, strict=True)
        )


class CsvWriter:
    """A CSV with a header, as RFC 4180 has it, but lines end as on Linux."""

    def __init__(self, target: Target) -> None:
        self._columns = Columns(target)

    def add(self, predictions: Predictions) -> bytes:
        """Return lines; the header before the first."""
        fresh = self._columns.names is None
        rows = self._columns.rows(predictions)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if fresh:
            writer.writerow(self._columns.names or ())
        writer.writerows(rows)
        # A lone surrogate has no UTF-8; servers answer with a question mark, too.
        return text.getvalue().encode("utf-8", "replace")

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class JsonWriter:
    """A list of objects, one a row; or the objects alone, one a line, with `lines`."""

    def __init__(self, target: Target, *, lines: bool) -> None:
        self._columns = Columns(target)
        self._lines = lines
        self._began = False

    def add(self, predictions: Predictions) -> bytes:
        """Return objects."""
        rows = self._columns.rows(predictions)
        try:
            texts = [dumps(dict(zip(self._columns.names or (), row, strict=True))) for row in rows]
        except (ValueError, TypeError) as error:
            raise BatchError(f"JSON cannot hold what the model returned: {error}") from error
        if self._lines:
            return b"".join(text + b"\n" for text in texts)
        if not texts:
            return b""
        before = b",\n" if self._began else b"[\n"
        self._began = True
        return before + b",\n".join(texts)

    def end(self) -> bytes:
        """Return what closes the list."""
        if self._lines:
            return b""
        return b"\n]\n" if self._began else b"[]\n"


WRITERS: Mapping[str, Callable[[Target], Writer]] = {
    ".csv": CsvWriter,
    ".json": partial(JsonWriter, lines=False),
    ".jsonl": partial(JsonWriter, lines=True),
    ".ndjson": partial(JsonWriter, lines=True),
}
"""By the suffix of the output."""
