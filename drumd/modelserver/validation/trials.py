"""What is tried with a sample: each answers with a step, and never raises for the model's sake."""

import csv
import io
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from drumd.modelserver.batch.records import records
from drumd.modelserver.batch.wording import unreadable
from drumd.modelserver.errors import HookError, RequestError
from drumd.modelserver.inference.blame import user_traceback
from drumd.modelserver.inference.model import Model
from drumd.modelserver.payload import Payload, Predictions
from drumd.modelserver.reading import CSV
from drumd.modelserver.validation.samples import Sample
from drumd.modelserver.validation.steps import Step, failed, ok, skipped, warning

_SAME = 1e-5
"""Relative difference that rounding in other orders may make; float32 has 7 digits."""
_FEW = 5
"""Rows from which equal predictions for all look like a mistake."""
_LONGEST = 200
"""Characters of a message that says what happened to data which were made to be odd."""
_MOST_EVENTS = 10_000
"""Events of a streamed chat that are waited for."""

Trials = Iterator[Step]


def try_predictions(model: Model, sample: Sample) -> Trials:
    """Predict from the sample: as a whole, once more, row by row, with values missing."""
    try:
        predictions = model.predict(sample.payload, headers={})
    except (RequestError, HookError) as error:
        yield _broken("predict", model, sample, error)
        return
    yield _predicted(predictions, sample)
    yield _again(model, sample, predictions)
    if sample.alone:
        yield _alone(model, sample, predictions)
    if sample.payload.content_type == CSV and "read_input_data" not in model.hooks:
        yield _missing(model, sample)


def try_transform(model: Model, sample: Sample) -> Trials:
    """Transform the sample."""
    try:
        table = model.transform(sample.payload)
        again = model.transform(sample.payload)
    except (RequestError, HookError) as error:
        yield _broken("transform", model, sample, error)
        return
    yield ok("transform", f"{sample.origin} became {len(table.data)} bytes of {table.content_type}")
    yield _same_again(again == table)


def try_unstructured(model: Model, sample: Sample) -> Trials:
    """Let an unstructured model answer."""
    payload = sample.payload
    try:
        answers = [
            model.predict_unstructured(payload.data, payload.content_type, {}, {}) for _ in range(2)
        ]
    except (RequestError, HookError) as error:
        yield _broken("predictUnstructured", model, sample, error)
        return
    answer = answers[0]
    yield ok(
        "predictUnstructured",
        f"{sample.origin} became {len(answer.data)} bytes of {answer.content_type}",
    )
    yield _same_again(answers[0] == answers[1])


def try_chat(model: Model) -> Trials:
    """Say hello, and have the answer whole, then streamed."""
    try:
        named = [str(each.get("id", "")) for each in model.supported_models()]
        question = {
            "model": next(iter(named), "") or "model",
            "messages": [{"role": "user", "content": "Hello"}],
        }
        yield _chatted("chat", model.chat(question, headers={}))
        yield _chatted("chat, streamed", model.chat({**question, "stream": True}, headers={}))
    except (RequestError, HookError) as error:
        yield failed(
            "chat",
            str(error),
            "chat(completion_create_params, model) gets what OpenAI's chat completions take",
            traceback=_traceback(model, error),
        )


def _chatted(name: str, answer: Any) -> Step:
    if isinstance(answer, dict):
        return ok(name, "answered with a completion")
    events = sum(1 for _ in islice(answer, _MOST_EVENTS))
    if not events:
        return failed(name, "the stream has no events", "yield at least one chunk")
    return ok(name, f"answered with {events} events")


def _predicted(predictions: Predictions, sample: Sample) -> Step:
    values = predictions.values
    text = f"{sample.origin}: {_range(values)}"
    if predictions.extra:
        text += f"; also {', '.join(predictions.extra)}"
    if len(values) >= _FEW and not sample.made and all(value == values[0] for value in values):
        return warning(
            "predict",
            f"{text}; all predictions are equal",
            "look whether the columns reach the model as it was trained with them",
        )
    return ok("predict", text)


def _range(values: list[Any]) -> str:
    """Return what the predictions are, in a few words."""
    if not values:
        return "no predictions"
    if isinstance(values[0], dict):
        return ", ".join(
            f"{label} {_span([value[label] for value in values])}" for label in values[0]
        )
    if isinstance(values[0], str):
        return f"texts of {_span([len(value) for value in values])} characters"
    return f"numbers {_span(values)}"


def _span(numbers: list[Any]) -> str:
    return f"{min(numbers):.4g} to {max(numbers):.4g}"


def _again(model: Model, sample: Sample, first: Predictions) -> Step:
    try:
        again = model.predict(sample.payload, headers={})
    except (RequestError, HookError) as error:
        return failed(
            "same again",
            f"the same data once more: {_bounded(error)}",
            "a hook must not change the model, or what it was given",
            traceback=_traceback(model, error),
        )
    return _same_again(_like(again.values, first.values))


def _same_again(same: bool) -> Step:  # noqa: FBT001 - one value in, one out
    if same:
        return ok("same again", "the same data gets the same answer")
    return warning(
        "same again",
        "the same data got another answer",
        "set random states, unless the model is meant to be random",
    )


def _alone(model: Model, sample: Sample, whole: Predictions) -> Step:
    name = "rows alone"
    for number, payload in enumerate(sample.alone):
        try:
            values = model.predict(payload, headers={}).values
        except (RequestError, HookError) as error:
            return warning(
                name,
                f"row {number + 1} alone: {_bounded(error)}",
                "a client may well send one row; its columns have other types then, if values of "
                "other rows settled them",
            )
        if not _like(values, whole.values[number : number + 1]):
            return warning(
                name,
                f"row {number + 1} alone gets {_shown(values)}, and with others "
                f"{_shown(whole.values[number : number + 1])}",
                "do not compute from all rows of a request (means, ranks, dummies); learn such "
                "things in training",
            )
    return ok(name, f"{len(sample.alone)} rows get alone what they get with others")


def _missing(model: Model, sample: Sample) -> Step:
    name = "missing values"
    lines = records(io.BytesIO(sample.payload.data))
    header, row = next(lines, b""), next(lines, b"")
    columns = len(next(csv.reader([header.decode(errors="replace")]), []))
    blank = b",".join([b'""'] * columns) + b"\n"
    ending = b"" if row.endswith(b"\n") else b"\n"
    try:
        model.predict(
            Payload(header + row + ending + blank, sample.payload.content_type), headers={}
        )
    except RequestError as error:
        return ok(name, f"a row without values is refused: {_bounded(error)}")
    except HookError as error:
        if error.status < 500:  # noqa: PLR2004 - a client's error (RFC 9110)
            return ok(name, f"a row without values is refused: {_bounded(error)}")
        return warning(
            name,
            f"a row without values ends in an error of the server: {_bounded(error)}",
            "fill them in in transform, or raise drumd.ModelError(message, status=422) that says "
            "which columns must have a value",
        )
    return ok(name, "a row without values gets an answer")


def _broken(name: str, model: Model, sample: Sample, error: RequestError | HookError) -> Step:
    if sample.made and (isinstance(error, RequestError) or error.__cause__ is not None):
        # Numbers where the model knows texts, say: nobody can tell that from a mistake in it.
        return warning(
            name,
            f"{sample.origin}, get no answer: {_bounded(error)}",
            "give it data to try: --input FILE",
        )
    told = unreadable(error, sample.origin, sample.origin) or f"{sample.origin}: {error}"
    return failed(name, told, traceback=_traceback(model, error))


def _traceback(model: Model, error: Exception) -> str:
    cause = error.__cause__
    return "" if cause is None else user_traceback(cause, model.settings.code_dir)


def _like(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(map(_alike, some, others))


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=_SAME)


def _bounded(error: Exception) -> str:
    """Return the beginning of a message: some libraries' are essays."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _shown(values: list[Any]) -> str:
    return ", ".join(map(str, values))


def no_sample(what: str) -> Step:
    """Return what is said where there is nothing to try the model with."""
    return skipped(
        what,
        "the model does not say which columns it wants",
        "give it data to try: --input FILE",
    )
