"""What a client is told of an exception, and what the log."""

import logging
from http import HTTPStatus
from pathlib import Path

from drumd.modelserver.errors import HookError, RequestError
from drumd.modelserver.inference.blame import user_traceback

_log = logging.getLogger("drumd.modelserver")


def explain(error: Exception, request_id: str, code_dir: Path) -> tuple[int, str]:
    """Return the status and the message for the client; log what is not the client's mistake.

    Of an exception in a hook the log gets the lines of the model directory alone.
    """
    if isinstance(error, RequestError):
        return error.status, str(error)
    if isinstance(error, HookError):
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            cause = error.__cause__
            trace = f"\n{user_traceback(cause, code_dir)}" if cause is not None else ""
            _log.error("request %s: %s%s", request_id, error, trace)
        return error.status, str(error)
    _log.error("request %s: cannot answer", request_id, exc_info=error)
    return (
        HTTPStatus.INTERNAL_SERVER_ERROR,
        f"cannot answer: the server failed; its log says why, with request id {request_id}",
    )
