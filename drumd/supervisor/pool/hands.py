"""The hands of one pool: they carry out what was decided, and bring sockets in line with it."""

import signal
from collections.abc import Iterable, Sequence

from drumd.config.settings import PoolSettings
from drumd.supervisor.core.actions import Action, Drain, DumpStacks, Kill, Spawn, Terminate
from drumd.supervisor.core.events import Event
from drumd.supervisor.core.model import Kind, Pool
from drumd.supervisor.pool.care import Care, Heard
from drumd.supervisor.pool.crew import Crew
from drumd.supervisor.pool.doors import Doors
from drumd.supervisor.pool.generations import Generations
from drumd.supervisor.pool.handle import Handle
from drumd.supervisor.pool.handovers import Handovers
from drumd.supervisor.pool.kept import KeptCrew, KeptHands, resumed_handle
from drumd.supervisor.pool.load import LoadGauge
from drumd.supervisor.pool.memory import MemoryGauge
from drumd.supervisor.pool.probes import Probes
from drumd.supervisor.pool.recycling import Recycling
from drumd.supervisor.pool.starts import Starts
from drumd.supervisor.pool.surroundings import Surroundings
from drumd.supervisor.pool.watching import Watch
from drumd.supervisor.sockets.binding import Listeners
from drumd.wire.address import Address
from drumd.wire.messages import Forked, ForkFailed
from drumd.wire.spec import STACKS_SIGNAL


class Hands:
    """One pool's processes and sockets. What they learn goes to the owner as events."""

    def __init__(
        self, name: str, begin: PoolSettings | KeptHands, listeners: Listeners, around: Surroundings
    ) -> None:
        """Begin with the settings of the first generation, or with what a re-exec has kept.

        Raise OSError or `ValidationError` when that cannot be gone on with; nothing is read,
        written or sent before the loop runs.
        """
        self.listeners = listeners
        self.generations = Generations(name, around)
        self.crew = Crew(pool=name)
        self._around = around
        self._doors = Doors(self.crew, self.generations, listeners, self._notice)
        self._probes = Probes(name, self.generations, around)
        heard = Heard(ready=self._ready, forked=self._forked, ended=self._ended)
        self._care = Care(self.crew, self.generations, around, heard)
        self._starts = Starts(self.crew, self.generations, around, self._care)
        self._handovers = Handovers(self.crew, self._notice)
        self._watch = Watch(self.crew, self.generations, around.board, around.look_interval)
        self._recycling = Recycling(self.crew, self.generations, around.board)
        self._memory = MemoryGauge(self.crew, self.generations, around)
        self._load = LoadGauge(self.crew, around.board, lambda: sum(self.queue_depths().values()))
        if isinstance(begin, KeptHands):
            self._resume(begin)
        else:
            self.crew.runtime = self.generations[self.prepare(begin)].runtime

    # --- what the owner calls -------------------------------------------------------------------

    def perform(self, action: Action) -> None:
        """Carry out an action; what goes wrong comes back as an event."""
        match action:
            case Spawn():
                self._starts.begin(action)
            case Drain():
                self._handovers.order(action)  # `project` knows to whom its connections go
            case DumpStacks() | Terminate() | Kill():
                handle = self.crew.handles.get(action.attempt)
                if handle is None:
                    # Its stacks are asked for when its start takes too long, and only then.
                    self._starts.call_off(action.attempt, late=isinstance(action, DumpStacks))
                else:
                    _signal(handle, action)

    def project(self, pool: Pool) -> None:
        """Bring what the workers were told, and the listeners, in line with the pool's state."""
        self.crew.assign(pool)
        generation = self.generations.get(pool.generation)
        if generation is not None and generation.runtime:
            self.crew.runtime = generation.runtime
        self._doors.project(pool)
        self._handovers.project(pool)
        self._probes.project(pool)
        self._memory.project(pool)
        self.generations.drop_unneeded(pool)

    def look(self, pool: Pool, now: float) -> Iterable[Event]:
        """Look at the ready workers' instruments; return what is to be decided about them."""
        self._doors.look(pool)
        self._memory.look(now)
        events: list[Event] = [*self._watch.look(pool, now), *self._recycling.look(pool, now)]
        load = self._load.look(pool, now)
        return events if load is None else [*events, load]

    # --- what the office calls ------------------------------------------------------------------

    def prepare(self, settings: PoolSettings) -> int:
        """Take up what a new generation's workers are made of; return its number."""
        return self.generations.prepare(settings)

    def reconfigure(self, settings: PoolSettings) -> None:
        """Have all generations follow what takes effect without new workers."""
        self.generations.reconfigure(settings)

    def rebind(self, addresses: Sequence[Address], *, backlog: int) -> None:
        """Listen on `addresses` and no others; raise `ListenError`, and then all is as before."""
        self._doors.rebind(addresses, backlog=backlog)

    async def measure(self, *, template: bool = False) -> None:
        """Have the owner know how many more workers fit, before it is asked for some.

        `template`: a new template is started first, and takes some of the room.
        """
        await self._memory.measure(template=template)

    def retired_is_quiet(self, slot: int) -> None:
        """Nobody waits at a retiring slot's listeners: they are dropped once all released them."""
        self._doors.retired_is_quiet(slot)

    def queue_depths(self) -> dict[str, int]:
        """Return how many connections wait at each listener, where the kernel tells."""
        return self._doors.queue_depths()

    def close(self) -> None:
        """Begin nothing any more: the pool is gone, or the daemon ends."""
        self._probes.close()
        self._memory.close()

    # --- over a re-exec ---------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether nothing goes on that an exec would tear."""
        return self._starts.settled and self._care.settled

    def keep(self) -> KeptHands:
        """Return what is needed to go on; nothing changes by it."""
        return KeptHands(
            crew=KeptCrew.of(self.crew),
            generations=self.generations.keep(),
            doors=self._doors.keep(),
            handovers=self._handovers.keep(),
            probes=self._probes.keep(),
            shares=self._recycling.keep(),
            awake=self._watch.awake,
        )

    def _resume(self, kept: KeptHands) -> None:
        crew = kept.crew
        self.generations.resume(kept.generations)
        self.crew.runtime = crew.runtime
        self.crew.pids = dict(crew.pids)
        self.crew.tally.resume(crew.tally)
        self.crew.last_words = list(crew.last_words)
        for worker in crew.handles:
            self._care.resume(resumed_handle(worker), worker)
        self._doors.resume(kept.doors)
        self._handovers.resume(kept.handovers)
        self._probes.resume(kept.probes, self.crew.handles.values())
        self._recycling.resume(kept.shares)
        self._watch.resume(kept.awake)

    # --- what the care hears --------------------------------------------------------------------

    def _ready(self, handle: Handle) -> bool:
        if handle.kind is Kind.TEMPLATE or not self._probes.wanted(handle):
            return True
        self._probes.begin(handle)
        return False

    def _forked(self, message: Forked | ForkFailed) -> None:
        self._starts.answered(message)

    def _ended(self, handle: Handle, how: str) -> None:
        self._starts.ended(handle, how)

    def _notice(self, text: str) -> None:
        self._around.notice(self.crew.pool, text)


def _signal(handle: Handle, action: DumpStacks | Terminate | Kill) -> None:
    match action:
        case DumpStacks():
            handle.sent.add(STACKS_SIGNAL)
            handle.child.signal(STACKS_SIGNAL)
        case Terminate():
            handle.sent.add(signal.SIGTERM)
            handle.child.signal_group(signal.SIGTERM)
        case Kill():
            handle.sent.add(signal.SIGKILL)
            handle.child.signal_group(signal.SIGKILL)
            if handle.cgroup is not None:
                handle.cgroup.kill()
