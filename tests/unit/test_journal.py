"""The journal: order, bounds, followers."""

import asyncio
from collections.abc import AsyncIterator

from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.observe.journal import MAX_TEXT, MAX_TOTAL_TEXT, Entry, Journal, Page


def _fact(reason: str, **extra: str) -> Fact:
    return Fact(event=Happened.DAEMON_NOTICE, reason=reason, extra=extra)


def _reasons(page: Page) -> list[str]:
    return [entry.fact.reason for entry in page.entries]


async def _next(pages: AsyncIterator[Page]) -> Page:
    return await asyncio.wait_for(anext(pages), 30)


def test_entries_are_numbered_in_order() -> None:
    """Entries come back in the order in which they were recorded, numbered from one."""
    journal = Journal(10)
    for reason in "abc":
        journal.record(_fact(reason))
    page = journal.since(0)
    assert [(entry.seq, entry.fact.reason) for entry in page.entries] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
    ]
    assert page.lost == 0


def test_reader_that_comes_late_learns_what_it_lost() -> None:
    """A reader whose position has been overwritten is told how many entries are gone."""
    journal = Journal(3)
    for number in range(10):
        journal.record(_fact(str(number)))
    page = journal.since(2)
    assert _reasons(page) == ["7", "8", "9"]
    assert page.lost == 5  # numbers 3 to 7 of 10


def test_limit_pages_through() -> None:
    """A limited read can be continued from where it ended."""
    journal = Journal(10)
    for number in range(5):
        journal.record(_fact(str(number)))
    first = journal.since(0, limit=2)
    second = journal.since(first.last, limit=10)
    assert _reasons(first) == ["0", "1"]
    assert _reasons(second) == ["2", "3", "4"]


def test_tail_loses_nothing() -> None:
    """The newest entries are had without anything counting as lost."""
    journal = Journal(3)
    for number in range(10):
        journal.record(_fact(str(number)))
    assert _reasons(journal.tail(2)) == ["8", "9"]
    assert (_reasons(journal.tail(50)), journal.tail(50).lost) == (["7", "8", "9"], 0)
    assert Journal(3).tail(2).entries == ()


def test_position_of_another_daemon_reads_nothing() -> None:
    """A position beyond the newest entry reads nothing, and is no error."""
    journal = Journal(3)
    journal.record(_fact("a"))
    page = journal.since(99)
    assert (page.entries, page.lost) == ((), 0)


def test_long_texts_keep_both_ends() -> None:
    """Of a text that is too long both ends are kept, and how much is missing is said."""
    journal = Journal(3)
    entry = journal.record(_fact("begin" + "x" * 100_000 + "end", stacks="y" * 100_000))
    assert entry.fact.reason.startswith("begin")
    assert entry.fact.reason.endswith("end")
    assert "characters left out" in entry.fact.reason
    assert len(str(entry.fact.extra["stacks"])) < MAX_TEXT + 100


def test_all_texts_together_are_bounded() -> None:
    """Entries with long texts push older ones out before the journal's size is reached."""
    journal = Journal(100_000)
    for _ in range(3 * MAX_TOTAL_TEXT // MAX_TEXT):
        journal.record(_fact("x" * MAX_TEXT))
    held = sum(len(entry.fact.reason) for entry in journal.since(0).entries)
    assert MAX_TOTAL_TEXT // 2 < held <= MAX_TOTAL_TEXT


def test_document_has_no_nulls_and_keeps_its_names() -> None:
    """An entry's document leaves out what is not there; an extra key cannot replace a named one."""
    fact = Fact(
        event=Happened.WORKER_EXITED,
        reason="exited with 3",
        pool="web",
        slot=0,
        generation=2,
        attempt=7,
        extra={"pid": 99, "exit": 3, "event": "forged", "lease": None},
    )
    assert Entry(5, 1.5, fact).document() == {
        "seq": 5,
        "time": 1.5,
        "event": "worker.exited",
        "pool": "web",
        "slot": 0,
        "gen": 2,
        "attempt": 7,
        "reason": "exited with 3",
        "pid": 99,
        "exit": 3,
    }


async def test_followers_get_what_comes() -> None:
    """Each follower gets the entries after its position, those to come included."""
    journal = Journal(10)
    journal.record(_fact("before"))
    from_start, from_now = journal.follow(0), journal.follow(journal.last)
    assert _reasons(await _next(from_start)) == ["before"]
    both = asyncio.gather(_next(from_start), _next(from_now))
    await asyncio.sleep(0)
    journal.record(_fact("after"))
    assert [_reasons(page) for page in await both] == [["after"], ["after"]]


async def test_slow_follower_holds_nobody_up() -> None:
    """A follower that does not read loses entries and is told how many; recording goes on."""
    journal = Journal(4)
    slow = journal.follow(0)
    journal.record(_fact("first"))
    assert _reasons(await _next(slow)) == ["first"]
    for number in range(10):
        journal.record(_fact(str(number)))
    page = await _next(slow)
    assert (_reasons(page), page.lost) == (["6", "7", "8", "9"], 6)


async def test_closing_ends_followers_after_the_last_entry() -> None:
    """A closed journal lets followers read all there is, then ends them."""
    journal = Journal(4)
    follower = journal.follow(0)
    journal.record(_fact("last words"))
    journal.close()
    assert [_reasons(page) async for page in follower] == [["last words"]]


async def test_cancelled_follower_leaves_nothing_behind() -> None:
    """A follower that is cancelled while it waits is forgotten by the journal."""
    journal = Journal(4)
    waiting = asyncio.ensure_future(anext(journal.follow(0)))
    await asyncio.sleep(0)
    assert len(journal._waiters) == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not journal._waiters
