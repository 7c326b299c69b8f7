"""Starts: workers as fresh interpreters or as forks of a template, until the care takes over."""

from dataclasses import dataclass

from drumd.supervisor.core.actions import Spawn
from drumd.supervisor.core.events import Hung, SpawnFailed
from drumd.supervisor.core.model import Kind
from drumd.supervisor.pool.care import Care
from drumd.supervisor.pool.crew import Crew
from drumd.supervisor.pool.generations import Generation, Generations
from drumd.supervisor.pool.handle import Handle
from drumd.supervisor.pool.leases import NoLeaseError
from drumd.supervisor.pool.specs import worker_spec
from drumd.supervisor.pool.surroundings import Surroundings
from drumd.supervisor.processes.cgroup import CgroupError, WorkerCgroup
from drumd.supervisor.processes.forking import PreparedFork, prepare_fork
from drumd.supervisor.processes.marks import sweep
from drumd.supervisor.processes.spawn import Child, SpawnError, spawn
from drumd.wire.messages import Forked, ForkFailed
from drumd.wire.spec import WorkerFds, WorkerSpec

NO_LEASE = 0
"""What a template's spec has for a lease: it means nothing there."""


@dataclass(slots=True, kw_only=True)
class _Start:
    """What a worker gets before it is a process."""

    order: Spawn
    generation: Generation
    lease: int | None
    cgroup: WorkerCgroup | None


@dataclass(slots=True)
class _Pending:
    """A fork that a template was asked for.

    It stays until the answer when it is called off, too: as long as it is there no unknown process
    is reaped, so the pid in the answer is the worker's and nobody else's.
    """

    start: _Start
    template: Handle
    fork: PreparedFork
    called_off: bool = False


class Starts:
    """Starts one pool's processes. What goes wrong comes back to the owner as an event."""

    def __init__(
        self, crew: Crew, generations: Generations, around: Surroundings, care: Care
    ) -> None:
        self._crew = crew
        self._generations = generations
        self._around = around
        self._care = care
        self._pending: dict[int, _Pending] = {}

    def begin(self, order: Spawn) -> None:
        """Start a worker or template; `SpawnFailed` follows when that is not possible."""
        try:
            start = self._prepare(order)
        except (NoLeaseError, SpawnError) as error:
            self._fail(order.attempt, str(error))
            return
        try:
            if order.template is None:
                self._care.begin(self._handle(start, self._spawn(start)))
            else:
                self._ask(start, order.template)
        except SpawnError as error:
            self._give_back(start)
            self._fail(order.attempt, str(error))

    @property
    def settled(self) -> bool:
        """Whether every template has answered: a fork on its way is nobody's that can be kept."""
        return not self._pending

    def call_off(self, attempt: int, *, late: bool) -> None:
        """Give up a fork that no answer has come for yet, if there is one.

        If the template forks it after all, it is killed at once. A template that is `late` with it
        is stuck, in a hook or a lock: it is of no use any more.
        """
        pending = self._pending.get(attempt)
        if pending is None or pending.called_off:
            return
        pending.called_off = True
        self._fail(attempt, "its template has not answered yet")
        if late:
            why = f"it did not answer the order to fork attempt {attempt} in time"
            self._around.post(self._crew.pool, Hung(attempt=pending.template.attempt, why=why))

    def answered(self, message: Forked | ForkFailed) -> None:
        """Take a template's answer: the worker is a child of ours by now, or there is none."""
        pending = self._pending.pop(message.attempt, None)
        if pending is None:
            return
        if isinstance(message, ForkFailed):
            self._drop(pending, message.error)
            return
        self._tell_threads(pending.start.generation, message.threads)
        try:
            child = pending.fork.complete(message.pid)
        except SpawnError as error:
            self._drop(pending, str(error))
            return
        handle = self._handle(pending.start, child)
        if pending.called_off:
            self._care.dispatch(handle)
        else:
            self._care.begin(handle)

    def ended(self, template: Handle, how: str) -> None:
        """Take note of an end: what a template has not forked by now, it never will."""
        for attempt, pending in list(self._pending.items()):
            if pending.template is template:
                del self._pending[attempt]
                self._drop(pending, f"the template ended: {how}")

    # --- both ways --------------------------------------------------------------------------------

    def _prepare(self, order: Spawn) -> _Start:
        generation = self._generations.get(order.generation)
        if generation is None:
            raise SpawnError(
                f"cannot start a worker of generation {order.generation}: nobody needed it any more"
            )
        lease = None
        if order.kind is not Kind.TEMPLATE:
            lease = self._around.leases.take()
            self._around.board.clear(lease)
        cgroup = None
        # A template has none of its own: a worker whose own could not be made would stay in it,
        # and be killed with what the template leaves behind.
        if self._around.cgroup is not None and order.kind is not Kind.TEMPLATE:
            try:
                cgroup = self._around.cgroup.create(self._crew.pool, order.attempt)
            except CgroupError as error:
                self._notice(str(error))
        return _Start(order=order, generation=generation, lease=lease, cgroup=cgroup)

    def _spec(self, start: _Start, fds: WorkerFds) -> WorkerSpec:
        generation, cgroup = start.generation, start.cgroup
        return worker_spec(
            generation.settings,
            self._crew.pool,
            start.order,
            lease=NO_LEASE if start.lease is None else start.lease,
            supervisor_pid=self._around.supervisor_pid,
            app_dir=generation.app_dir,
            metrics_dir=generation.metrics_dir,
            cgroup_procs=None if cgroup is None else cgroup.procs_path,
            fds=fds,
        )

    def _handle(self, start: _Start, child: Child) -> Handle:
        for note in child.notes:
            self._notice(note)
        order = start.order
        return Handle(
            attempt=order.attempt,
            kind=order.kind,
            slot=order.slot,
            generation=order.generation,
            lease=start.lease,
            child=child,
            metrics_dir=start.generation.metrics_dir,
            cgroup=start.cgroup,
        )

    def _give_back(self, start: _Start) -> None:
        if start.lease is not None:
            self._around.leases.give_back(start.lease)
        if start.cgroup is not None:
            start.cgroup.remove(self._around.loop)

    async def _clear_away(self, start: _Start) -> None:
        """Give back what a fork had that may have happened, once nobody can use it any more."""
        await sweep(self._around.instance, self._crew.pool, start.order.attempt)
        self._give_back(start)

    def _fail(self, attempt: int, error: str) -> None:
        self._around.post(self._crew.pool, SpawnFailed(attempt=attempt, error=error))

    def _notice(self, text: str) -> None:
        self._around.notice(self._crew.pool, text)

    # --- a fresh interpreter ----------------------------------------------------------------------

    def _spawn(self, start: _Start) -> Child:
        return spawn(
            lambda fds: self._spec(start, fds),
            instance=self._around.instance,
            scoreboard=self._around.board.fd,
            environ=start.generation.environ,
        )

    # --- a fork -----------------------------------------------------------------------------------

    def _ask(self, start: _Start, template: int) -> None:
        handle = self._crew.handles.get(template)
        if handle is None or handle.control is None or handle.control.closed:
            raise SpawnError("cannot fork a worker: its template is gone")
        fork = prepare_fork(
            lambda fds: self._spec(start, fds),
            scoreboard=self._around.board.fd,
            hold=self._around.exits.hold(),
        )
        self._pending[start.order.attempt] = _Pending(start, handle, fork)
        handle.control.send(fork.message, fork.fds)

    def _drop(self, pending: _Pending, error: str) -> None:
        pending.fork.abandon()
        self._around.in_background(self._clear_away(pending.start))
        if not pending.called_off:
            self._fail(pending.start.order.attempt, error)

    def _tell_threads(self, generation: Generation, threads: tuple[str, ...]) -> None:
        if threads and not generation.threads_told:
            generation.threads_told = True
            self._notice(
                f"the template of generation {generation.number} has threads besides the one that "
                f"forks ({', '.join(threads)}); its workers have none of them, and a lock that one "
                "holds at that moment stays locked: start them in an after_fork hook"
            )
