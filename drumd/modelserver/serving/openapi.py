"""What the endpoints take and answer, as OpenAPI describes it."""

from http import HTTPStatus
from typing import Any

from drumd.modelserver.serving.handlers import FORMATS
from drumd.modelserver.serving.routes import Route

_Document = dict[str, Any]
_OBJECT: _Document = {"type": "object"}
_TEXT: _Document = {"type": "string"}
_NUMBER: _Document = {"type": "number"}
_COUNT: _Document = {"type": "integer"}
_BYTES: _Document = {"type": "string", "format": "binary"}
_TEXTS: _Document = {"type": "array", "items": _TEXT}


def _fields(**fields: _Document) -> _Document:
    return {"type": "object", "properties": fields, "required": list(fields)}


_MESSAGE = _fields(message=_TEXT)
_ERROR = {**_MESSAGE, "description": "`ERROR: ` and what is expected"}
_PREDICTIONS: _Document = {
    "type": "object",
    "properties": {
        "predictions": {
            "type": "array",
            "items": {
                "anyOf": [
                    _NUMBER,
                    _TEXT,
                    {"type": "object", "additionalProperties": _NUMBER},
                ]
            },
        },
        "extraModelOutput": {"type": "array", "items": _OBJECT},
    },
    "required": ["predictions"],
}
_FORM: _Document = {
    "type": "object",
    "properties": {"X": _BYTES, "X.colnames": _BYTES},
    "required": ["X"],
}
_ROWS: _Document = {"type": "array", "items": _OBJECT}
_SCHEMAS = {"form": _FORM, "json": _ROWS}
_DATA: _Document = {
    "required": True,
    "content": {
        media_type: {"schema": _SCHEMAS.get(name, _BYTES)}
        for name, media_types in FORMATS.items()
        for media_type in media_types
    },
}
_ANYTHING: _Document = {"content": {"application/octet-stream": {"schema": _BYTES}}}
_WITH_ROLE: _Document = {
    "type": "object",
    "properties": {"role": _TEXT},
    "required": ["role"],
}
_CHAT: _Document = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "model": {},
                    "messages": {"type": "array", "items": _WITH_ROLE, "minItems": 1},
                    "stream": {"type": ["boolean", "null"]},
                },
                "required": ["messages"],
            }
        }
    },
}

_SUMMARIES = {
    "root": "Whether the worker answers",
    "ping": "Whether the worker answers",
    "health": "Whether the model is loaded",
    "info": "What the model is",
    "stats": "What this worker has done",
    "capabilities": "What can be sent where",
    "predict": "Predict from rows of data",
    "transform": "Transform rows of data",
    "predict_unstructured": "Have an unstructured model answer",
    "chat": "Complete a chat",
    "models": "The models that a chat can name",
}
_BODIES = {
    "predict": _DATA,
    "transform": _DATA,
    "predict_unstructured": _ANYTHING,
    "chat": _CHAT,
}
_ANSWERS: dict[str, dict[str, _Document]] = {
    "root": {"application/json": _MESSAGE},
    "ping": {"application/json": _MESSAGE},
    "health": {"application/json": _fields(message=_TEXT, model=_TEXT, hooks=_TEXTS)},
    "info": {
        "application/json": _fields(
            drumdVersion=_TEXT,
            targetType=_TEXT,
            targetName=_TEXT,
            labels=_TEXTS,
            kind=_TEXT,
            hooks=_TEXTS,
            modelDirectory=_TEXT,
            urlPrefix=_TEXT,
        )
    },
    "stats": {
        "application/json": _fields(
            pid=_COUNT,
            memoryBytes=_COUNT,
            uptimeSeconds=_NUMBER,
            modelLoadSeconds=_NUMBER,
            requests=_OBJECT,
        )
    },
    "capabilities": {
        "application/json": _fields(
            targetType=_TEXT,
            endpoints=_TEXTS,
            supportedPayloadFormats=_OBJECT,
            streaming={"type": "boolean"},
            maxBodyBytes=_COUNT,
        )
    },
    "predict": {"application/json": _PREDICTIONS},
    "transform": {"text/csv": _TEXT, "text/mtx": _TEXT, FORMATS["arrow"][0]: _BYTES},
    "predict_unstructured": {"*/*": {}},
    "chat": {"application/json": _OBJECT, "text/event-stream": {}},
    "models": {"application/json": _fields(object=_TEXT, data={"type": "array", "items": _OBJECT})},
}
_FULL = "As many requests wait as may, or their bodies fill the room that there is for them"
_REFUSALS = {
    400: "The body is cut off",
    413: "The body is too large",
    415: "The content type is unknown",
    422: "The body cannot be used, or the endpoint is not for this model",
}
_FAILURES = {
    500: "The model's code raised; it may choose another status",
    503: _FULL,
}


_ID: _Document = {"description": "The request's id", "schema": _TEXT}
_LATER: _Document = {"description": "Seconds", "schema": _TEXT}


def operation(route: Route, path: str) -> _Document:
    """Return what FastAPI is to be told of a path of a route."""
    refusals = _REFUSALS if route.method == "POST" else {}
    failures = _FAILURES if route.hooks else {}
    extra: _Document = {
        "parameters": [
            {
                "name": "X-Request-ID",
                "in": "header",
                "required": False,
                "description": "Echoed, when it is at most 128 printable characters without spaces",
                "schema": _TEXT,
            }
        ]
    }
    if route.name in _BODIES:
        extra["requestBody"] = _BODIES[route.name]
    return {
        "name": route.name,
        "operation_id": f"{route.name}{path.replace('/', '_').rstrip('_')}",
        "summary": _SUMMARIES[route.name],
        "openapi_extra": extra,
        "responses": {HTTPStatus.OK: _answered(_ANSWERS[route.name], "Answered")}
        | {
            status: _answered({"application/json": _ERROR}, text)
            for status, text in (refusals | failures).items()
        },
    }


def _answered(content: dict[str, _Document], description: str) -> _Document:
    headers = {"X-Request-ID": _ID}
    if description is _FULL:
        headers["Retry-After"] = _LATER
    return {
        "description": description,
        "headers": headers,
        "content": {media_type: {"schema": schema} for media_type, schema in content.items()},
    }
