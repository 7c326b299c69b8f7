"""What a model predicts."""

from dataclasses import dataclass
from enum import StrEnum


class TargetType(StrEnum):
    """The kind of a model's answers."""

    REGRESSION = "regression"
    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"
    ANOMALY = "anomaly"
    UNSTRUCTURED = "unstructured"
    TEXT_GENERATION = "textgeneration"
    TRANSFORM = "transform"

    @property
    def has_labels(self) -> bool:
        """Whether the model answers with a number for each of several labels."""
        return self in (self.BINARY, self.MULTICLASS, self.MULTILABEL)


@dataclass(frozen=True, slots=True)
class Target:
    """What a model predicts."""

    type: TargetType
    labels: tuple[str, ...] = ()
    """Of a binary target: the positive one, then the negative one."""
    name: str = "Predictions"
    """The column that a text generation model's text, or a file of predictions, has."""
