"""The conductor: leads a re-exec from the request to the exec itself.

Everything before the exec can be given up, and then the old program carries on as if nothing had
been. After it nothing can be asked for: the new program begins in `stub`.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol

from drumd.supervisor.admin.desk import Desk
from drumd.supervisor.admin.operator import DaemonTask, Operation, RefusedError
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import OperationState
from drumd.supervisor.fds import fds_in
from drumd.supervisor.reexec.check import Check
from drumd.supervisor.reexec.document import Errand, KeptDaemon, encode, to_memory
from drumd.supervisor.reexec.errors import ReexecError
from drumd.supervisor.reexec.order import VARIABLE, Order
from drumd.supervisor.reexec.program import Program

PATIENCE = 20.0
"""Seconds in which what an exec would tear has to come to an end."""
AGAIN_AFTER = 0.02
"""Seconds until another try."""
TURNS = 3
"""Goes of the loop from a signal's C handler to what was asked for by it: the loop reads its pipe,
then calls the handler."""


class Replaceable(Protocol):
    """The daemon, as its conductor sees it."""

    def refusal(self) -> str:
        """Say why the program cannot be replaced now; "" when it can."""

    def keep(self, errand: Errand, mask: Iterable[int]) -> KeptDaemon:
        """Return all that the new program needs; nothing changes by it."""

    def check(self) -> Check:
        """Return the means to ask the new program."""

    def paused(self) -> AbstractAsyncContextManager[None]:
        """Answer nobody on the admin sockets meanwhile; who connects waits."""

    async def quiet(self) -> None:
        """Wait until nothing goes on in the background that an exec would tear."""

    async def between_decisions(self, act: Callable[[], None]) -> None:
        """Have `act` done when all that has happened is decided, and nothing is torn by it.

        Raise `UnsettledError` when something goes on.
        """


class UnsettledError(Exception):
    """cannot exec right now: something goes on that it would tear."""


class Conductor:
    """Replaces the program on request, one request at a time."""

    def __init__(
        self, daemon: Replaceable, program: Program, desk: Desk, tell: Callable[[Fact], None]
    ) -> None:
        self._daemon = daemon
        self._program = program
        self._desk = desk
        self._tell = tell
        self._task: asyncio.Task[None] | None = None

    def request(self, by: str) -> Operation:
        """Begin; raise `RefusedError`. The operation is answered for by the new program."""
        refusal = self._daemon.refusal()
        if self._task is not None and not self._task.done():
            refusal = "one is under way already"
        if refusal:
            raise RefusedError(f"cannot re-exec: {refusal}")
        operation = Operation(
            id=self._desk.new_id("drumd"),
            pool="",
            kind=DaemonTask.RE_EXEC,
            state=OperationState.RUNNING,
            reason="asks the new program whether it can take over",
            requested_by=by,
        )
        self._desk.put(operation)
        said = f"re-exec: {operation.reason}"
        extra = {"operation": operation.id, "by": by}
        self._tell(Fact(event=Happened.OPERATION_STARTED, reason=said, extra=extra))
        self._task = asyncio.get_running_loop().create_task(self._carry_out(operation))
        return operation

    async def close(self) -> None:
        """Give up what goes on: the daemon ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _carry_out(self, operation: Operation) -> None:
        try:
            await self._replace(Errand(operation=operation.id, began=time.monotonic()))
        except ReexecError as error:
            end(self._desk, self._tell, operation.id, OperationState.FAILED, str(error))
        except Exception as error:  # noqa: BLE001 - a bug in here must not end the daemon
            said = f"cannot re-exec: internal error {error!r}"
            end(self._desk, self._tell, operation.id, OperationState.FAILED, said)

    async def _replace(self, errand: Errand) -> None:
        path = self._program.resolve()
        state = self._daemon.keep(errand, ())
        fd = to_memory(encode(state, self._program))
        try:
            await self._daemon.check().ask(path, self._program.command, fd, fds_in(state))
        finally:
            os.close(fd)
        patience = time.monotonic() + PATIENCE
        async with self._daemon.paused():
            while True:
                await self._daemon.quiet()
                with _blocked_signals() as mask:
                    for _ in range(TURNS):
                        await asyncio.sleep(0)
                    try:
                        await self._daemon.between_decisions(
                            partial(self._exec, path, errand, mask)
                        )
                    except UnsettledError as error:
                        if time.monotonic() > patience:
                            raise ReexecError(
                                f"cannot re-exec: for {PATIENCE:g} s {error}; try again later"
                            ) from error
                await asyncio.sleep(AGAIN_AFTER)

    def _exec(self, path: str, errand: Errand, mask: Iterable[int]) -> None:
        """Become the new program; return never, raise `ReexecError` when that cannot be."""
        if refusal := self._daemon.refusal():
            raise ReexecError(f"cannot re-exec: {refusal}")
        state = self._daemon.keep(errand, mask)
        fd = to_memory(encode(state, self._program))
        fds = [fd, *fds_in(state)]
        environ = {**os.environ, VARIABLE: Order(task="resume", state=fd).encode()}
        try:
            for each in fds:
                os.set_inheritable(each, True)
            os.execve(path, self._program.command, environ)  # noqa: S606 - no shell is the point
        except OSError as error:
            for each in fds:
                os.set_inheritable(each, False)
            os.close(fd)
            raise ReexecError(f"cannot re-exec: cannot execute {path}: {error.strerror}") from error


def end(
    desk: Desk,
    tell: Callable[[Fact], None],
    operation_id: str,
    state: OperationState,
    reason: str,
) -> None:
    """Tell how a re-exec ended."""
    operation = desk.get(operation_id)
    desk.put(replace(operation, state=state, reason=reason))
    event = Happened.OPERATION_DONE
    if state is OperationState.FAILED:
        event = Happened.OPERATION_FAILED
    extra = {"operation": operation_id, "by": operation.requested_by}
    tell(Fact(event=event, reason=f"re-exec: {reason}", extra=extra))


@contextmanager
def _blocked_signals() -> Iterator[frozenset[int]]:
    """Have all signals wait meanwhile; those that wait at an exec are the new program's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield frozenset(map(int, before))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
