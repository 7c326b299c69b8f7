"""The journal: the ordered, bounded record of what happened, which `drumctl events` shows.

The ring itself is every follower's queue. A follower is a position in it, so a slow one costs
nothing, holds nobody up, and learns how many entries it lost when it comes back.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from drumd.supervisor.core.facts import Fact, Happened

MAX_TEXT = 16_384
"""Characters of one text (a reason, the stacks of a worker) that are kept."""
_KEPT_END = 4_096
MAX_TOTAL_TEXT = 8 * 1024 * 1024
"""Characters that all entries together may hold; beyond it the oldest ones go."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A fact with its place in the order, and the wall time (seconds) at which it was recorded."""

    seq: int
    time: float
    fact: Fact

    def document(self) -> dict[str, Any]:
        """Return the entry as the JSON object that the admin API shows; no key is null."""
        fact = self.fact
        named = {
            "seq": self.seq,
            "time": self.time,
            "event": str(fact.event),
            "pool": fact.pool,
            "slot": fact.slot,
            "gen": fact.generation,
            "attempt": fact.attempt,
            "reason": fact.reason,
        }
        # The named keys win: an extra key must not be able to change what an entry is.
        merged = {**fact.extra, **{key: value for key, value in named.items() if value is not None}}
        order = dict.fromkeys((*named, *fact.extra))
        return {key: merged[key] for key in order if merged.get(key) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptEntry:
    """An entry over a re-exec; its event may be one that another version lacks."""

    seq: int
    time: float
    event: str
    reason: str
    pool: str | None = None
    slot: int | None = None
    generation: int | None = None
    attempt: int | None = None
    extra: Mapping[str, int | float | str | None]

    @classmethod
    def of(cls, entry: Entry) -> "KeptEntry":
        """Return what `entry` needs."""
        fact = entry.fact
        return cls(
            seq=entry.seq,
            time=entry.time,
            event=fact.event.value,
            reason=fact.reason,
            pool=fact.pool,
            slot=fact.slot,
            generation=fact.generation,
            attempt=fact.attempt,
            extra=dict(fact.extra),
        )

    def entry(self) -> Entry:
        """Return the entry; an event that is not known here is a notice that names it."""
        known = self.event in {event.value for event in Happened}
        fact = Fact(
            event=Happened(self.event) if known else Happened.DAEMON_NOTICE,
            reason=self.reason if known else f"{self.event}: {self.reason}",
            pool=self.pool,
            slot=self.slot,
            generation=self.generation,
            attempt=self.attempt,
            extra=self.extra,
        )
        return Entry(self.seq, self.time, fact)


@dataclass(frozen=True, slots=True)
class KeptJournal:
    """The journal over a re-exec; followers come again with the last number that they know."""

    entries: tuple[KeptEntry, ...]
    last: int


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive entries, and how many were lost between the asked position and the first."""

    entries: tuple[Entry, ...]
    lost: int
    last: int
    """The position to go on from."""


class Journal:
    """Keep the last `size` facts. All calls are on the event loop (or before it runs)."""

    def __init__(self, size: int) -> None:
        self._entries: deque[Entry] = deque()
        self._size = size
        self._weight = 0
        self._last = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False
        self._partings = 0

    @property
    def last(self) -> int:
        """The number of the newest entry; 0 before the first."""
        return self._last

    def keep(self) -> KeptJournal:
        """Return what `resume` needs."""
        return KeptJournal(tuple(map(KeptEntry.of, self._entries)), self._last)

    def resume(self, kept: KeptJournal) -> None:
        """Go on with what was recorded before a re-exec."""
        self._entries = deque(each.entry() for each in kept.entries)
        self._weight = sum(map(_weight, self._entries))
        self._last = kept.last
        self._trim()

    def record(self, fact: Fact) -> Entry:
        """Append `fact`, cut to what is kept of long texts, and wake the followers."""
        self._last += 1
        entry = Entry(self._last, time.time(), _bounded(fact))
        self._entries.append(entry)
        self._weight += _weight(entry)
        self._trim()
        self._wake()
        return entry

    def _trim(self) -> None:
        while len(self._entries) > self._size or (
            self._weight > MAX_TOTAL_TEXT and len(self._entries) > 1
        ):
            self._weight -= _weight(self._entries.popleft())

    def since(self, seq: int, limit: int | None = None) -> Page:
        """Return the entries after number `seq`, oldest first, at most `limit` of them."""
        first = self._last - len(self._entries) + 1
        start = max(first, seq + 1)
        entries = tuple(islice(self._entries, start - first, None))[:limit]
        return Page(
            entries, lost=max(0, first - 1 - max(seq, 0)), last=entries[-1].seq if entries else seq
        )

    def tail(self, count: int) -> Page:
        """Return the newest `count` entries; nothing counts as lost."""
        return self.since(max(self._last - count, self._last - len(self._entries)))

    async def follow(self, seq: int) -> AsyncIterator[Page]:
        """Yield what comes after number `seq`, as it comes, until the journal is closed."""
        partings = self._partings
        while True:
            page = self.since(seq)
            if page.entries:
                seq = page.last
                yield page
            elif self._closed or self._partings != partings:
                return
            else:
                await self._next()

    def part(self) -> None:
        """Let those who follow now end once they have read all; new ones may come."""
        self._partings += 1
        self._wake()

    def close(self) -> None:
        """Let the followers end once they have read all; `record` goes on working."""
        self._closed = True
        self._wake()

    async def _next(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def cut(text: str) -> str:
    """Return `text`, its middle left out when it is longer than `MAX_TEXT` characters."""
    if len(text) <= MAX_TEXT:
        return text
    # Stacks have the newest call first, tracebacks have it last: both ends matter.
    begin = MAX_TEXT - _KEPT_END
    left_out = len(text) - MAX_TEXT
    return f"{text[:begin]}\n… {left_out} characters left out …\n{text[-_KEPT_END:]}"


def _bounded(fact: Fact) -> Fact:
    extra = {
        key: cut(value) if isinstance(value, str) else value for key, value in fact.extra.items()
    }
    return replace(fact, reason=cut(fact.reason), extra=extra)


def _weight(entry: Entry) -> int:
    texts = (value for value in entry.fact.extra.values() if isinstance(value, str))
    return len(entry.fact.reason) + sum(map(len, texts))
