"""What a client is told of an exception, and what the log."""

import logging
from http import HTTPStatus

from drumd.modelserver.errors import HookError, RequestError

_log = logging.getLogger("drumd.model")


def explain(error: Exception, request_id: str) -> tuple[int, str]:
    """Return the status and the message for the client; log with its traceback what is not its own.

    What the model's status makes the client's mistake is logged in one line.
    """
    if isinstance(error, RequestError):
        return error.status, str(error)
    if isinstance(error, HookError):
        if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.info("request %s: %s", request_id, error)
        else:
            _log.error("request %s: %s", request_id, error, exc_info=error.__cause__)
        return error.status, str(error)
    _log.error("request %s: cannot answer", request_id, exc_info=error)
    return (
        HTTPStatus.INTERNAL_SERVER_ERROR,
        f"cannot answer: the server failed; its log says why, with request id {request_id}",
    )
