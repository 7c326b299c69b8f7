"""What predicts where there is no score hook: the model's own methods."""

import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.errors import LoadError, RequestError
from drumd.modelserver.inference.artifacts import Kind
from drumd.modelserver.inference.labels import matched
from drumd.modelserver.shown import other_separator, some_of

_TABLE = 2
"""Dimensions of what has rows and columns."""
_NUMBERS = "biuf"
"""numpy's kinds of columns that each model can take."""
_WANTS_DENSE = "dense data is required"
"""Of what scikit-learn raises as TypeError when it is given a sparse matrix and takes none."""


class Predictor(Protocol):
    """Predicts from data; `RequestError` says what the data lack."""

    def __call__(self, data: Any) -> Any:
        """Return what a score hook may return."""


def find_predictor(model: Any, kind: Kind | None, target: Target) -> Predictor | None:
    """Return what predicts `target` with `model`; None if it has no such method.

    Raises `LoadError` if it has one, but its classes are not the labels.
    """
    if kind is not None and kind.predict is not None:
        predict = kind.predict
        return lambda data: predict(model, data, target)
    if type(model).__module__.startswith("onnxruntime."):
        from drumd.modelserver.inference import onnx_models  # noqa: PLC0415 - only such a model needs it

        return onnx_models.OnnxPredictor(model, target)
    if target.type.has_labels:
        return LabelPredictor(model, target) if hasattr(model, "predict_proba") else None
    if target.type is TargetType.ANOMALY:
        names: tuple[str, ...] = ("decision_function", "score_samples", "predict")
    else:
        names = ("predict",)
    for name in names:
        if hasattr(model, name):
            return ValuePredictor(model, name)
    return None


class ValuePredictor:
    """One value a row, by a method of the model.

    An anomaly's value is the model's own, higher or lower as it has it: `decision_function`, else
    `score_samples`, else `predict`.
    """

    def __init__(self, model: Any, method: str) -> None:
        self._model = model
        self._method = method

    def __call__(self, data: Any) -> Any:
        """Return the method's values."""
        return _asked(self._model, self._method, data)


class LabelPredictor:
    """A probability for each label, by `predict_proba`, in the order of the model's classes."""

    def __init__(self, model: Any, target: Target) -> None:
        self._model = model
        self._labels = target.labels
        classes = classes_of(model)
        self._is_multilabel = target.type is TargetType.MULTILABEL
        found = {} if classes is None else matched(classes, target.labels)
        # One trained with a column per label has counted them.
        if found is None and not self._is_multilabel:
            raise LoadError(
                f"cannot load the model: its classes are {some_of(classes or ())}, "
                f"the target's labels {some_of(target.labels)}; set the labels to the classes"
            )
        self._columns = [found[each] for each in classes or ()] if found else None
        """The labels in the order of the model's classes."""

    def __call__(self, data: Any) -> Any:
        """Return a DataFrame with a column for each label."""
        answer = _asked(self._model, "predict_proba", data)
        if self._is_multilabel and isinstance(answer, list):  # of a model with several outputs
            answer = self._positives(answer)
        if self._columns is None or getattr(answer, "shape", (0, 0))[1:] != (len(self._columns),):
            return answer
        return pd.DataFrame(answer, columns=self._columns)

    def _positives(self, answers: list[Any]) -> Any:
        """Return the probability that each label applies, of `[rows x (no, yes)]` per label."""
        classes = getattr(self._model, "classes_", None)
        columns = []
        for index, answer in enumerate(answers):
            own = list(classes[index]) if classes is not None else [0, 1]
            if 1 in own:
                columns.append(answer[:, own.index(1)])
            elif len(own) > 1:  # such as "no" and "yes", in their order
                columns.append(answer[:, -1])
            else:  # the label applied to nothing that the model was trained with
                columns.append(np.zeros(len(answer)))
        return pd.DataFrame(np.column_stack(columns), columns=list(self._labels)[: len(columns)])


def classes_of(model: Any) -> Sequence[Any] | None:
    """Return a model's `classes_`, if it is a flat list of them."""
    classes = getattr(model, "classes_", None)
    if not isinstance(classes, np.ndarray | list | tuple):
        return None
    if any(isinstance(each, np.ndarray | list | tuple) for each in classes):
        return None  # of a model with several outputs
    return list(classes)


def _asked(model: Any, method: str, data: Any) -> Any:
    fitting = _fitting(model, data)
    try:
        return getattr(model, method)(fitting)
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        # ValueError is scikit-learn's word for data that it cannot use; the names and the number
        # fit already. The others are Python's, of values that are no numbers, or no texts.
        if not isinstance(error, ValueError) and not _is_about_values(error, fitting):
            raise
        told = re.sub(r"\s+", " ", str(error)).strip()
        raise RequestError(f"cannot predict from these data: {told}") from error


def _is_about_values(error: Exception, data: Any) -> bool:
    """Return whether an error is one of the data's values, and none in the model's code."""
    if _WANTS_DENSE in str(error):
        return True
    if isinstance(error, AttributeError):  # such as `lower` of a number
        return isinstance(error.obj, np.generic | int | float | list | dict)
    dtypes = data.dtypes if isinstance(data, pd.DataFrame) else [getattr(data, "dtype", None)]
    return any(dtype is not None and dtype.kind not in _NUMBERS for dtype in dtypes)


def _fitting(model: Any, data: Any) -> Any:
    """Return data with the columns that the model was fitted with, in their order."""
    names = getattr(model, "feature_names_in_", None)
    if isinstance(data, pd.DataFrame) and names is not None:
        return with_columns(data, [str(name) for name in names])
    count = getattr(model, "n_features_in_", None)
    if count is None and isinstance(data, pd.DataFrame) and _takes_texts(model, data):
        return data.iloc[:, 0]
    if count is None or len(getattr(data, "shape", ())) != _TABLE:
        return data
    if data.shape[1] != count:
        columns = list(data.columns) if isinstance(data, pd.DataFrame) else []
        raise RequestError(
            f"cannot predict from these data: they have {data.shape[1]} columns, "
            f"the model was trained with {count}{other_separator(columns)}"
        )
    return _unnamed(data) if isinstance(data, pd.DataFrame) else data


def _unnamed(data: pd.DataFrame) -> Any:
    """Return the values: fitted without names, scikit-learn warns of each DataFrame."""
    if all(isinstance(dtype, pd.SparseDtype) for dtype in data.dtypes):
        return data.sparse.to_coo().tocsr()  # type: ignore[attr-defined]  # the stubs lack it
    return data.to_numpy()


def _takes_texts(model: Any, data: pd.DataFrame) -> bool:
    """Return whether a pipeline begins with a vectorizer, which takes texts but no table."""
    return type(model).__module__.startswith("sklearn.") and len(data.columns) == 1


def with_columns(data: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return these columns of `data`, in this order; raise `RequestError` if some are missing."""
    if list(data.columns) == names:
        return data
    missing = [name for name in names if name not in data.columns]
    if missing:
        raise RequestError(
            f"cannot predict from these data: {len(missing)} of the model's {len(names)} columns "
            f"are missing: {some_of(missing)}{other_separator(list(data.columns))}"
        )
    return data[names]
