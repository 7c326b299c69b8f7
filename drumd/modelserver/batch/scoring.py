"""Scoring a file: chunk by chunk through the model, in order."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from drumd.config.modelserver.target import TargetType
from drumd.modelserver.batch.answers import (
    Answer,
    Answers,
    Predicted,
    Transformed,
    Unstructured,
)
from drumd.modelserver.batch.chunks import Chunk, Input, known_suffixes
from drumd.modelserver.batch.errors import BatchError, BatchUsageError
from drumd.modelserver.batch.resultfile import ResultFile
from drumd.modelserver.batch.tables import TableWriter
from drumd.modelserver.batch.wording import unreadable
from drumd.modelserver.batch.writers import WRITERS
from drumd.modelserver.errors import HookError, RequestError
from drumd.modelserver.inference.blame import user_traceback
from drumd.modelserver.inference.model import Model

CHUNK_ROWS = 10_000
"""Rows of a chunk, if nobody says otherwise: what a client may well send at once."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is."""

    rows: int
    seconds: float
    share: float | None
    """What part of the input has been scored, 0 to 1; None where nobody knows."""


class Scoring:
    """One file through one model; `rows` are those of a chunk, if somebody says how many."""

    def __init__(self, model: Model, source: Input, suffix: str, rows: int | None) -> None:
        self._model = model
        self._source = source
        self._suffix = suffix
        self._rows = rows
        self._check()

    def run(self, result: ResultFile) -> Iterator[Progress]:
        """Write the results, and yield after each chunk.

        Raise `BatchError` that names the rows which the model cannot score.
        """
        began = time.monotonic()
        answers = self._answers()
        rows = 0
        for chunk in self._chunks():
            answer = self._scored(chunk, answers)
            result.write(answer.data)
            rows += answer.rows
            yield Progress(rows, time.monotonic() - began, chunk.share)
        result.write(answers.end())

    def _check(self) -> None:
        """Raise `BatchUsageError` for what no row could change."""
        kind = self._model.target.type
        hooks = self._model.hooks
        if kind is TargetType.TEXT_GENERATION and "chat" in hooks and "score" not in hooks:
            raise BatchUsageError(
                "cannot score a file: the model has the hook chat and no score, and a chat is no "
                "table; use `drumd server` and /chat/completions"
            )
        if kind is TargetType.UNSTRUCTURED:
            return
        if self._source.suffix not in known_suffixes() and "read_input_data" not in hooks:
            raise BatchUsageError(
                f"cannot read {self._source.name}: its suffix {self._source.suffix!r} is none of "
                f"{', '.join(known_suffixes())}, and custom.py has no read_input_data"
            )
        if kind is not TargetType.TRANSFORM and self._suffix not in WRITERS:
            raise BatchUsageError(
                f"cannot write predictions into a file with the suffix {self._suffix!r}; let "
                f"--output end with {', '.join(WRITERS)}"
            )

    def _chunks(self) -> Iterator[Chunk]:
        if is_taken_whole(self._model, self._source, self._rows):
            try:
                payload = self._source.whole()
            except OSError as error:
                raise BatchError(
                    f"cannot read {self._source.name}: {error.strerror or error}"
                ) from error
            return iter([Chunk(1, None, payload, 1.0)])
        return self._source.chunks(self._rows or CHUNK_ROWS)

    def _answers(self) -> Answers:
        model = self._model
        if model.target.type is TargetType.UNSTRUCTURED:
            return Unstructured(model)
        if model.target.type is TargetType.TRANSFORM:
            return Transformed(model, TableWriter(self._suffix))
        return Predicted(model, WRITERS[self._suffix](model.target))

    def _scored(self, chunk: Chunk, answers: Answers) -> Answer:
        try:
            return answers.to(chunk)
        except (RequestError, HookError, BatchError) as error:
            part = f"{chunk.where} of {self._source.name}"
            raise BatchError(
                unreadable(error, self._source.name, part) or f"cannot score {part}: {error}",
                _traceback(error, self._model),
            ) from error


def is_taken_whole(model: Model, source: Input, rows: int | None = None) -> bool:
    """Say whether the model gets a file as one piece.

    A model that reads the data itself (`read_input_data`) knows alone where they may be cut, unless
    `rows` says that they may, in a format that can be.
    """
    if model.target.type is TargetType.UNSTRUCTURED:
        return True
    if "read_input_data" not in model.hooks:
        return False
    return rows is None or source.suffix not in known_suffixes()


def _traceback(error: Exception, model: Model) -> str:
    """Return the traceback of the model's own code, if it was that which raised."""
    cause = error.__cause__
    return "" if cause is None else user_traceback(cause, model.settings.code_dir)
