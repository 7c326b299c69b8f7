"""What a worker does whose threads all hang: it says where, and leaves."""

import faulthandler
import logging
import signal

from drumd.config.modelserver.settings import ModelSettings

_log = logging.getLogger("drumd.modelserver")


def leave(settings: ModelSettings) -> None:
    """Write the stacks of all threads to the log, and end this process as SIGTERM does.

    The event loop still turns, so nobody else would notice. Whoever supervises starts another.
    """
    _log.error(
        "cannot go on: all %d threads for hooks are stuck: none began or ended a call for %g s "
        "(DRUM_CLIENT_REQUEST_TIMEOUT); this worker leaves",
        settings.threads,
        settings.request_timeout,
    )
    faulthandler.dump_traceback(all_threads=True)
    signal.raise_signal(signal.SIGTERM)
