"""What each endpoint answers."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import drumd
from drumd.config.modelserver.target import TargetType
from drumd.modelserver import jsonbytes, reading
from drumd.modelserver.errors import RequestError
from drumd.modelserver.payload import Payload
from drumd.modelserver.serving import paths
from drumd.modelserver.serving.calls import Answer, hook_json, json_answer
from drumd.modelserver.serving.events import CONTENT_TYPE, EventStream
from drumd.modelserver.serving.multipart import MEDIA_TYPE, bytes_of, is_form, payload_of

if TYPE_CHECKING:
    from drumd.modelserver.payload import Predictions
    from drumd.modelserver.serving.calls import Call
    from drumd.modelserver.serving.service import Service

FORMATS = {
    "csv": [reading.CSV],
    "json": [reading.JSON],
    "mtx": [reading.MATRIX_MARKET],
    "arrow": [reading.ARROW_STREAM, reading.ARROW_FILE],
    "form": [MEDIA_TYPE],
}
"""Media types of data, by what they are called."""


def ping(_service: Service, _call: Call) -> Answer:
    """Say that the worker answers."""
    return json_answer({"message": "OK"})


def health(service: Service, _call: Call) -> Answer:
    """Say that the model is loaded, and which hooks it is used by."""
    return json_answer(
        {
            "message": "OK",
            "model": service.model.kind,
            "hooks": sorted(service.model.hooks),
        }
    )


def info(service: Service, _call: Call) -> Answer:
    """Tell what the model is; nothing of where it lies, or of its parameters."""
    target = service.model.target
    return json_answer(
        {
            "drumdVersion": drumd.__version__,
            "targetType": str(target.type),
            "targetName": target.name,
            "labels": list(target.labels),
            "kind": service.model.kind,
            "hooks": sorted(service.model.hooks),
            "modelDirectory": service.settings.code_dir.name,
            "urlPrefix": service.settings.url_prefix,
        }
    )


def stats(service: Service, _call: Call) -> Answer:
    """Tell what this worker has done so far."""
    return json_answer(
        service.statistics.shown() | {"modelLoadSeconds": round(service.model.load_seconds, 6)}
    )


def capabilities(service: Service, _call: Call) -> Answer:
    """Tell what can be sent to which endpoint."""
    kind, hooks = service.model.target.type, service.model.hooks
    endpoints: tuple[str, ...] = ()
    formats: dict[str, list[str]] = {}
    if kind is TargetType.UNSTRUCTURED:
        endpoints, formats = paths.UNSTRUCTURED, {"any": ["*/*"]}
    else:
        if kind is TargetType.TRANSFORM:
            endpoints = paths.TRANSFORM
        elif kind is not TargetType.TEXT_GENERATION or "score" in hooks:
            endpoints = paths.PREDICT
        if endpoints:
            formats = dict(FORMATS)
            if "read_input_data" in hooks:
                formats["any"] = ["*/*"]
    if "chat" in hooks:
        endpoints += paths.CHAT + paths.MODELS
    prefix = service.settings.url_prefix
    return json_answer(
        {
            "targetType": str(kind),
            "endpoints": [prefix + path for path in endpoints],
            "supportedPayloadFormats": formats,
            "streaming": "chat" in hooks,
            "maxBodyBytes": service.settings.max_body,
        }
    )


def predict(service: Service, call: Call) -> Answer:
    """Answer with a prediction for each row."""
    return predictions_answer(service.model.predict(_payload(call), headers=dict(call.headers)))


def predictions_answer(predictions: Predictions) -> Answer:
    """Return predictions as they are sent: by row, further columns beside them."""
    answer: dict[str, Any] = {"predictions": predictions.values}
    if predictions.extra:
        names = tuple(predictions.extra)
        answer["extraModelOutput"] = [
            dict(zip(names, row, strict=True))
            for row in zip(*predictions.extra.values(), strict=True)
        ]
    return Answer(hook_json(answer, "score"))


def transform(service: Service, call: Call) -> Answer:
    """Answer with the data as the model transforms it."""
    table = service.model.transform(_payload(call))
    return Answer(table.data, content_type=table.content_type)


def predict_unstructured(service: Service, call: Call) -> Answer:
    """Answer with whatever the model makes of the bytes that came: of a form its field X."""
    data, content_type = call.body, call.content_type
    if is_form(content_type):
        data, content_type = bytes_of(data, content_type)
    found = service.model.predict_unstructured(data, content_type, call.query(), call.headers)
    return Answer(found.data, content_type=found.content_type)


def chat(service: Service, call: Call) -> Answer:
    """Answer with a chat's completion, or with its chunks as events."""
    found = service.model.chat(_json_object(call), headers=dict(call.headers))
    if isinstance(found, dict):
        return Answer(hook_json(found, "chat"))
    return Answer(
        EventStream(found, lambda error: service.explain(error, call.request_id)),
        content_type=CONTENT_TYPE,
        # A proxy that collects the answer first would make it no stream.
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


def models(service: Service, _call: Call) -> Answer:
    """List the models that a chat can name."""
    found = service.model.supported_models()
    return Answer(hook_json({"object": "list", "data": found}, "get_supported_llm_models"))


def _payload(call: Call) -> Payload:
    coding = call.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise RequestError(
            f"cannot read a body with Content-Encoding {coding[:40]!r}: send it as it is",
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        )
    if is_form(call.content_type):
        return payload_of(call.body, call.content_type)
    return Payload(call.body, call.content_type) if call.content_type else Payload(call.body)


def _json_object(call: Call) -> dict[str, Any]:
    media_type = call.content_type.partition(";")[0].strip().lower()
    if media_type not in ("", "application/json") and not media_type.endswith("+json"):
        raise RequestError(
            f"cannot read a body of type {media_type[:80]!r}: send application/json",
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        )
    try:
        text = call.body.decode(json.detect_encoding(call.body))
    except UnicodeDecodeError as error:
        raise RequestError(f"cannot read the JSON: {error}") from None
    found = jsonbytes.loads(text)
    if not isinstance(found, dict):
        raise RequestError(
            f"cannot read the body: it is a JSON {_KINDS.get(type(found), 'value')}; send an object"
        )
    return found


_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean"}
