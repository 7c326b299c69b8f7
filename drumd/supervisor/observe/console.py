"""Log lines for people: time, level, event, reason, then the keys; long texts in a block below."""

import re
from collections.abc import MutableMapping
from datetime import datetime
from typing import Any

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_BOLD = "\x1b[1m"
_LEVEL_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m"}
_RED = "\x1b[31m"
_HIDDEN_KEYS = frozenset({"seq", "attempt"})
"""Keys that programs follow; people are not helped by them in each line."""
_FAILURE = "worker.failed"
"""What says why, before all that follows from it."""
_AS_ABOVE = "as above"
_EVENT_WIDTH = 19
"""Columns of the longest event names, so that the reasons line up."""

# C0 without the tab, DEL, C1, and the marks that reorder text: none may reach a terminal raw.
_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    r"""Return `text` with control characters as `\x1b`: a log line must not steer a terminal."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - one byte


class ConsoleRenderer:
    """The last structlog processor. `dated` puts the date before the time (files, pipes).

    Without it somebody watches: what a failure leads to then does not say its sentence again.
    """

    def __init__(self, *, colours: bool, dated: bool) -> None:
        self._colours = colours
        self._brief = not dated
        self._said = ""
        self._time_format = "%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S"

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> str:
        """Return the event as one line, or more where it carries a text of several lines."""
        moment = event.pop("time")
        stamp = datetime.fromtimestamp(moment).strftime(self._time_format)  # noqa: DTZ006 - local time is for people
        stamp = self._paint(_DIM, f"{stamp}.{int(moment % 1 * 1000):03d}")
        level, name = event.pop("level"), event.pop("event")
        if name == "worker.output":
            return f"{stamp} {self._worker_line(event)}"
        reason, *block = self._shortened(name, str(event.pop("reason", ""))).splitlines() or [""]
        keys = []
        for key, value in event.items():
            if isinstance(value, str) and "\n" in value:
                block += [f"{key}:", *(f"  {line}" for line in value.splitlines())]
            elif key not in _HIDDEN_KEYS:
                keys.append(f"{self._paint(_DIM, f'{escape(key)}=')}{_value(value)}")
        head = [
            stamp,
            self._paint(_LEVEL_COLOURS.get(level, _RED), f"{level:<7}"),
            self._paint(_BOLD, f"{escape(name):<{_EVENT_WIDTH}}"),
            escape(reason),
            " ".join(keys),
        ]
        lines = [" ".join(part for part in head if part).rstrip()]
        lines += [f"    {escape(line)}" for line in block]
        return "\n".join(lines)

    def _shortened(self, name: str, reason: str) -> str:
        if not self._brief:
            return reason
        if name == _FAILURE:
            self._said = reason
            return reason
        return reason.replace(self._said, _AS_ABOVE) if self._said else reason

    def _worker_line(self, event: MutableMapping[str, Any]) -> str:
        who = f"{event['pool']}/{event.get('slot', event.get('kind'))}[{event['pid']}]"
        end = " …" if event.get("cut") else ""
        head = self._paint(_DIM, f"{event['stream']:<7} {who:<{_EVENT_WIDTH}}")
        return f"{head} {escape(event['line'])}{end}"

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours else text


def _value(value: Any) -> str:
    text = escape(str(value))
    return f'"{text}"' if " " in text or not text else text
