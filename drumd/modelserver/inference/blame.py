"""What an exception of the model's own code tells: the client, and the log."""

import traceback
from pathlib import Path
from typing import Any

from drumd.modelserver.errors import ModelError, is_error_status

_MAX_TEXT = 1000
"""Characters of an exception's text that a client gets: some hold whole arrays."""


def described(error: BaseException) -> str:
    """Return `ValueError: text`, bounded."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the user's own __str__ may raise anything
        text = "(its text cannot be shown)"
    name = type(error).__name__
    return f"{name}: {_bounded(text)}" if text else name


def advice(error: BaseException) -> str:
    """Return what to do about an exception that ended a load, where that is known."""
    if isinstance(error, ModuleNotFoundError):
        return f"; install what brings {error.name!r} where drumd is installed"
    return ""


def own_status(error: BaseException) -> tuple[int, str] | None:
    """Return the status and message that a model asked for by its exception.

    That is `drumd.ModelError`, or an HTTPException of starlette (FastAPI's is one) or werkzeug.
    They are told by name, so that no server imports the other one's framework.
    """
    if isinstance(error, ModelError):
        return error.status, _bounded(str(error))
    for base in type(error).__mro__:
        if base.__name__ != "HTTPException":
            continue
        package = base.__module__.partition(".")[0]
        if package == "starlette":
            return _answer(error, "status_code", "detail")
        if package == "werkzeug":
            return _answer(error, "code", "description")
    return None


def user_traceback(error: BaseException, code_dir: Path) -> str:
    """Return the traceback of `error` with the frames that lie in the model directory alone."""
    told = traceback.TracebackException.from_exception(error)
    _keep_frames_in(told, str(code_dir), set())
    return "".join(told.format()).rstrip()


def _keep_frames_in(
    told: traceback.TracebackException | None, directory: str, seen: set[int]
) -> None:
    if told is None or id(told) in seen:
        return
    seen.add(id(told))
    kept = [frame for frame in told.stack if frame.filename.startswith(f"{directory}/")]
    told.stack = traceback.StackSummary.from_list(kept)
    _keep_frames_in(told.__cause__, directory, seen)
    _keep_frames_in(told.__context__, directory, seen)


def _answer(error: Any, status_name: str, text_name: str) -> tuple[int, str] | None:
    status: Any = getattr(error, status_name, None)
    if not is_error_status(status):
        return None
    text = getattr(error, text_name, None)
    return int(status), _bounded(str(text if text is not None else error))


def _bounded(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} …"
