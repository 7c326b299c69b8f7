"""The sink: one thread that writes log lines, so that a stuck receiver never stops the main loop.

Pipes to a log shipper fill up, terminals are paused with Ctrl-S: a write may block for ever.
"""

import contextlib
import os
import select
import signal
import threading
from collections import deque
from dataclasses import dataclass

MAX_PENDING_LINES = 10_000
MAX_PENDING_BYTES = 8 * 1024 * 1024
"""What waits for the receiver at most; further lines are dropped and counted."""


@dataclass(frozen=True, slots=True)
class KeptSink:
    """A sink over a re-exec: what still waits for its receiver."""

    pending: tuple[str, ...] = ()
    dropped: int = 0


class Sink:
    """Write lines to `fd` from a thread of its own, which sleeps while there is no line."""

    def __init__(self, fd: int) -> None:
        self.dropped = 0
        """Lines that were not written: the receiver was stuck, or is gone."""
        self._fd = fd
        self._changed = threading.Condition()
        self._pending: deque[bytes] = deque()
        self._bytes = 0
        self._writing = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="drumd-log", daemon=True)
        # The thread inherits the mask: signals are the main thread's, which runs their handlers.
        before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def full(self) -> bool:
        """Whether a further line might be dropped."""
        return len(self._pending) >= MAX_PENDING_LINES or self._bytes >= MAX_PENDING_BYTES // 2

    def write(self, line: bytes) -> bool:
        """Queue `line` (with its newline), without waiting; return False when it was dropped."""
        with self._changed:
            if (
                self._closed
                or len(self._pending) >= MAX_PENDING_LINES
                or self._bytes + len(line) > MAX_PENDING_BYTES
            ):
                self.dropped += 1
                return False
            self._pending.append(line)
            self._bytes += len(line)
            self._changed.notify_all()
        return True

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all that was queued is written; say whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending and not self._writing, timeout)

    def keep(self) -> KeptSink:
        """Return what `resume` needs.

        The lines that are being written count as dropped: an exec ends the thread in the middle
        of them, when their receiver is stuck.
        """
        with self._changed:
            pending = tuple(line.decode(errors="replace") for line in self._pending)
            return KeptSink(pending, self.dropped + self._writing)

    def resume(self, kept: KeptSink) -> None:
        """Go on with what waited before a re-exec."""
        self.dropped = kept.dropped
        for line in kept.pending:
            self.write(line.encode())

    def close(self, timeout: float) -> bool:
        """Write what is queued, for up to `timeout` seconds, and end the thread."""
        flushed = self.flush(timeout)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if flushed:
            self._thread.join(timeout)
        return flushed

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = 0
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._pending or self._closed)
                if not self._pending:
                    return
                lines = list(self._pending)
                self._pending.clear()
                self._writing = len(lines)
            written = self._write_all(lines)
            with self._changed:
                self._bytes -= sum(map(len, lines))
                self.dropped += len(lines) - written

    def _write_all(self, lines: list[bytes]) -> int:
        """Write as many `lines` as the receiver takes; return how many."""
        data = memoryview(b"".join(lines))
        done = 0
        # EPIPE, EIO (the terminal is gone), ENOSPC: logs are lost, serving goes on.
        with contextlib.suppress(OSError):
            while done < len(data):
                try:
                    done += os.write(self._fd, data[done:])
                except BlockingIOError:
                    # Another process that shares the file made it non-blocking.
                    select.select([], [self._fd], [])
            return len(lines)
        count = 0
        for line in lines:
            done -= len(line)
            if done < 0:
                break
            count += 1
        return count
