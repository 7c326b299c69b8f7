"""Server-sent events: an answer that comes as it is made."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from drumd.modelserver.serving.calls import hook_json

CONTENT_TYPE = "text/event-stream; charset=utf-8"
_DONE = b"data: [DONE]\n\n"
_log = logging.getLogger("drumd.modelserver")


class EventStream:
    """The chunks of a chat as events, which end with `[DONE]` or with what went wrong.

    Its first chunk is fetched at once, so that what raises before it is an ordinary error. It may
    be closed by another thread than the one that reads it.
    """

    def __init__(
        self, chunks: Iterator[Any], explain: Callable[[Exception], tuple[int, str]]
    ) -> None:
        """Raise whatever the source raises before its first chunk.

        `explain` returns status and message for what it raises later.
        """
        self._chunks = chunks
        self._explain = explain
        self._ahead: list[bytes] = []
        self._ended = False
        self._closed = False
        # A generator that runs cannot be closed; so closing waits for the chunk being made.
        self._turn = threading.RLock()
        try:
            self._ahead.append(_event(next(chunks)))
        except StopIteration:
            self._end()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        """Return itself."""
        return self

    def __next__(self) -> bytes:
        """Return the next event."""
        with self._turn:
            if not self._ahead and not self._ended:
                self._fetch()
            if not self._ahead:
                raise StopIteration
            return self._ahead.pop(0)

    def close(self) -> None:
        """End the source, whether it was read to its end or not; may be called repeatedly."""
        with self._turn:
            self._ended = True
            close = getattr(self._chunks, "close", None)
            if self._closed or close is None:
                return
            self._closed = True
            try:
                close()
            except Exception:  # noqa: BLE001 - whatever it raises
                # Nobody is left to be told.
                _log.exception("a chat's stream did not close")

    def _fetch(self) -> None:
        try:
            self._ahead.append(_event(next(self._chunks)))
        except StopIteration:
            self._end()
        except Exception as error:  # noqa: BLE001 - the status is sent: only an event can tell
            status, message = self._explain(error)
            told = {"error": {"message": f"ERROR: {message}", "code": status}}
            self._ahead.append(_event(told))
            self.close()

    def _end(self) -> None:
        self._ahead.append(_DONE)
        self.close()


def _event(chunk: Any) -> bytes:
    # JSON has no line ends outside of texts, where they are written \n: one line is one event.
    return b"data: " + hook_json(chunk, "chat") + b"\n\n"
