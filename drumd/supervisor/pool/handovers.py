"""Handovers: draining workers are told to go, and whom they give their idle connections to."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from drumd.supervisor.core.actions import Drain
from drumd.supervisor.core.model import Pool, Worker, WorkerState
from drumd.supervisor.core.views import heirs
from drumd.supervisor.pool.crew import Crew
from drumd.supervisor.pool.handle import Handle
from drumd.wire import messages
from drumd.wire.handover import make_channel


@dataclass(frozen=True, slots=True)
class KeptHandovers:
    """What leavers were told, over a re-exec: their channels are between workers alone."""

    ordered: Mapping[int, Drain]
    told: Mapping[int, frozenset[int]]


class Handovers:
    """Sends the `Drain` of each worker that leaves, with a channel to each of its heirs.

    A worker is told once, and again when there are heirs and it has none that lives.
    """

    def __init__(self, crew: Crew, notice: Callable[[str], None]) -> None:
        self._crew = crew
        self._notice = notice
        self._ordered: dict[int, Drain] = {}
        """What was decided of each leaver; sent with the next `project`."""
        self._told: dict[int, frozenset[int]] = {}
        """The heirs that each leaver was told."""

    def keep(self) -> KeptHandovers:
        """Return what `resume` needs."""
        return KeptHandovers(dict(self._ordered), dict(self._told))

    def resume(self, kept: KeptHandovers) -> None:
        """Go on from before a re-exec."""
        self._ordered = dict(kept.ordered)
        self._told = dict(kept.told)

    def order(self, drain: Drain) -> None:
        """Note that a worker is to leave."""
        self._ordered[drain.attempt] = drain

    def project(self, pool: Pool) -> None:
        """Tell leavers what they do not know yet."""
        for kept in (self._ordered, self._told):
            for attempt in kept.keys() - self._crew.handles.keys():
                del kept[attempt]
        found = heirs(pool)
        for attempt, handle in self._crew.handles.items():
            worker = pool.workers.get(attempt)
            if worker is None or worker.state is not WorkerState.DRAINING:
                continue
            self._tell(pool, worker, handle, found)

    def _tell(
        self, pool: Pool, worker: Worker, leaver: Handle, found: Mapping[int, tuple[int, ...]]
    ) -> None:
        told = self._told.get(worker.attempt)
        order = self._ordered.get(worker.attempt)
        if told is not None and any(self._serves(pool, heir) for heir in told):
            return
        able = self._able(leaver, found.get(worker.attempt, ()))
        if not able and (told is not None or order is None):
            return  # nothing new, or it leaves by itself, as it knows to without heirs
        if order is None:
            # Somebody else's signal made it leave; its own clock says the same as the worker's.
            order = Drain(
                attempt=worker.attempt,
                deadline=worker.deadline or worker.since + pool.policy.grace_period,
                linger=min(pool.policy.linger, pool.policy.grace_period),
            )
        self._told[worker.attempt] = self._send(leaver, order, able)

    def _serves(self, pool: Pool, attempt: int) -> bool:
        worker = pool.workers.get(attempt)
        return worker is not None and worker.state is WorkerState.READY

    def _able(self, leaver: Handle, attempts: tuple[int, ...]) -> list[Handle]:
        """Return the heirs that can take what the leaver can give."""
        if not leaver.handover:
            return []
        handles = (self._crew.handles.get(attempt) for attempt in attempts)
        return [h for h in handles if h is not None and h.handover and h.control is not None]

    def _send(self, leaver: Handle, order: Drain, able: list[Handle]) -> frozenset[int]:
        """Send the channels' ends to both sides; return the heirs that have got one."""
        told: list[int] = []
        with ExitStack() as ours:
            ends = []
            for heir in able:
                try:
                    channel, other = make_channel()
                except OSError as error:
                    self._notice(
                        f"cannot hand over connections of attempt {leaver.attempt}: "
                        f"{error.strerror}; it closes them instead"
                    )
                    break
                ours.enter_context(channel)
                ours.enter_context(other)
                if heir.control is not None:
                    heir.control.send(messages.TakeOver(attempt=leaver.attempt), [other.fileno()])
                    ends.append(channel)
                    told.append(heir.attempt)
            if leaver.control is not None:
                leaver.control.send(
                    messages.Drain(deadline=order.deadline, linger=order.linger, heirs=len(ends)),
                    [end.fileno() for end in ends],
                )
        return frozenset(told)
