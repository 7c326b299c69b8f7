"""The doors of one pool: its listeners and who accepts from them, in line with its state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drumd.supervisor.core.model import Pool
from drumd.supervisor.core.views import acceptors, steering
from drumd.supervisor.pool.crew import Crew
from drumd.supervisor.pool.generations import Generations
from drumd.supervisor.pool.handle import Handle
from drumd.supervisor.sockets.binding import Listeners
from drumd.supervisor.sockets.errors import ListenError
from drumd.wire import messages
from drumd.wire.address import Address
from drumd.wire.messages import MAX_LISTENERS


@dataclass(frozen=True, slots=True)
class KeptDoors:
    """The doors over a re-exec."""

    balanced: bool
    quiet: frozenset[int]


class Doors:
    """Tells workers what to accept from, and has listeners come and go with the slots."""

    def __init__(
        self,
        crew: Crew,
        generations: Generations,
        listeners: Listeners,
        notice: Callable[[str], None],
    ) -> None:
        self._crew = crew
        self._generations = generations
        self._listeners = listeners
        self._notice = notice
        self._balanced = False
        self._quiet: set[int] = set()
        """Slots whose listeners nobody waits at any more: to be released by all, then dropped."""

    def keep(self) -> KeptDoors:
        """Return what `resume` needs."""
        return KeptDoors(self._balanced, frozenset(self._quiet))

    def resume(self, kept: KeptDoors) -> None:
        """Go on from before a re-exec."""
        self._balanced = kept.balanced
        self._quiet = set(kept.quiet)

    def project(self, pool: Pool) -> None:
        """Bring listeners, accept sets and steering in line with the pool's state."""
        self._balance(pool)
        listeners = self._listeners
        own = listeners.slots
        missing = set(range(pool.size)) - own - {0}
        if self._balanced and listeners.balance == "per-slot":
            if missing or listeners.retiring & set(range(pool.size)):
                self._grow(pool.size)
            for slot in own - set(range(max(1, len(pool.slots)))) - listeners.retiring:
                listeners.retire(slot)
        self._quiet &= listeners.retiring
        queues = listeners.slots - self._quiet
        for attempt, slots in acceptors(pool, queues).items():
            handle = self._crew.handles.get(attempt)
            if handle is not None:
                self._tell_accept(handle, slots)
        listeners.steer(steering(pool, queues - listeners.retiring))

    def look(self, pool: Pool) -> None:
        """Close what nobody waits at any more: first all workers release it, then it goes."""
        if not self._quiet and not self._listeners.removable:
            return
        self.project(pool)  # no event may have come since: now they are told, if they were not
        if all(
            handle.told is None or handle.acknowledged == handle.epoch
            for handle in self._crew.handles.values()
        ):
            for slot in list(self._quiet):
                self._listeners.drop(slot)
            self._quiet.clear()
            self._listeners.drop_removed()

    def retired_is_quiet(self, slot: int) -> None:
        """Nobody waits at a retiring slot's listeners: they are dropped once all released them."""
        self._quiet.add(slot)

    def rebind(self, addresses: Sequence[Address], *, backlog: int) -> None:
        """Listen on `addresses` and no others; raise `ListenError`, and then all is as before."""
        self._listeners.rebind(addresses, backlog=backlog)
        self._tell_notes()

    def queue_depths(self) -> dict[str, int]:
        """Return how many connections wait at each listener, where the kernel tells."""
        depths = {}
        for listener, label in self._listeners.labels().items():
            depth = self._listeners.depth(listener)
            if depth is not None:
                depths[label] = depth
        return depths

    def _balance(self, pool: Pool) -> None:
        """Settle who accepts from where, once a worker of the generation has told what serves.

        That is before the owner hears that it is ready, so nobody accepts before the first time.
        """
        generation = self._generations.get(pool.generation)
        wanted = None if generation is None else generation.balance
        if wanted is None or (self._balanced and wanted == self._listeners.balance):
            return
        self._balanced = True
        try:
            self._listeners.set_balance(wanted, slots=1)  # `project` adds the other slots'
        except ListenError as error:
            self._notice(str(error))
        self._tell_notes()

    def _grow(self, size: int) -> None:
        try:
            self._listeners.ensure_slots(size)
        except ListenError as error:
            self._notice(str(error))
        self._tell_notes()

    def _tell_accept(self, handle: Handle, slots: frozenset[int]) -> None:
        ids = [*self._listeners.shared_ids()]
        for slot in sorted(slots, key=lambda slot: (slot != handle.slot, slot)):
            ids += self._listeners.ids_for(slot)
        ids = ids[:MAX_LISTENERS]
        if handle.told == frozenset(ids) or handle.control is None:
            return
        handle.told = frozenset(ids)
        handle.epoch += 1
        handle.control.send(
            messages.Accept(epoch=handle.epoch, listeners=tuple(ids)), self._listeners.fds(ids)
        )

    def _tell_notes(self) -> None:
        notes, self._listeners.notes = self._listeners.notes, []
        for note in notes:
            self._notice(note)
