"""Logs: drumd's events and the workers' lines, as JSON for machines or as text for people.

All of it goes to stderr. Service managers and container runtimes take both streams alike, so
nothing is lost by that; stdout stays free for what commands answer (`drumd check`, `--version`),
and one stream keeps the workers' lines and the events that explain them in order.
"""

import json
import logging
import os
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import structlog

from drumd.supervisor.observe.console import ConsoleRenderer
from drumd.supervisor.observe.journal import Entry
from drumd.supervisor.observe.levels import level_of
from drumd.supervisor.observe.sink import KeptSink, Sink

Form = Literal["auto", "console", "json"]
Stream = Literal["stdout", "stderr"]

_SYSLOG = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_MAX_NESTED = 65_536
"""Characters of a worker's line that is looked at for JSON."""


@dataclass(frozen=True, slots=True)
class KeptLogs:
    """The log over a re-exec: what still waits for its receiver."""

    sink: KeptSink
    told_dropped: int


class Logs:
    """Write events and workers' lines to `fd` without ever waiting for whoever reads them.

    Configures structlog and the root logger of `logging` for the whole process.
    """

    def __init__(self, fd: int = 2, *, level: str = "info", form: Form = "auto") -> None:
        terminal = os.isatty(fd)
        self._sink = Sink(fd)
        self._told_dropped = 0
        self._console = form == "console" or (form == "auto" and terminal)
        self._prefixed = _is_journal(fd, os.environ)
        colours = terminal and not os.environ.get("NO_COLOR")
        render: structlog.types.Processor = (
            ConsoleRenderer(colours=colours, dated=not terminal) if self._console else _render_json
        )
        processors = [structlog.processors.add_log_level, _stamp, render]
        structlog.configure(processors=processors, logger_factory=lambda *_: _Output(self))
        self._events = structlog.get_logger()
        # drumd's level does not apply to workers: what an app says is the app's to filter.
        self._lines = structlog.wrap_logger(
            _Output(self), processors, structlog.make_filtering_bound_logger(logging.NOTSET)
        )
        # What libraries log: asyncio's "exception was never retrieved", uvicorn's errors.
        root = logging.getLogger()
        root.handlers = [_FromLibraries(self._events)]
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Log events from `level` on; of what libraries log, warnings at the least."""
        threshold = logging.getLevelNamesMapping()[level.upper()]
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(threshold))
        logging.getLogger().setLevel(max(threshold, logging.WARNING))

    @property
    def dropped(self) -> int:
        """Lines that were lost because the receiver was stuck or gone."""
        return self._sink.dropped

    def log_fact(self, entry: Entry) -> None:
        """Write a journal's entry, at the level of its event."""
        document = entry.document()
        getattr(self._events, level_of(entry))(document.pop("event"), **document)

    def log_worker_line(
        self,
        *,
        pool: str,
        slot: int | None,
        gen: int,
        pid: int,
        stream: Stream,
        text: str,
        cut: bool,
        kind: str = "slot",
    ) -> None:
        """Write one line of a worker's output; `cut`: its end was left out for its length.

        One without a slot is known by its `kind` (spare, template) instead.
        """
        # A line that is a JSON object stays one, so that its fields can be searched, but below a
        # key of its own: it cannot pass for an event of drumd's.
        nested = None if self._console or cut else _nested(text)
        said: dict[str, Any] = {"line": text} if nested is None else {"json": nested}
        if cut:
            said["cut"] = True
        place: dict[str, int | str] = {"kind": kind} if slot is None else {"slot": slot}
        self._lines.info(
            "worker.output", pool=pool, **place, gen=gen, pid=pid, stream=stream, **said
        )

    def write(self, level: str, text: str) -> None:
        """Queue the rendered `text`, which may have several lines."""
        lost = self._sink.dropped - self._told_dropped
        if lost and not self._sink.full:
            self._told_dropped += lost
            self._events.warning("log.dropped", reason="the receiver was stuck", lines=lost)
        self._sink.write(self._encode(level, text))

    def keep(self) -> KeptLogs:
        """Return what `resume` needs."""
        return KeptLogs(self._sink.keep(), self._told_dropped)

    def resume(self, kept: KeptLogs) -> None:
        """Go on with what waited to be written before a re-exec."""
        self._sink.resume(kept.sink)
        self._told_dropped = kept.told_dropped

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait up to `timeout` seconds for the receiver to take all; say whether it did."""
        return self._sink.flush(timeout)

    def close(self, timeout: float = 1.0) -> bool:
        """Write what is left, for up to `timeout` seconds, and end the writer."""
        return self._sink.close(timeout)

    def _encode(self, level: str, text: str) -> bytes:
        if self._prefixed:
            prefix = f"<{_SYSLOG[level]}>"
            text = prefix + text.replace("\n", f"\n{prefix}")
        # A lone surrogate becomes \udc80, which is what JSON wants inside a string as well.
        return text.encode("utf-8", "backslashreplace") + b"\n"


class _Output:
    """What structlog's loggers end in: the level's name is the method's."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    def debug(self, text: str) -> None:
        self._logs.write("debug", text)

    def info(self, text: str) -> None:
        self._logs.write("info", text)

    def warning(self, text: str) -> None:
        self._logs.write("warning", text)

    def error(self, text: str) -> None:
        self._logs.write("error", text)

    def critical(self, text: str) -> None:
        self._logs.write("critical", text)


class _FromLibraries(logging.Handler):
    """Hand records of the standard `logging` to structlog, as one event with the text in it."""

    def __init__(self, events: Any) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            level = record.levelname.lower() if record.levelname in _STANDARD else "warning"
            getattr(self._events, level)("log.record", logger=record.name, reason=text)
        except Exception:  # noqa: BLE001 - logging's own rule: a broken record must not raise
            self.handleError(record)


_STANDARD = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


def _stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.setdefault("time", time.time())
    return event


def _render_json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    stamp = datetime.fromtimestamp(event.pop("time"), UTC).isoformat(timespec="milliseconds")
    first = {
        "time": stamp.replace("+00:00", "Z"),
        "level": event.pop("level"),
        "event": event.pop("event"),
    }
    return json.dumps({**first, **event}, ensure_ascii=False, default=str)


def _nested(text: str) -> dict[str, Any] | None:
    """Return the JSON object that `text` is, or None."""
    if not text.startswith("{") or not text.endswith("}") or len(text) > _MAX_NESTED:
        return None
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Say whether `fd` is journald's, as systemd.exec(5) describes for JOURNAL_STREAM."""
    status = os.fstat(fd)
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
