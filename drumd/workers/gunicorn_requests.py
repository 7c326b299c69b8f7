"""Metering of the requests that gunicorn's WSGI worker classes serve.

The app itself is not wrapped: gunicorn sends a file with sendfile only when the very object that
the app returned is its file wrapper, and answers to broken requests never reach the app.
"""

import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

from drumd.workers.meter import Meter


def note_status(cfg: Any) -> None:
    """Make gunicorn note each answer's status on its request, by its `post_request` hook."""
    # gunicorn 27.0.1: `post_request(worker, req, environ, resp)` runs when a response is closed or
    # was given up. `status_code` is set once the app called start_response.
    users: Callable[..., None] = cfg.post_request
    theirs = users is not cfg.settings["post_request"].default

    def post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None:
        if resp is not None and resp.headers_sent:
            req.drumd_status = resp.status_code
        if theirs:
            users(worker, req, environ, resp)

    cfg.set("post_request", post_request)


class MeteredRequests:
    """A mixin before gunicorn's WSGI worker classes; `requests` of its own go by `handle_*`."""

    meter: Meter
    alive: bool

    def metered(self, req: Any, handle: Callable[..., Any], *args: Any) -> Any:
        """Serve `req` by `handle(*args)`, and count it."""
        ticket = self.meter.begin()
        req.drumd_status = None
        req.should_close = partial(self._ends_connection, req)
        try:
            return handle(*args)
        except Exception as error:
            # Connections that broke (OSError) had no whole answer; StopIteration only says
            # that the connection is to be closed. gunicorn answers all others by `handle_error`.
            if req.drumd_status is None and not isinstance(error, (OSError, StopIteration)):
                req.drumd_status = error_status(error)
            raise
        finally:
            del req.should_close  # it and the request would be a cycle for the collector
            self.meter.end(ticket, req.drumd_status)

    def _ends_connection(self, req: Any) -> bool:
        """Return whether the connection ends with this answer, the same each time for one answer.

        gunicorn 27.0.1 asks when it writes the answer's head, and again at its end. So an answer
        whose head is written in a drain says Connection: close, though its request came before;
        and a connection that was promised to go on is not closed under its client.
        """
        if not hasattr(req, "drumd_ends"):
            req.drumd_ends = not self.alive or type(req).should_close(req)
        return bool(req.drumd_ends)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that failed; count it when it never came as far as `metered`."""
        if not hasattr(req, "drumd_status"):
            self.meter.end(self.meter.begin(), error_status(exc))
        super().handle_error(req, client, addr, exc)  # type: ignore[misc]  # gunicorn's Worker


def error_status(error: BaseException) -> int:
    """Return the status with which gunicorn 27.0.1 answers `error`, or one of its class."""
    from gunicorn.http import errors  # noqa: PLC0415 - gevent must patch before this is imported

    if isinstance(error, errors.UnsupportedTransferCoding):
        return 501
    if isinstance(
        error,
        (
            errors.ConfigurationProblem,
            errors.InvalidResponseHeader,
            errors.InvalidResponseHeaderName,
        ),
    ):
        return 500
    return 400 if isinstance(error, (errors.ParseException, ssl.SSLError)) else 500
