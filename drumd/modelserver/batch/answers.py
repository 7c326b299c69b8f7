"""What a model makes of a chunk, as bytes of the output: one class for each way of asking it."""

from typing import NamedTuple, Protocol

from drumd.modelserver.batch.chunks import Chunk
from drumd.modelserver.batch.tables import TableWriter
from drumd.modelserver.batch.writers import Writer
from drumd.modelserver.inference.model import Model


class Answer(NamedTuple):
    """What is to be written for a chunk."""

    rows: int
    data: bytes


class Answers(Protocol):
    """Asks the model, and writes what it says."""

    def to(self, chunk: Chunk) -> Answer:
        """Return the answer; raise `RequestError`, `HookError` or `BatchError`."""

    def end(self) -> bytes:
        """Return what is to be written after the last answer."""


class Predicted:
    """Predictions, a row for each row."""

    def __init__(self, model: Model, writer: Writer) -> None:
        self._model = model
        self._writer = writer

    def to(self, chunk: Chunk) -> Answer:
        """Predict; a hook that asks for a request's headers gets none."""
        predictions = self._model.predict(chunk.payload, headers={})
        return Answer(len(predictions.values), self._writer.add(predictions))

    def end(self) -> bytes:
        """Return what closes a list."""
        return self._writer.end()


class Transformed:
    """Tables, as many rows as before."""

    def __init__(self, model: Model, writer: TableWriter) -> None:
        self._model = model
        self._writer = writer

    def to(self, chunk: Chunk) -> Answer:
        """Transform."""
        table = self._model.transform(chunk.payload)
        return Answer(chunk.rows or 0, self._writer.add(table))

    def end(self) -> bytes:
        """Return what ends the table."""
        return self._writer.end()


class Unstructured:
    """Whatever the model answers to the file."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def to(self, chunk: Chunk) -> Answer:
        """Ask without query and headers, which a file has none of."""
        payload = chunk.payload
        answer = self._model.predict_unstructured(payload.data, payload.content_type, {}, {})
        return Answer(0, answer.data)

    def end(self) -> bytes:
        """Return nothing."""
        return b""
