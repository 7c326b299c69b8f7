"""Predicting: transform, then score, then post_process, then the checks."""

from typing import Any

import pandas as pd

from drumd.config.modelserver.target import Target, TargetType
from drumd.modelserver.errors import HookError, LoadError, RequestError
from drumd.modelserver.inference.checks import Checker
from drumd.modelserver.inference.directory import Loaded
from drumd.modelserver.inference.predictors import classes_of, find_predictor
from drumd.modelserver.inference.running import cannot
from drumd.modelserver.payload import Predictions
from drumd.modelserver.shown import kind_of

_WITHOUT_PREDICTIONS = (TargetType.UNSTRUCTURED, TargetType.TRANSFORM)


class Predicting:
    """The way of data through a model's hooks; what can be settled once, is."""

    def __init__(self, loaded: Loaded, target: Target) -> None:
        """Raise `LoadError` if nothing can predict the target."""
        self._hooks = loaded.hooks
        self._model = loaded.model
        self._run = loaded.runner.run
        self._checker = Checker(target, classes_of(loaded.model))
        self._offered = _offered(target)
        self._predictor = None
        if "score" not in self._hooks and target.type not in _WITHOUT_PREDICTIONS:
            self._predictor = find_predictor(loaded.model, loaded.artifact, target)
            if self._predictor is None and "chat" not in self._hooks:
                raise LoadError(_no_predictor(loaded, target))

    @property
    def can_predict(self) -> bool:
        """Whether there is a score hook, or a method of the model that stands for it."""
        return self._predictor is not None or "score" in self._hooks

    def predict(self, data: Any, **kwargs: Any) -> Predictions:
        """Return checked predictions; raise `RequestError` or `HookError`."""
        rows = row_count(data)
        hook, returned = self._scored(self.transform(data), **kwargs)
        if "post_process" in self._hooks:
            frame = self._checker.frame(hook, returned)
            hook = "post_process"
            returned = self._run(hook, self._hooks[hook], frame, self._model)
        return self._checker.predictions(hook, returned, rows)

    def transform(self, data: Any) -> Any:
        """Return what the transform hook makes of the data, or the data if there is none."""
        if "transform" not in self._hooks:
            return data
        return self._run("transform", self._hooks["transform"], data, self._model)

    def _scored(self, data: Any, **kwargs: Any) -> tuple[str, Any]:
        if "score" in self._hooks:
            offered = self._offered | kwargs
            return "score", self._run("score", self._hooks["score"], data, self._model, **offered)
        assert self._predictor is not None  # noqa: S101 - `can_predict` is asked first
        try:
            return "predict", self._run("predict", self._predictor, data)
        except RequestError as error:
            if "transform" not in self._hooks:
                raise
            # The client sent something else: what does not fit is what the hook made of it.
            raise HookError("transform", f"{cannot('transform')} returned data: {error}") from error


def row_count(data: Any) -> int | None:
    """Return how many rows the data have; None if that cannot be told.

    What read_input_data made of the bytes may be an image: its height is no number of rows.
    """
    if isinstance(data, pd.DataFrame) or hasattr(data, "tocoo"):
        return int(data.shape[0])
    return None


def _offered(target: Target) -> dict[str, Any]:
    """Return what score hooks are offered by name: the labels, and headers, if there are any."""
    return {"headers": {}} | _label_arguments(target)


def _label_arguments(target: Target) -> dict[str, Any]:
    if target.type is TargetType.BINARY:
        positive, negative = target.labels
        return {"positive_class_label": positive, "negative_class_label": negative}
    if target.type.has_labels:
        return {"class_labels": list(target.labels)}
    return {}


def _no_predictor(loaded: Loaded, target: Target) -> str:
    kind = kind_of(loaded.model)
    told = f"cannot load the model: its target is {target.type}, but the model, {kind}, has no "
    if target.type.has_labels:
        return f"{told}predict_proba; train it with probabilities, or write score in custom.py"
    return f"{told}predict; write score in custom.py"
