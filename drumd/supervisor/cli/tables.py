"""The status document as people read it."""

import time
from collections.abc import Iterator
from typing import Any

from drumd.supervisor.cli.terminal import BOLD, DIM, GREEN, RED, YELLOW, Terminal
from drumd.supervisor.observe.console import escape

_COLOURS = {
    "ready": GREEN,
    "starting": YELLOW,
    "degraded": YELLOW,
    "stalled": YELLOW,
    "draining": YELLOW,
    "stopping": YELLOW,
    "backoff": YELLOW,
    "failed": RED,
    "killing": RED,
    "stopped": DIM,
    "empty": DIM,
}
_HEADS = ("SLOT", "PID", "STATE", "GEN", "FOR", "RESTARTS", "REQUESTS", "BUSY", "MEMORY")
_LEFT = frozenset({"STATE"})
"""Columns of words; numbers stand to the right."""
_KINDS = {
    "slot": ("workers", "slots"),
    "spare": ("spares", "spare_places"),
    "template": ("templates", "template_places"),
}
"""Where the document has the processes and the places of each kind."""
_NOTHING = "-"
_LEAST_REASON = 24
"""Columns below which a reason gets lines of its own."""
_INDENT = "  "
_REASON_INDENT = 9
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def render_status(document: dict[str, Any], terminal: Terminal, now: float | None = None) -> str:
    """Return the whole status. `now` is the wall time that ages are counted to."""
    now = time.time() if now is None else now
    state = str(document.get("state", "unknown"))
    facts = [
        f"drumd {document.get('version', '?')} {_painted(state, terminal)}",
        f"pid {document.get('pid', '?')}",
        f"up {age(document.get('since'), now)}",
    ]
    if document.get("admin_socket"):
        facts.append(str(document["admin_socket"]))
    blocks = [" · ".join(facts)]
    blocks += ["\n".join(_pool(pool, terminal, now)) for pool in document.get("pools", [])]
    return "\n\n".join(blocks)


def _pool(pool: dict[str, Any], terminal: Terminal, now: float) -> Iterator[str]:
    workers = pool.get("workers", [])
    ready = sum(worker.get("state") == "ready" for worker in workers)
    facts = [
        f"{ready} of {pool.get('size', '?')} ready",
        str(pool.get("runtime", "")),
        _generations(pool),
        str(pool.get("balance", "")),
    ]
    if pool.get("queue"):
        facts.append(f"{pool['queue']} waiting to be accepted")
    name = terminal.paint(escape(str(pool.get("name", "?"))), BOLD)
    state = _painted(str(pool.get("state", "unknown")), terminal)
    yield f"{name} {state} · {' · '.join(filter(None, facts))}"
    yield f"{_INDENT}{' '.join(map(str, pool.get('bind', [])))}"
    rows: list[_Row] = []
    for kind, (there, places) in _KINDS.items():
        found = pool.get(there, [])
        of_kind = [_worker_row(kind, worker, now) for worker in found]
        of_kind += _vacant_places(kind, pool.get(places, []), found)
        rows += sorted(of_kind, key=lambda row: row[0])
    # The pool's reason is made of its slots': it would stand there twice.
    if pool.get("state") != "ready" and not any(why for _, _, why in rows):
        yield from _wrapped(str(pool.get("reason") or ""), len(_INDENT), terminal)
    elif pool.get("aborted") and pool.get("state") == "ready":
        yield from _wrapped(str(pool["aborted"]), len(_INDENT), terminal)
    if operation := pool.get("operation"):
        text = f"{operation['kind']} {operation['id']}: {operation['reason']}"
        yield from _wrapped(text, len(_INDENT), terminal)
    if rows:
        yield from _table(rows, terminal)


def _generations(pool: dict[str, Any]) -> str:
    """Return which generation serves, and which one is on its way."""
    rollout = pool.get("rollout")
    to = f" to {rollout['generation']}" if rollout else ""
    return f"generation {pool.get('generation', '?')}{to}"


_Row = tuple[int, tuple[str, ...], str]
"""The slot, the cells, the reason."""


def _worker_row(kind: str, worker: dict[str, Any], now: float) -> _Row:
    state = str(worker.get("state"))
    stalled = bool(worker.get("stalled")) and state == "ready"
    cells = (
        _name(kind, worker.get("slot")),
        _count(worker.get("pid"), plain=True),
        "stalled" if stalled else state,
        _count(worker.get("generation")),
        age(worker.get("since"), now),
        _count(worker.get("restarts")),
        _count(worker.get("requests")),
        _count(worker.get("in_flight")),
        size(worker.get("memory")),
    )
    # That a ready worker is ready needs no reason in the table; `--json` has it.
    usual = state == "ready" and not stalled
    why = worker.get("outdated") if usual else worker.get("reason")
    return int(worker.get("slot", 0)), cells, str(why or "")


def _name(kind: str, number: Any) -> str:
    return str(number) if kind == "slot" else kind


def _vacant_places(
    kind: str, places: list[dict[str, Any]], workers: list[dict[str, Any]]
) -> list[_Row]:
    filled = {worker.get("slot") for worker in workers}
    rows = []
    for slot in places:
        if slot.get("slot") not in filled:
            cells = [_NOTHING] * len(_HEADS)
            cells[0], cells[2] = _name(kind, slot.get("slot")), str(slot.get("state"))
            reason = str(slot.get("reason") or "")
            if slot.get("retry_in") is not None:
                reason += f"; next try in {duration(slot['retry_in'])}"
            rows.append((int(slot.get("slot", 0)), tuple(cells), reason))
    return rows


def _table(rows: list[_Row], terminal: Terminal) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(_HEADS, *(r[1] for r in rows), strict=True)]
    used = len(_INDENT) + sum(widths) + 2 * len(widths)
    room = None if terminal.width is None else terminal.width - used
    inline = all(room is None or room >= min(len(why), _LEAST_REASON) for _, _, why in rows)
    inline = inline and all(room is None or len(why) <= room for _, _, why in rows)
    heads = (*_HEADS, "REASON") if inline and any(why for _, _, why in rows) else _HEADS
    yield terminal.paint(_INDENT + _line(heads, widths), DIM)
    for _, cells, why in rows:
        text = escape(why)
        painted = list(_aligned(cells, widths))
        painted[2] = _painted(cells[2], terminal, width=widths[2])
        if text and inline:
            painted.append(text)
        yield (_INDENT + "  ".join(painted)).rstrip()
        if text and not inline:
            yield from _wrapped(why, _REASON_INDENT, terminal)


def _aligned(cells: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    for head, cell, width in zip(_HEADS, cells, widths, strict=False):
        yield cell.ljust(width) if head in _LEFT else cell.rjust(width)


def _line(heads: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join([*_aligned(heads, widths), *heads[len(_HEADS) :]])


def _wrapped(text: str, indent: int, terminal: Terminal) -> Iterator[str]:
    """Yield `text` in as many lines as it needs: a reason is never cut."""
    text, space = escape(text), " " * indent
    if not text:
        return
    width = terminal.width
    if width is None or len(text) <= width - indent:
        yield space + text
        return
    import textwrap  # noqa: PLC0415 - few tables need it, all are to come quickly

    yield from textwrap.wrap(
        text, max(width, indent + 20), initial_indent=space, subsequent_indent=space
    )


def _painted(state: str, terminal: Terminal, width: int = 0) -> str:
    return terminal.paint(escape(state).ljust(width), _COLOURS.get(state, ""))


def _count(value: Any, *, plain: bool = False) -> str:
    if value is None:
        return _NOTHING
    return str(value) if plain else f"{value:,}"


def age(since: Any, now: float) -> str:
    """Return how long ago `since` (wall time, seconds) was."""
    return _NOTHING if since is None else duration(max(0.0, now - float(since)))


def duration(seconds: float) -> str:
    """Return a duration in at most two units."""
    if seconds < 10:  # noqa: PLR2004 - tenths matter only there
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02d}h"


def size(count: Any) -> str:
    """Return bytes in a unit of three digits at most."""
    if count is None:
        return _NOTHING
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:  # noqa: PLR2004 - SI units
            return f"{number:.1f}{unit}" if number < 10 and unit != "B" else f"{number:.0f}{unit}"  # noqa: PLR2004
        number /= 1000
    return f"{number:.1f}TB"
