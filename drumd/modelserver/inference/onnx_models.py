"""Predicting with onnxruntime: columns into inputs, outputs into predictions."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd

from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.errors import LoadError, RequestError
from drumd.modelserver.inference.labels import matched
from drumd.modelserver.inference.onnx_classes import class_labels, constants
from drumd.modelserver.shown import other_separator, some_of

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_NUMBERS = ("tensor(float)", "tensor(double)", "tensor(float16)")
_MAPS = "seq(map("
_COLUMN_OR_MATRIX = 2


def load(path: Path) -> Any:
    """Return a session for a model's file.

    It computes in the thread that asks: threads of a session's own do not survive the fork of a
    worker from a template, and the workers share the CPUs among them already. A `load_model` hook
    can make another session.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OnnxPredictor:
    """A session that predicts a target."""

    def __init__(self, session: Any, target: Target) -> None:
        """Raise `LoadError` if the session's inputs or outputs do not fit."""
        self._session = session
        self._target = target
        self._inputs = session.get_inputs()
        for each in self._inputs:
            if each.type not in _TYPES or len(each.shape) > _COLUMN_OR_MATRIX:
                raise LoadError(
                    f"cannot load the model: its input {each.name!r} is {each.type} of shape "
                    f"{each.shape}, but data have rows and columns; write score in custom.py"
                )
        output = _output_for(session.get_outputs(), target)
        self._output = output.name
        classes = _classes(session, target) if target.type.has_labels else None
        self._classes = None if output.type.startswith(_MAPS) else classes

    def __call__(self, data: Any) -> Any:
        """Return the output that has the predictions; raise `RequestError` if data do not fit."""
        feed = self._feed(data)
        try:
            returned = self._session.run([self._output], feed)[0]
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument as error:
            raise RequestError(f"cannot predict from these data: {error}") from error
        if isinstance(returned, list):  # a map from class to probability for each row
            returned = pd.DataFrame(returned)
        _check_finite(np.asarray(returned), feed)
        if isinstance(returned, pd.DataFrame):
            return returned
        if self._classes is not None and returned.shape[1:] == (len(self._classes),):
            return pd.DataFrame(returned, columns=self._classes)
        return returned

    def _feed(self, data: Any) -> dict[str, Any]:
        if hasattr(data, "toarray"):
            self._check_width(range(data.shape[1]))  # before it is made dense
            data = data.toarray()
        frame = data if isinstance(data, pd.DataFrame) else pd.DataFrame(data)
        names = [each.name for each in self._inputs]
        by_name = len(names) > 1 or _width(self._inputs[0]) == 1
        if by_name and all(name in frame.columns for name in names):
            return {
                each.name: _array(frame[[each.name]], each).reshape(_column_shape(each))
                for each in self._inputs
            }
        if len(names) > 1:
            missing = [name for name in names if name not in frame.columns]
            raise RequestError(
                f"cannot predict from these data: {len(missing)} of the model's {len(names)} "
                f"columns are missing: {some_of(missing)}{other_separator(list(frame.columns))}"
            )
        self._check_width(list(frame.columns))
        return {names[0]: _array(frame, self._inputs[0])}

    def _check_width(self, columns: Sequence[Any]) -> None:
        width = _width(self._inputs[0]) if len(self._inputs) == 1 else len(self._inputs)
        if width is not None and len(columns) != width:
            raise RequestError(
                f"cannot predict from these data: they have {len(columns)} columns, "
                f"the model takes {width}{other_separator(columns)}"
            )


def _width(node: Any) -> int | None:
    """Return how many columns an input has; None if that is open."""
    if len(node.shape) < _COLUMN_OR_MATRIX:
        return 1
    return node.shape[1] if isinstance(node.shape[1], int) else None


def _column_shape(node: Any) -> tuple[int, ...]:
    return (-1,) if len(node.shape) < _COLUMN_OR_MATRIX else (-1, 1)


def _array(frame: pd.DataFrame, node: Any) -> Any:
    wanted = _TYPES[node.type]
    if wanted is np.object_:
        return frame.astype(str).to_numpy(dtype=object)
    if issubclass(wanted, np.floating):
        for name, column in frame.items():
            _numbers(name, column)
        return frame.to_numpy(dtype=wanted)
    array = np.empty(frame.shape, dtype=wanted)
    for index, (name, column) in enumerate(frame.items()):
        array[:, index] = _whole_numbers(name, column, node)
    return array


def _numbers(name: Any, column: pd.Series) -> Any:
    try:
        return column.to_numpy(dtype=float)
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(
            f"cannot predict from these data: the column {str(name)!r} is not of numbers: {error}"
        ) from None


def _whole_numbers(name: Any, column: pd.Series, node: Any) -> Any:
    """Return what an input of whole numbers holds; refuse what numpy would make others of."""
    numbers = _exact(column, _numbers(name, column))
    if node.type == "tensor(bool)":
        unfit, expected = (numbers != 0) & (numbers != 1), "0 and 1, or false and true"
    else:
        info = np.iinfo(_TYPES[node.type])
        # The greatest of 64 bits has no float, the one after it has.
        is_float = numbers.dtype.kind == "f"
        above = numbers >= float(info.max + 1) if is_float else numbers > info.max
        with np.errstate(invalid="ignore"):  # of infinity
            unfit = (numbers < info.min) | above | (numbers % 1 != 0)
        expected = f"whole numbers from {info.min} to {info.max}"
    if unfit.any():
        value = numbers[unfit].tolist()[0]
        told = "missing values" if math.isnan(value) else value
        raise RequestError(
            f"cannot predict from these data: the column {str(name)!r} has {told}; "
            f"the model takes {expected} ({node.type})"
        )
    return numbers


def _exact(column: pd.Series, numbers: Any) -> Any:
    """Return a column's `numbers` as they are where there are integers: floats change large ones.

    A column of several types holds Python's own, and texts.
    """
    values = column.to_numpy()
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind != "O":
        return numbers
    exact = np.empty(len(values), dtype=object)
    exact[:] = [
        _integer(value, number) for value, number in zip(values, numbers.tolist(), strict=True)
    ]
    return exact


def _integer(value: Any, number: float) -> float:
    try:
        return int(value) if isinstance(value, int | str) else number
    except ValueError:
        return number


def _check_finite(answers: Any, feed: dict[str, Any]) -> None:
    """Refuse rows with missing or infinite values if the model has no number for those.

    Models of trees take missing values, and imputers replace them; others pass them on.
    """
    if answers.dtype.kind != "f" or np.isfinite(answers).all():
        return
    row = int(np.argwhere(~np.isfinite(answers))[0][0])
    given = [column[row] for column in feed.values() if column.dtype.kind == "f"]
    if not all(np.isfinite(each).all() for each in given):
        raise RequestError(
            f"cannot predict from these data: row {row} has a value that is missing or too large, "
            "for which the model has no answer"
        )


def _output_for(outputs: list[Any], target: Target) -> Any:
    """Return the output that answers for `target`; raise `LoadError`.

    A classifier has its choice first and the probabilities after it; so has a detector of anomalies
    with its scores.
    """
    if target.type is TargetType.TEXT_GENERATION:
        fitting = [each for each in outputs if each.type == "tensor(string)"]
    elif target.type.has_labels:
        fitting = [each for each in outputs if each.type.startswith(_MAPS)]
        fitting = fitting or [each for each in outputs if each.type in _NUMBERS][-1:]
    elif target.type is TargetType.ANOMALY:
        fitting = [each for each in outputs if each.type in _NUMBERS][-1:]
    else:
        fitting = [each for each in outputs if each.type in _TYPES]
    if not fitting:
        told = ", ".join(f"{each.name} ({each.type})" for each in outputs)
        raise LoadError(
            f"cannot load the model: its target is {target.type}, but none of its outputs fits: "
            f"{told}; write score in custom.py"
        )
    return fitting[0]


def _classes(session: Any, target: Target) -> list[str] | None:
    """Return the classes in the order of the probabilities, if the model says it.

    Raises `LoadError` if it has as many classes as there are labels, and others: in the labels'
    order the probabilities could be those of another class.
    """
    path = getattr(session, "_model_path", None)
    if path is None:
        return None
    # Mapped: weights may be gigabytes, and are skipped.
    model = np.memmap(Path(path), mode="r").data
    lists = dict(constants(model))
    told = list(class_labels(model))
    for classes in (*told, *lists.values()):
        if matched(classes, target.labels) is not None:
            return classes
    told += [classes for name, classes in lists.items() if "classes" in name]
    for classes in told:
        if len(classes) == len(target.labels) and target.type is not TargetType.MULTILABEL:
            raise LoadError(
                f"cannot load the model: its classes are {some_of(classes)}, the target's labels "
                f"{some_of(target.labels)}; set the labels to the classes, or write score in "
                "custom.py"
            )
    return None
