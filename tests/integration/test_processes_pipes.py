import asyncio
import os
import signal
import sys
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from drumd.supervisor.processes.exits import Exits
from drumd.supervisor.processes.pipes import MAX_LINE, Line, LinePipe
from tests.processes import start, start_shell
from tests.waiting import until


class Reader:
    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.ended = 0
        self.read, self.write = os.pipe()
        self.pipe = LinePipe(asyncio.get_running_loop(), self.read, self.lines.extend, self._end)

    def _end(self) -> None:
        self.ended += 1

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]


@pytest.fixture
async def reader() -> AsyncIterator[Reader]:
    reader = Reader()
    yield reader
    reader.pipe.close()


async def test_lines_are_passed_on(reader: Reader) -> None:
    """Lines come whole, in order, without their ends; an unfinished one comes at the end."""
    os.write(reader.write, b"one\ntwo\r\n\nth")
    await until(lambda: len(reader.lines) == 3)
    os.write(reader.write, b"ree\nun")
    os.write(reader.write, "fertig ü".encode() + b"\xff")
    os.close(reader.write)
    await until(lambda: reader.ended)
    assert reader.texts == ["one", "two", "", "three", "unfertig ü\N{REPLACEMENT CHARACTER}"]
    assert reader.pipe.closed
    reader.pipe.close()
    assert reader.ended == 1


async def test_a_long_line_is_cut(reader: Reader) -> None:
    """A line longer than the limit comes in parts, none with half a character."""
    text = "ü" * MAX_LINE + "x"
    content = text.encode() + b"\nshort\n"
    os.set_blocking(reader.write, False)
    while content:
        with suppress(BlockingIOError):
            content = content[os.write(reader.write, content) :]
        await asyncio.sleep(0)
    await until(lambda: reader.texts[-1:] == ["short"])
    *parts, last, short = reader.lines
    assert "".join(line.text for line in [*parts, last]) == text
    assert all(line.cut for line in parts)
    assert not last.cut
    assert not short.cut
    assert all(len(line.text.encode()) <= MAX_LINE for line in reader.lines)


async def flood(script: str) -> tuple[int, int, int | None]:
    """Read all that a process prints; return bytes, the peak of memory, and its exit code."""
    loop = asyncio.get_running_loop()
    seen = 0
    codes: list[int | None] = []

    def count(lines: list[Line]) -> None:
        nonlocal seen
        seen += sum(len(line.text) + (not line.cut) for line in lines)

    read, write = os.pipe()
    exits = Exits(loop)
    tracemalloc.start()
    pipe = LinePipe(loop, read, count)
    pid = start(sys.executable, "-c", script, stdout=write)
    exits.watch(pid, lambda _pid, status: codes.append(status.code), group=False)
    os.close(write)
    await until(lambda: pipe.closed and codes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    exits.close()
    return seen, peak, codes[0]


async def test_a_flood_stops_nobody() -> None:
    """50 MB of lines are read in bounded memory while the writer runs to its end."""
    script = "import sys\nfor _ in range(500): sys.stdout.write(('x' * 99 + '\\n') * 1000)"
    seen, peak, code = await flood(script)
    assert (seen, code) == (50_000_000, 0)
    assert peak < 4_000_000


async def test_a_line_without_end_stops_nobody() -> None:
    """10 MB without a line's end are read in bounded memory."""
    seen, peak, code = await flood("import sys; sys.stdout.write('x' * 10_000_000)")
    assert (seen, code) == (10_000_001, 0)
    assert peak < 4_000_000


async def test_a_drain_ends_though_a_child_holds_the_pipe(reader: Reader) -> None:
    """After an exit what is there is read and the pipe is closed, whoever still holds it."""
    os.write(reader.write, b"last words\nhalf")
    reader.pipe.drain(linger=0.05)
    assert reader.texts == ["last words"]
    os.write(reader.write, b" line")
    await until(lambda: reader.pipe.closed)
    assert reader.texts == ["last words", "half line"]
    assert reader.ended == 1
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with pytest.raises(BrokenPipeError):
        os.write(reader.write, b"x")
    signal.signal(signal.SIGPIPE, before)
    os.close(reader.write)


async def test_other_things_get_their_turn() -> None:
    """While one worker floods its pipe, another one's line is read."""
    noisy, quiet = Reader(), Reader()
    pid = start_shell("yes", stdout=noisy.write)
    exits = Exits(asyncio.get_running_loop())
    gone: list[int] = []
    exits.watch(pid, lambda pid, _status: gone.append(pid))
    os.close(noisy.write)
    await until(lambda: noisy.lines)
    os.write(quiet.write, b"hello\n")
    await until(lambda: quiet.lines)
    os.killpg(pid, signal.SIGKILL)
    await until(lambda: gone and noisy.pipe.closed)
    quiet.pipe.close()
    os.close(quiet.write)
    exits.close()
