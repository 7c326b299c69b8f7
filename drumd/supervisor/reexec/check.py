"""The check: whether the new program could take over, asked of the new program itself.

It is started as a child, by the same command and with the same state and fds, and does all that a
resumption does up to the point where something would be read or written.
"""

import asyncio
import json
import os
import signal
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress

from drumd.supervisor.processes.exits import Exits
from drumd.supervisor.processes.pipes import Line, LinePipe
from drumd.supervisor.processes.status import ExitStatus
from drumd.supervisor.reexec.errors import ReexecError
from drumd.supervisor.reexec.order import VARIABLE, Order
from drumd.wire.spec import INSTANCE_VARIABLE

DEADLINE = 30.0
"""Seconds for the new program to start and to read the state; it takes about one."""
_LAST_LINES = 20


class Check:
    """One look at the new program."""

    def __init__(self, loop: asyncio.AbstractEventLoop, exits: Exits, instance: str) -> None:
        self._loop = loop
        self._exits = exits
        self._instance = instance
        self._words: deque[str] = deque(maxlen=_LAST_LINES)
        self._answer: list[str] = []

    async def ask(self, path: str, command: Sequence[str], state: int, fds: Iterable[int]) -> str:
        """Return the version that would take over; raise `ReexecError` with the child's words."""
        exited: asyncio.Future[ExitStatus] = self._loop.create_future()
        pid = self._start(path, command, state, fds)

        def on_exit(_pid: int, status: ExitStatus) -> None:
            if not exited.done():
                exited.set_result(status)

        self._exits.watch(pid, on_exit)
        try:
            status = await asyncio.wait_for(asyncio.shield(exited), DEADLINE)
        except TimeoutError:
            raise ReexecError(
                f"cannot re-exec: the new program has not said within {DEADLINE:g} s whether it "
                f"can take over{self._quoted()}"
            ) from None
        finally:
            if not exited.done():
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        for pipe in self._pipes:
            pipe.drain(linger=0)
        with suppress(ValueError, LookupError, TypeError):
            if status.code == 0:
                return str(json.loads(self._answer[-1])["version"])
        raise ReexecError(
            f"cannot re-exec: the new program cannot take over ({status.describe()})"
            f"{self._quoted()}"
        )

    def _start(self, path: str, command: Sequence[str], state: int, fds: Iterable[int]) -> int:
        with ExitStack() as theirs:
            words, answer = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
            for fd in (words[1], answer[1]):
                theirs.callback(os.close, fd)
            self._pipes = [
                LinePipe(self._loop, words[0], self._said),
                LinePipe(self._loop, answer[0], self._answered),
            ]
            order = Order(task="check", state=state, answer=answer[1])
            environ = {
                **os.environ,
                VARIABLE: order.encode(),
                INSTANCE_VARIABLE: self._instance,  # so that the warden knows it for ours
            }
            kept = {state, answer[1], *fds}
            try:
                return os.posix_spawn(
                    path,
                    list(command),
                    environ,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, words[1], 1),
                        (os.POSIX_SPAWN_DUP2, words[1], 2),
                        # Onto itself: takes close-on-exec from it (posix_spawn, POSIX.1-2024).
                        *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in kept),
                    ],
                    setsid=True,
                    setsigmask=(),
                    setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
                )
            except OSError as error:
                for pipe in self._pipes:
                    pipe.close()
                raise ReexecError(
                    f"cannot re-exec: cannot start {path}: {error.strerror}"
                ) from error

    def _said(self, lines: list[Line]) -> None:
        self._words += [line.text for line in lines]

    def _answered(self, lines: list[Line]) -> None:
        self._answer += [line.text for line in lines]

    def _quoted(self) -> str:
        return "".join(f"\n  {line}" for line in self._words)
