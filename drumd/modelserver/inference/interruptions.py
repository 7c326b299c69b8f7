"""Which exceptions that come out of the model's code are its own, and which go through it."""

import signal
from types import TracebackType


def is_the_users_own(error: BaseException) -> bool:
    """Return whether the model's own code raised `error`.

    A SystemExit is its own, unless a server's signal handler raised it in the midst of the hook.
    A KeyboardInterrupt is somebody's Ctrl-C where that is how SIGINT arrives. Panics of Rust
    extensions are no `Exception`, but errors like others; gevent's timeouts are not.
    """
    if isinstance(error, Exception):
        return True
    if isinstance(error, SystemExit):
        return _package_of_last_frame(error.__traceback__) not in ("drumd", "gunicorn")
    if isinstance(error, KeyboardInterrupt):
        return signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    return type(error).__name__ == "PanicException"


def _package_of_last_frame(trace: TracebackType | None) -> str:
    package = ""
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        trace = trace.tb_next
    return package
