"""Which endpoint a model answers: asked at another one, it says which."""

from collections.abc import Collection

from drumd.config.modelserver.target import TargetType
from drumd.modelserver.errors import RequestError

_PREDICT = "/predict"
_ENDPOINTS = {
    TargetType.UNSTRUCTURED: "/predictUnstructured",
    TargetType.TRANSFORM: "/transform",
}


def check_predict(target_type: TargetType, can_predict: bool, hooks: Collection[str]) -> None:  # noqa: FBT001 - a property
    """Raise `RequestError` unless the model predicts from rows."""
    _check(target_type, _PREDICT)
    if not can_predict:
        assert "chat" in hooks  # noqa: S101 - or it would not have been loaded
        raise RequestError(
            "cannot predict: this model has a chat hook but no score hook; "
            "send POST /chat/completions"
        )


def check_transform(target_type: TargetType) -> None:
    """Raise `RequestError` unless the model transforms data."""
    _check(target_type, "/transform")


def check_unstructured(target_type: TargetType) -> None:
    """Raise `RequestError` unless the model takes unstructured data."""
    _check(target_type, "/predictUnstructured")


def _check(target_type: TargetType, asked: str) -> None:
    endpoint = _ENDPOINTS.get(target_type, _PREDICT)
    if endpoint != asked:
        raise RequestError(
            f"cannot answer at {asked}: the model's target type is {target_type}; "
            f"send POST {endpoint}"
        )
