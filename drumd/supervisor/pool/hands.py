"""The hands of one pool: they carry out what was decided, and bring sockets in line with it."""

import signal
import time
from collections.abc import Iterable
from pathlib import Path

from drumd.config.settings import PoolSettings
from drumd.supervisor.core.actions import Action, Drain, DumpStacks, Kill, Spawn, Terminate
from drumd.supervisor.core.events import Event, Hung, Recovered, SpawnFailed, Stalled
from drumd.supervisor.core.model import Pool, Worker, WorkerState
from drumd.supervisor.core.views import acceptors, steering
from drumd.supervisor.health.watch import AwakeClock, Pulse, feel, judge
from drumd.supervisor.pool.care import Care
from drumd.supervisor.pool.crew import Crew
from drumd.supervisor.pool.handle import Handle
from drumd.supervisor.pool.kept import KeptCrew, KeptHands, resumed_handle
from drumd.supervisor.pool.leases import NoLeaseError
from drumd.supervisor.pool.specs import limits, worker_spec
from drumd.supervisor.pool.surroundings import Surroundings
from drumd.supervisor.processes.cgroup import CgroupError
from drumd.supervisor.processes.spawn import SpawnError, spawn
from drumd.supervisor.sockets.binding import Listeners
from drumd.supervisor.sockets.errors import ListenError
from drumd.wire import messages
from drumd.wire.messages import MAX_LISTENERS
from drumd.wire.records import read_record
from drumd.wire.spec import STACKS_SIGNAL


class Hands:
    """One pool's processes and sockets. What they learn goes to the owner as events."""

    def __init__(
        self,
        name: str,
        settings: PoolSettings,
        listeners: Listeners,
        around: Surroundings,
        metrics_dir: Path | None,
    ) -> None:
        self.crew = Crew(
            pool=name,
            metrics_dir=metrics_dir,
            runtime="" if settings.runtime == "auto" else str(settings.runtime),
        )
        self.listeners = listeners
        self._name = name
        self._settings = settings
        self._around = around
        self._care = Care(self.crew, around, self._balance)
        self._limits = limits(settings)
        self._clock = AwakeClock(around.look_interval, time.monotonic())
        # A `current` symlink pins a release: resolved once for all workers of the generation.
        self._app_dir = Path(settings.app_dir).resolve()
        self._environ = {**around.environ, **settings.environment}
        self._balanced = False
        self._quiet: set[int] = set()
        """Slots whose listeners nobody waits at any more: to be released by all, then dropped."""

    # --- over a re-exec -------------------------------------------------------------------------

    def keep(self) -> KeptHands:
        """Return what `resume` needs; nothing changes by it."""
        return KeptHands(
            crew=KeptCrew.of(self.crew),
            app_dir=str(self._app_dir),
            balanced=self._balanced,
            quiet=frozenset(self._quiet),
            awake=self._clock.awake,
        )

    def resume(self, kept: KeptHands) -> None:
        """Go on with the workers that were started before a re-exec; raise OSError."""
        crew = kept.crew
        self.crew.runtime = crew.runtime
        self.crew.pids = dict(crew.pids)
        self.crew.tally.resume(crew.tally)
        self.crew.last_words = list(crew.last_words)
        self.crew.metrics_dir = None if crew.metrics_dir is None else Path(crew.metrics_dir)
        self._app_dir = Path(kept.app_dir)
        self._balanced = kept.balanced
        self._quiet = set(kept.quiet)
        self._clock = AwakeClock(self._around.look_interval, time.monotonic(), kept.awake)
        for worker in crew.handles:
            handle = resumed_handle(worker)
            self.crew.handles[worker.attempt] = handle
            self._care.resume(handle, worker)

    # --- actions --------------------------------------------------------------------------------

    def perform(self, action: Action) -> None:
        """Carry out an action; what goes wrong comes back as an event."""
        if isinstance(action, Spawn):
            self._spawn(action)
            return
        handle = self.crew.handles.get(getattr(action, "attempt", -1))
        if handle is None:
            return
        match action:
            case Drain():
                if handle.control is not None:
                    handle.control.send(
                        messages.Drain(deadline=action.deadline, linger=action.linger)
                    )
            case DumpStacks():
                handle.child.signal(STACKS_SIGNAL)
            case Terminate():
                handle.child.signal_group(signal.SIGTERM)
            case Kill():
                handle.child.signal_group(signal.SIGKILL)
                if handle.cgroup is not None:
                    handle.cgroup.kill()

    def _spawn(self, action: Spawn) -> None:
        try:
            handle = self._start(action)
        except (NoLeaseError, SpawnError) as error:
            self._around.post(self._name, SpawnFailed(attempt=action.attempt, error=str(error)))
            return
        self.crew.handles[action.attempt] = handle
        self.crew.pids[action.attempt] = handle.pid
        self._care.begin(handle)

    def _start(self, action: Spawn) -> Handle:
        around = self._around
        lease = around.leases.take()
        around.board.clear(lease)
        cgroup = None
        if around.cgroup is not None:
            try:
                cgroup = around.cgroup.create(self._name, action.attempt)
            except CgroupError as error:
                self._notice(str(error))
        try:
            child = spawn(
                lambda fds: worker_spec(
                    self._settings,
                    self._name,
                    action,
                    lease=lease,
                    supervisor_pid=around.supervisor_pid,
                    app_dir=self._app_dir,
                    metrics_dir=self.crew.metrics_dir,
                    cgroup_procs=None if cgroup is None else cgroup.procs_path,
                    fds=fds,
                ),
                instance=around.instance,
                scoreboard=around.board.fd,
                environ=self._environ,
            )
        except SpawnError:
            around.leases.give_back(lease)
            if cgroup is not None:
                cgroup.remove(around.loop)
            raise
        for note in child.notes:
            self._notice(note)
        return Handle(
            attempt=action.attempt,
            slot=action.slot,
            generation=action.generation,
            lease=lease,
            child=child,
            cgroup=cgroup,
        )

    # --- sockets --------------------------------------------------------------------------------

    def _balance(self, event_loop: bool) -> None:  # noqa: FBT001 - a callback's only argument
        """Settle who accepts from where, once the first worker has told what serves in it.

        The owner has not heard yet that any worker is ready, so nobody accepts before this.
        """
        if self._balanced:
            return
        self._balanced = True
        wanted = self._settings.balance
        if wanted == "auto":
            wanted = "per-slot" if event_loop else "shared"
        self.listeners.set_balance(wanted, slots=1)  # `project` adds those of the other slots
        self._tell_notes()

    def project(self, pool: Pool) -> None:
        """Bring listeners, accept sets and steering in line with the pool's state."""
        own = self.listeners.slots
        missing = set(range(pool.size)) - own - {0}
        if self._balanced and self.listeners.balance == "per-slot":
            if missing or self.listeners.retiring & set(range(pool.size)):
                self._grow(pool.size)
            for slot in own - set(range(max(1, len(pool.slots)))) - self.listeners.retiring:
                self.listeners.retire(slot)
        self._quiet &= self.listeners.retiring
        queues = self.listeners.slots - self._quiet
        for attempt, slots in acceptors(pool, queues).items():
            handle = self.crew.handles.get(attempt)
            if handle is not None:
                self._tell_accept(handle, slots)
        self.listeners.steer(steering(pool, queues - self.listeners.retiring))

    def retired_is_quiet(self, slot: int) -> None:
        """Nobody waits at a retiring slot's listeners: they are dropped once all released them."""
        self._quiet.add(slot)

    def queue_depths(self) -> dict[str, int]:
        """Return how many connections wait at each listener, where the kernel tells."""
        depths = {}
        for listener, label in self.listeners.labels().items():
            depth = self.listeners.depth(listener)
            if depth is not None:
                depths[label] = depth
        return depths

    def _grow(self, size: int) -> None:
        try:
            self.listeners.ensure_slots(size)
        except ListenError as error:
            self._notice(str(error))
        self._tell_notes()

    def _tell_accept(self, handle: Handle, slots: frozenset[int]) -> None:
        ids = [*self.listeners.shared_ids()]
        for slot in sorted(slots, key=lambda slot: (slot != handle.slot, slot)):
            ids += self.listeners.ids_for(slot)
        ids = ids[:MAX_LISTENERS]
        if handle.told == frozenset(ids) or handle.control is None:
            return
        handle.told = frozenset(ids)
        handle.epoch += 1
        handle.control.send(
            messages.Accept(epoch=handle.epoch, listeners=tuple(ids)), self.listeners.fds(ids)
        )

    def _drop_quiet(self) -> None:
        """Close retired listeners that no worker holds any more."""
        if self._quiet and all(
            handle.told is None or handle.acknowledged == handle.epoch
            for handle in self.crew.handles.values()
        ):
            for slot in list(self._quiet):
                self.listeners.drop(slot)
            self._quiet.clear()

    # --- health ---------------------------------------------------------------------------------

    def look(self, pool: Pool, now: float) -> Iterable[Event]:
        """Judge the heartbeats of the ready workers."""
        self._drop_quiet()
        awake = self._clock.look(now)
        events = []
        for attempt, handle in self.crew.handles.items():
            worker = pool.workers.get(attempt)
            if worker is not None and worker.state is WorkerState.READY:
                event = self._judge(handle, worker, now, awake)
                if event is not None:
                    events.append(event)
        return events

    def _judge(self, handle: Handle, worker: Worker, now: float, awake: float) -> Event | None:
        record = read_record(self._around.board, handle.lease)
        if handle.pulse is None:
            # It has just become ready: its lateness counts from here.
            handle.pulse = Pulse(record.beat_ns, awake)
        handle.pulse = feel(
            handle.pulse, record, now=now, awake=awake, interval=self._clock.interval
        )
        verdict = judge(handle.pulse, record, self._limits, now=now, awake=awake)
        if verdict.hung:
            return Hung(attempt=worker.attempt, why=verdict.hung)
        if verdict.stalled and not worker.stalled:
            return Stalled(attempt=worker.attempt, late=verdict.late, busy=verdict.busy)
        if worker.stalled and not verdict.stalled:
            return Recovered(attempt=worker.attempt)
        return None

    # --- notices --------------------------------------------------------------------------------

    def _notice(self, text: str) -> None:
        self._around.notice(self._name, text)

    def _tell_notes(self) -> None:
        notes, self.listeners.notes = self.listeners.notes, []
        for note in notes:
            self._notice(note)
