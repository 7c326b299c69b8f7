"""Clients that ask all the time, in a process of their own, and a record of each request's fate.

They speak HTTP/1.1 as strictly as it allows: what a client writes to a connection that ends before
the whole answer has come is a failed request, and none is sent twice. Run by `Clients`, which
tells the process what to do over a pipe; `python -m tests.e2e.clients --help` by hand.
"""

import argparse
import asyncio
import json
import os
import random
import ssl
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.asking import Connection, Failed, Question, Told
from tests.waiting import CAP, wait_until

SHOWN_FAILURES = 20


@dataclass(slots=True)
class Report:
    """What became of the requests of some time."""

    ok: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """By why: see `tests.e2e.asking.Failed`."""
    failed_new: int = 0
    """Of the failed, those whose connection had not answered anything yet."""
    failures: list[str] = field(default_factory=list)
    """The first of them: when, which client, its request and connection."""
    idle_closes: int = 0
    """Connections that ended while their client paused, and no answer had said so."""
    told_closes: int = 0
    """Answers that said `Connection: close` to a client that would have stayed."""
    moved: int = 0
    """Times that another worker went on with a connection."""
    opened: int = 0
    served_by: Counter[str] = field(default_factory=Counter)
    """Answers by what the app says of itself: `<version> <pid>`."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answered request, its new connection included, a pause amid it left out."""

    @classmethod
    def decode(cls, line: str) -> Self:
        """Read one as the process writes it."""
        document = json.loads(line)
        for name in ("failed", "served_by"):
            document[name] = Counter(document[name])
        return cls(**document)

    def encode(self) -> str:
        """Write it as one line."""
        # `asdict` of Python 3.11 breaks a Counter.
        return json.dumps({each.name: getattr(self, each.name) for each in fields(self)})

    def __add__(self, other: "Report") -> "Report":
        return Report(
            self.ok + other.ok,
            self.failed + other.failed,
            self.failed_new + other.failed_new,
            (self.failures + other.failures)[:SHOWN_FAILURES],
            self.idle_closes + other.idle_closes,
            self.told_closes + other.told_closes,
            self.moved + other.moved,
            self.opened + other.opened,
            self.served_by + other.served_by,
            self.latencies + other.latencies,
        )

    @property
    def lost(self) -> int:
        """Return how many requests failed, for whatever reason."""
        return self.failed.total()

    @property
    def pids(self) -> set[int]:
        """Return the pids that answered."""
        return {int(each.split()[1]) for each in self.served_by}

    @property
    def versions(self) -> set[str]:
        """Return the versions of the app that answered."""
        return {each.split()[0] for each in self.served_by}

    def latency(self, part: float) -> float:
        """Return the latency in seconds that `part` (0 to 1) of the requests did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0

    def __str__(self) -> str:
        times = " ".join(
            f"{name} {self.latency(part) * 1e3:.0f}"
            for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        )
        summary = (
            f"{self.ok} answered by {len(self.served_by)} workers, {self.lost} failed "
            f"{dict(self.failed)}, {self.idle_closes} connections closed while idle, "
            f"{self.told_closes} told to close, {self.moved} moved, {self.opened} opened; "
            f"ms: {times}"
        )
        return "\n  ".join([summary, *self.failures])


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Who asks, and how. Times in seconds."""

    kept: int = 32
    """Clients that keep their connection; every other one pauses between requests."""
    renewing: int = 8
    """Clients that open a new connection for each request."""
    pause: float = 2.0
    """The longest pause of those that pause."""
    breath: float = 0.05
    """The longest pause of those that don't: so that a machine with few CPUs does not drown."""
    patience: float = 30.0
    """How long a client waits for an answer."""
    path: str = "/echo"
    odd: float = 0.1
    """Share of the requests that come in two parts, and of those that have a body."""
    trust: str = ""
    """Path of the certificate to speak TLS with; empty: none is spoken."""

    def arguments(self) -> list[str]:
        return [f"--{name}={value}" for name, value in asdict(self).items()]


class _Client:
    """One client: asks, and notes what comes of it."""

    def __init__(self, number: int, crowd: Crowd, port: int, seed: str) -> None:
        self._number = number
        self._crowd = crowd
        self._port = port
        self._random = random.Random(f"{seed}.{number}")
        self._keeps = number < crowd.kept
        self._tls = ssl.create_default_context(cafile=crowd.trust) if crowd.trust else None
        self._pause = crowd.pause if self._keeps and number % 2 else crowd.breath
        self._asked = 0
        self.report = Report()

    def cut(self) -> Report:
        report, self.report = self.report, Report()
        return report

    async def run(self, stop: asyncio.Event) -> None:
        connection: Connection | None = None
        # Else all begin, and pause, at the same moment.
        await _either(stop, self._random.uniform(0, self._pause))
        while not stop.is_set():
            connection = await self._ask(connection)
            pause = self._random.uniform(0, self._pause)
            if connection is None:
                await _either(stop, pause)
            elif await connection.ends_within(pause, stop):
                self.report.idle_closes += 1
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    async def _ask(self, connection: Connection | None) -> Connection | None:
        """Ask once; return the connection if it is to be used again."""
        question = self._question()
        began = time.monotonic()
        used = 0 if connection is None else connection.answers
        told: Told | None = None
        try:
            async with asyncio.timeout(self._crowd.patience):
                if connection is None:
                    connection = await Connection.open(self._port, self._tls)
                    self.report.opened += 1
                told = await connection.ask(question)
        except Failed as failed:
            self._note(str(failed), question, used)
        except TimeoutError:
            self._note("timeout", question, used)
        if told is not None:
            self.report.ok += 1
            self.report.latencies.append(round(time.monotonic() - began - question.gap, 4))
            self.report.served_by[told.served_by] += 1
            assert connection is not None
            self.report.moved += connection.served_by not in ("", told.served_by)
            connection.served_by = told.served_by
            if self._keeps and told.closes:
                self.report.told_closes += 1
            if self._keeps and not told.closes:
                return connection
        if connection is not None:
            connection.close()
        return None

    def _question(self) -> Question:
        self._asked += 1
        kind = self._random.random()
        return Question(
            path=f"{self._crowd.path}/{self._number}.{self._asked}",
            closes=not self._keeps,
            body=self._random.randbytes(200) if kind < self._crowd.odd else b"",
            # Of the odd ones with a body and of some without, the rest comes a little later.
            gap=self._random.uniform(0.001, 0.03)
            if self._crowd.odd / 2 < kind < 1.5 * self._crowd.odd
            else 0.0,
        )

    def _note(self, why: str, question: Question, used: int) -> None:
        self.report.failed[why] += 1
        self.report.failed_new += not used
        self.report.failures.append(
            f"{time.time():.3f} client {self._number}: {why}: {question.path}, after {used} "
            f"answers on the connection{', in two parts' if question.gap else ''}"
        )


async def _either(stop: asyncio.Event, seconds: float) -> None:
    """Pause, but not beyond the end."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def _run(port: int, crowd: Crowd, seed: str) -> None:
    """Ask until stdin ends; write a report for each line that is read, and one at the end."""
    stop = asyncio.Event()
    clients = [_Client(n, crowd, port, seed) for n in range(crowd.kept + crowd.renewing)]
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(stop))
        while await commands.readline():
            _write(clients)
        stop.set()
    _write(clients)


def _write(clients: list[_Client]) -> None:
    report = sum((client.cut() for client in clients), Report())
    print(report.encode(), flush=True)  # noqa: T201 - to `Clients`


class Clients:
    """A crowd that asks while the `with` block runs; see `Report` for what is to be learnt."""

    def __init__(self, port: int, crowd: Crowd | None = None, seed: str | None = None) -> None:
        self.seed = seed or os.environ.get("CLIENTS_SEED") or f"{random.getrandbits(32):x}"
        self._command = [
            *(sys.executable, "-m", __name__, f"--port={port}", f"--seed={self.seed}"),
            *(crowd or Crowd()).arguments(),
        ]
        self.total = Report()
        """All that was reported so far; whole after the block."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        try:
            self.wait_more()
        except BaseException:
            self._process.kill()
            raise
        return self

    def cut(self) -> Report:
        """Return what happened since the last cut. A request counts where it ends."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def wait_more(self, answers: int = 100) -> Report:
        """Wait for that many further answers, proof that the clients go on; return them."""
        seen = Report()

        def enough() -> bool:
            nonlocal seen
            seen += self.cut()
            return seen.ok >= answers

        wait_until(enough, what=f"{answers} answers; {self}", every=0.05)
        return seen

    def _read(self) -> Report:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the clients ended with {self._process.wait(CAP)}; what they said is above"
        report = Report.decode(line)
        self.total += report
        return report

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._read()
            self._process.wait(CAP)
        finally:
            self._process.kill()
            self._process.wait()

    def __str__(self) -> str:
        return f"clients, CLIENTS_SEED={self.seed}: {self.total}"


def _main() -> None:
    parser = argparse.ArgumentParser(
        description="Ask all the time; a line on stdin gets a report since the last, its end ends."
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", default="0")
    for name, default in asdict(Crowd()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    arguments = vars(parser.parse_args())
    port, seed = arguments.pop("port"), arguments.pop("seed")
    asyncio.run(_run(port, Crowd(**arguments), seed))


if __name__ == "__main__":
    _main()
