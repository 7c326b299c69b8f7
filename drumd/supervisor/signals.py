"""The daemon's signals: noted and posted, never acted on in a handler (docs/signals.md)."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


@contextmanager
def caught(
    loop: asyncio.AbstractEventLoop, note: Callable[[signal.Signals], None]
) -> Iterator[None]:
    """Have `note` called on the loop for each signal that drumd handles; restore at the end.

    Dispositions and the mask are inherited: a shell that starts drumd with `&` leaves SIGINT and
    SIGQUIT ignored, so they are set here whatever they were.
    """
    before = {number: signal.getsignal(number) for number in HANDLED}
    for number in HANDLED:
        loop.add_signal_handler(number, note, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    try:
        yield
    finally:
        for number in HANDLED:
            loop.remove_signal_handler(number)
            handler = before[number]
            if handler is not None:
                signal.signal(number, handler)
