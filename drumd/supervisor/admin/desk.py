"""The operations desk: their ids, what became of them, and who waits for them."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from drumd.supervisor.admin.operator import FINAL, Operation, UnknownNameError
from drumd.supervisor.core.model import Operation as CoreOperation
from drumd.supervisor.core.model import OperationState

KEPT = 200
"""Finished operations that can still be asked for."""


@dataclass(frozen=True, slots=True)
class KeptDesk:
    """The desk over a re-exec; who waits asks again."""

    operations: tuple[Operation, ...]
    numbers: int


class Desk:
    """Operations of all pools, by id. All calls are on the loop."""

    def __init__(self) -> None:
        self._operations: OrderedDict[str, Operation] = OrderedDict()
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._numbers = 0

    def keep(self) -> KeptDesk:
        """Return what `resume` needs."""
        return KeptDesk(tuple(self._operations.values()), self._numbers)

    def resume(self, kept: KeptDesk) -> None:
        """Go on with the operations that were known before a re-exec."""
        self._operations = OrderedDict((known.id, known) for known in kept.operations)
        self._numbers = kept.numbers

    def new_id(self, pool: str) -> str:
        """Return an id that no other operation of this daemon has."""
        self._numbers += 1
        return f"{pool}-{self._numbers}"

    def update(
        self,
        pool: str,
        operations: Iterable[CoreOperation],
        *,
        last_lines: tuple[str, ...] = (),
    ) -> None:
        """Take note of how operations stand, and wake those who wait for a change.

        `last_lines`: of the worker that one failed by, if one of them has just failed.
        """
        for core in operations:
            known = self._operations.get(core.id)
            view = Operation(
                id=core.id,
                pool=pool,
                kind=core.kind,
                state=core.state,
                reason=core.reason,
                slot=core.slot,
                size=core.size,
                progress=core.progress,
                requested_by=core.by,
                slots=() if known is None else known.slots,
                last_lines=last_lines if core.state is OperationState.FAILED else (),
            )
            self.put(view)

    def draw(self, operation_id: str, slots: tuple[str, ...]) -> None:
        """Take note of how far an operation is, slot by slot."""
        known = self._operations.get(operation_id)
        if known is not None:
            self.put(replace(known, slots=slots))

    def put(self, operation: Operation) -> None:
        """Take note of how an operation stands, and wake those who wait for a change."""
        if self._operations.get(operation.id) != operation:
            self._operations[operation.id] = operation
            self._wake(operation.id)
            self._forget_old()

    def release(self) -> None:
        """Let all who wait have an answer now."""
        for operation_id in list(self._waiters):
            self._wake(operation_id)

    def _wake(self, operation_id: str) -> None:
        for waiter in self._waiters.pop(operation_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def get(self, operation_id: str) -> Operation:
        """Return an operation; raise `UnknownNameError`."""
        try:
            return self._operations[operation_id]
        except KeyError:
            recent = ", ".join(list(self._operations)[-5:]) or "none yet"
            raise UnknownNameError(
                f"cannot find operation {operation_id!r}; the latest ones: {recent}"
            ) from None

    async def wait(self, operation_id: str, timeout: float) -> Operation:  # noqa: ASYNC109 - see Operator
        """Return the operation once it changed, or is final, or after `timeout` seconds."""
        if self.get(operation_id).state not in FINAL:
            waiter = asyncio.get_running_loop().create_future()
            waiters = self._waiters.setdefault(operation_id, set())
            waiters.add(waiter)
            try:
                await asyncio.wait_for(waiter, timeout)
            except TimeoutError:
                waiters.discard(waiter)
        return self.get(operation_id)

    def _forget_old(self) -> None:
        surplus = len(self._operations) - KEPT
        for known in list(self._operations.values())[: max(0, surplus)]:
            if known.state in FINAL:
                del self._operations[known.id]
