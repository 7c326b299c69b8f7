"""Checking what a hook returned, and making plain values of it."""

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.errors import HookError
from drumd.modelserver.inference.labels import assigned, matched
from drumd.modelserver.inference.plain import plain_column
from drumd.modelserver.inference.running import cannot
from drumd.modelserver.payload import Predictions
from drumd.modelserver.shown import kind_of, quoted, short, some_of

_DEFAULT_NAME = "Predictions"
_SUM_TOLERANCE = 1e-3
"""Of float32 and float16 models, and of probabilities that were rounded."""
_RANGE_TOLERANCE = 1e-6
_TWO_DIMENSIONS = 2


class Checker:
    """Knows what a model with this target must return."""

    def __init__(self, target: Target, classes: Sequence[Any] | None = None) -> None:
        """Take the target, and the model's own classes, which name columns that have no names."""
        self._target = target
        found = None if classes is None else matched(classes, target.labels)
        # A class may be written otherwise than its label: 1.0, or True for "1".
        self._unnamed = [found[each] for each in classes or ()] if found else list(target.labels)

    def frame(self, hook: str, returned: Any) -> pd.DataFrame:
        """Return what a hook returned as a DataFrame with named columns; raise `HookError`."""
        if returned is None:
            self._fail(hook, "returned None", "it may lack its return")
        if hasattr(returned, "to_pandas"):  # Arrow, Polars …
            returned = returned.to_pandas()
        if isinstance(returned, pd.DataFrame):
            return returned
        if isinstance(returned, pd.Series):
            return self._named(hook, returned.to_numpy())
        if hasattr(returned, "toarray"):
            return self._named(hook, returned.toarray())
        if isinstance(returned, list) and returned and all(isinstance(it, dict) for it in returned):
            return pd.DataFrame(returned)
        if isinstance(returned, list | tuple) or hasattr(returned, "__array__"):
            try:
                array = np.asarray(returned)
            except (ValueError, TypeError) as error:
                self._fail(hook, f"returned {kind_of(returned)} that is no table: {error}")
            return self._named(hook, array)
        return self._fail(hook, f"returned {kind_of(returned)}")

    def predictions(self, hook: str, returned: Any, rows: int | None) -> Predictions:
        """Return checked predictions for `rows` rows (None: unknown); raise `HookError`."""
        frame = self.frame(hook, returned)
        if rows is not None and len(frame) != rows:
            self._fail(hook, f"returned {len(frame)} rows for {rows}", f"expected {rows}")
        names = list(frame.columns)
        if len(set(map(str, names))) != len(names):
            self._fail(hook, f"returned columns of the same name: {quoted(names)}")
        if self._target.type.has_labels:
            return self._labelled(hook, frame)
        column = self._value_column(hook, names)
        if self._target.type is TargetType.TEXT_GENERATION:
            values: list[Any] = self._texts(hook, frame[column])
        else:
            values = self._numbers(hook, _only(frame, column))[:, 0].tolist()
        return Predictions(values, _extra(frame, {column}))

    def _labelled(self, hook: str, frame: pd.DataFrame) -> Predictions:
        labels = self._target.labels
        names = list(frame.columns)
        found = assigned(names, labels)
        is_binary = self._target.type is TargetType.BINARY
        if is_binary and len(names) == 1 and found.get(names[0]) != labels[1]:
            positive = self._probabilities(hook, frame)
            matrix = np.column_stack([positive, 1.0 - positive])
            return Predictions(_rows(labels, matrix))
        missing = [label for label in labels if label not in found.values()]
        if missing:
            unexpected = [name for name in names if name not in found]
            also = f" and has {quoted(unexpected)} instead" if unexpected else ""
            self._fail(hook, f"returned no column for {quoted(missing)}{also}")
        # Of all columns at once, and put in order then: to select columns is slow in pandas.
        of_labels = frame if len(found) == len(names) else frame[list(found)]
        place = {found[name]: index for index, name in enumerate(of_labels.columns)}
        matrix = self._probabilities(hook, of_labels)[:, [place[label] for label in labels]]
        if self._target.type is not TargetType.MULTILABEL:
            self._check_sums(hook, matrix)
        return Predictions(_rows(labels, matrix), _extra(frame, set(found)))

    def _probabilities(self, hook: str, frame: pd.DataFrame) -> Any:
        matrix = self._numbers(hook, frame)
        outside = (matrix < -_RANGE_TOLERANCE) | (matrix > 1 + _RANGE_TOLERANCE)
        if outside.any():
            row, column = np.argwhere(outside)[0]
            self._fail(
                hook,
                f"returned {matrix[row, column]:g} for {str(frame.columns[column])!r} in row {row}",
                "expected probabilities from 0 to 1",
            )
        return np.clip(matrix, 0.0, 1.0)

    def _check_sums(self, hook: str, matrix: Any) -> None:
        sums = matrix.sum(axis=1)
        wrong = np.abs(sums - 1) > _SUM_TOLERANCE
        if wrong.any():
            row = int(np.argmax(wrong))
            self._fail(
                hook,
                f"returned probabilities that sum to {sums[row]:g} in row {row}",
                "expected them to sum to 1",
            )

    def _numbers(self, hook: str, frame: pd.DataFrame) -> Any:
        if any(dtype.kind == "c" for dtype in frame.dtypes):  # numpy would drop what is imaginary
            self._not_numbers(hook, frame)
        try:
            matrix = frame.to_numpy(dtype=float)
        except (ValueError, TypeError):
            self._not_numbers(hook, frame)
        finite = np.isfinite(matrix)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            self._fail(
                hook,
                f"returned {matrix[row, column]} for {str(frame.columns[column])!r} in row {row}",
                "expected finite numbers",
            )
        return matrix

    def _not_numbers(self, hook: str, frame: pd.DataFrame) -> NoReturn:
        for name, column in frame.items():
            for row, value in enumerate(column):
                try:
                    float(value)
                except (ValueError, TypeError):
                    self._fail(
                        hook,
                        f"returned {short(value)} for {str(name)!r} in row {row}",
                        "expected numbers",
                    )
        self._fail(hook, "returned what cannot be made numbers", "expected numbers")

    def _texts(self, hook: str, column: pd.Series) -> list[str]:
        values = column.tolist()
        for row, value in enumerate(values):
            if not isinstance(value, str):
                self._fail(hook, f"returned {short(value)} in row {row}", "expected text")
        return [str(value) for value in values]

    def _value_column(self, hook: str, names: list[Any]) -> Any:
        if len(names) == 1:
            return names[0]
        for wanted in (self._target.name, _DEFAULT_NAME):
            if wanted in names:
                return wanted
        return self._fail(hook, f"returned the columns {quoted(names)}")

    def _named(self, hook: str, array: Any) -> pd.DataFrame:
        """Return an array as a DataFrame; its columns are those of the model's classes."""
        if array.ndim == 1 and array.dtype.names:  # each row is a record
            return pd.DataFrame(array)
        if array.ndim == 1:
            array = array.reshape(-1, 1)
        if array.ndim != _TWO_DIMENSIONS:
            self._fail(hook, f"returned {kind_of(array)} of {array.ndim} dimensions")
        columns = array.shape[1]
        if not self._target.type.has_labels:
            names = [self._target.name]
        elif columns == 1 and self._target.type is TargetType.BINARY:
            names = [self._target.labels[0]]
        else:
            names = self._unnamed
        if columns != len(names):
            self._fail(hook, f"returned {columns} columns without names")
        return pd.DataFrame(array, columns=names)

    def _fail(self, hook: str, what: str, expected: str = "") -> NoReturn:
        raise HookError(hook, f"{cannot(hook)} {what}; {expected or self._expected()}")

    def _expected(self) -> str:
        labels = some_of(self._target.labels)
        match self._target.type:
            case TargetType.BINARY:
                return (
                    f"expected columns for the labels {labels}, "
                    f"or one with the probability of {self._target.labels[0]}"
                )
            case TargetType.MULTICLASS | TargetType.MULTILABEL:
                return f"expected a column for each of the labels {labels}"
            case TargetType.TEXT_GENERATION:
                return f"expected one column of texts, or one called {self._target.name!r}"
            case _:
                return f"expected one column of numbers, or one called {self._target.name!r}"


def _only(frame: pd.DataFrame, column: Any) -> pd.DataFrame:
    return frame if len(frame.columns) == 1 else frame[[column]]


def _rows(labels: Sequence[str], matrix: Any) -> list[Any]:
    return [dict(zip(labels, row, strict=True)) for row in matrix.tolist()]


def _extra(frame: pd.DataFrame, used: set[Any]) -> dict[str, list[Any]]:
    if len(frame.columns) == len(used):
        return {}
    return {str(name): plain_column(frame[name]) for name in frame.columns if name not in used}
