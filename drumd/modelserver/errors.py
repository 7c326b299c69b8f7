"""What goes wrong between a client, a model's hooks, and this server."""

from http import HTTPStatus

from drumd.errors import PlainError


class LoadError(PlainError):
    """cannot load the model."""

    final = True


class RequestError(Exception):
    """cannot answer the request.

    The message is for the client, and says what is expected; `status` is the HTTP status.
    """

    def __init__(self, message: str, status: int = HTTPStatus.UNPROCESSABLE_ENTITY) -> None:
        super().__init__(message)
        self.status = status


class BusyError(RequestError):
    """cannot answer now: too much is under way. Another time the same request may be answered."""

    def __init__(self, message: str) -> None:
        super().__init__(message, HTTPStatus.SERVICE_UNAVAILABLE)


class EmptyDataError(RequestError):
    """cannot read the data: there are none."""


class EncodingError(RequestError):
    """cannot read the data: they are not of their charset. `fact` says so and gives no advice."""

    def __init__(self, message: str, fact: str) -> None:
        super().__init__(message)
        self.fact = fact


class HookError(Exception):
    """cannot answer: a hook raised, or returned what does not fit.

    The message names the hook, and is for the client as well; the cause carries the traceback,
    which only the log shows. `status` is 500, or what the model asked for.
    """

    def __init__(
        self, hook: str, message: str, status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    ) -> None:
        super().__init__(message)
        self.hook = hook
        self.status = status


class ModelError(Exception):
    """Raise this in a hook to choose the HTTP status and the message that the client gets.

        raise drumd.ModelError("the customer is not known", status=404)

    `status` is from 400 to 599. The message goes to the client as it is.
    """

    def __init__(self, message: str, status: int = HTTPStatus.INTERNAL_SERVER_ERROR) -> None:
        super().__init__(message)
        if not is_error_status(status):
            raise ValueError(f"cannot answer with status {status!r}: it must be from 400 to 599")
        self.status = int(status)


def is_error_status(status: object) -> bool:
    """Return whether `status` is an HTTP status that tells of an error."""
    return (
        isinstance(status, int)
        and HTTPStatus.BAD_REQUEST <= status <= _LAST_STATUS
        and not isinstance(status, bool)
    )


_LAST_STATUS = 599
