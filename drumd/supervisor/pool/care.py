"""The care for running workers: what they say and print, and what is cleared away after them."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from drumd.supervisor.core.events import (
    BecameReady,
    BeganLeaving,
    Drained,
    Event,
    Exited,
    LostContact,
    ReportedFailure,
)
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import Kind
from drumd.supervisor.fds import Fd
from drumd.supervisor.pool.crew import Crew
from drumd.supervisor.pool.generations import Generations
from drumd.supervisor.pool.handle import Handle
from drumd.supervisor.pool.kept import KeptHandle
from drumd.supervisor.pool.stacks import place
from drumd.supervisor.pool.surroundings import Surroundings
from drumd.supervisor.pool.watching import record_of
from drumd.supervisor.processes.control import ControlEnd
from drumd.supervisor.processes.marks import sweep
from drumd.supervisor.processes.pipes import KeptPipe, Line, LinePipe
from drumd.supervisor.processes.status import ExitStatus, signal_name
from drumd.wire import messages
from drumd.wire.messages import Forked, ForkFailed, MessageError, WorkerMessage
from drumd.wire.spec import STACKS_SIGNAL

STACKS_QUIET = 0.2
"""Seconds after its first line in which the rest of a stack dump comes."""
MAX_STACK_LINES = 400
OWN = "drumd: "
"""What a worker's entry begins its own lines on stderr with, as `drumd.workers.entry` does."""
FOREIGN_SIGNALS = frozenset(
    {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
)
"""What people and programs send on purpose; the others are a process's own doing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Who is told what the care does not settle itself."""

    ready: Callable[[Handle], bool]
    """A worker could serve; False: it is not to be called ready yet."""
    forked: Callable[[Forked | ForkFailed], None]
    """What a template answers."""
    ended: Callable[[Handle, str], None]
    """A process has ended, in words how; it is in the crew no more."""


class Care:
    """Listens to one pool's workers, and turns what happens to them into events."""

    def __init__(
        self, crew: Crew, generations: Generations, around: Surroundings, heard: Heard
    ) -> None:
        self._crew = crew
        self._generations = generations
        self._around = around
        self._hear = heard
        self._dispatched_pids: set[int] = set()

    @property
    def settled(self) -> bool:
        """Whether nobody is being ended who is in the crew no more, or never was."""
        return not self._dispatched_pids

    def begin(self, handle: Handle) -> None:
        """Take over a worker that was just started, in the same step of the loop."""
        self._watch(handle)
        self._crew.handles[handle.attempt] = handle
        self._crew.pids[handle.attempt] = handle.pid
        self._converse(handle)
        handle.pipes = self._readers(
            handle, [KeptPipe(Fd(fd)) for fd in handle.child.detach_pipes()]
        )

    def resume(self, handle: Handle, kept: KeptHandle) -> None:
        """Go on with a worker that was started before a re-exec; nothing is read yet."""
        self._crew.handles[handle.attempt] = handle
        if kept.control is not None:
            self._converse(handle).resume(kept.control.queue)
        handle.pipes = self._readers(handle, kept.pipes)
        if handle.stacks:
            self._around.loop.call_later(STACKS_QUIET, self._tell_stacks, handle)
        try:
            self._watch(handle)
        except OSError:  # somebody else has waited for it
            self._around.loop.call_soon(self._exited, handle, ExitStatus())

    def _watch(self, handle: Handle) -> None:
        self._around.exits.watch(handle.pid, lambda _pid, status: self._exited(handle, status))

    def _converse(self, handle: Handle) -> ControlEnd:
        handle.control = ControlEnd(
            self._around.loop,
            handle.child.control,
            on_message=lambda message: self._heard(handle, message),
            on_gone=lambda: self._post(LostContact(attempt=handle.attempt)),
            on_malformed=lambda error: self._misunderstood(handle, error),
        )
        return handle.control

    def _readers(self, handle: Handle, pipes: Sequence[KeptPipe | None]) -> list[LinePipe | None]:
        """Return what reads stdout, stderr and stacks."""
        takers: list[Callable[[list[Line]], None]] = [
            lambda lines: self._printed(handle, "stdout", lines),
            lambda lines: self._printed(handle, "stderr", lines),
            lambda lines: self._dumped(handle, lines),
        ]
        return [
            None if pipe is None else LinePipe(self._around.loop, pipe.fd, taker, rest=pipe.rest)
            for pipe, taker in zip(pipes, takers, strict=True)
        ]

    def dispatch(self, handle: Handle) -> None:
        """End a worker that was just started and that nobody wants any more."""
        self._around.exits.watch(handle.pid, lambda _pid, _status: self._dispatched(handle))
        self._dispatched_pids.add(handle.pid)
        handle.child.signal_group(signal.SIGKILL)
        handle.child.signal(signal.SIGKILL)  # before it has made a group of its own

    def _dispatched(self, handle: Handle) -> None:
        self._dispatched_pids.discard(handle.pid)
        handle.child.close()
        self._clear_away_soon(handle)

    # --- what it says ---------------------------------------------------------------------------

    def _heard(self, handle: Handle, message: WorkerMessage) -> None:
        attempt = handle.attempt
        match message:
            case messages.Loaded():
                self._loaded(handle, message)
            case messages.Ready():
                handle.handover = message.handover
                if self._hear.ready(handle):
                    self._post(BecameReady(attempt=attempt))
            case messages.Accepting():
                handle.acknowledged = message.epoch
            case messages.Leaving():
                self._post(BeganLeaving(attempt=attempt, signal=signal_name(message.signal)))
            case messages.Drained():
                self._crew.tally.handed += message.handed
                self._post(Drained(attempt=attempt))
            case messages.Failed():
                handle.explained = True
                handle.final = message.final
                self._post(
                    ReportedFailure(attempt=attempt, error=message.error, final=message.final)
                )
            case messages.Forked() | messages.ForkFailed():
                self._hear.forked(message)

    def _loaded(self, handle: Handle, message: messages.Loaded) -> None:
        generation = self._generations.get(handle.generation)
        if generation is not None:
            generation.runtime = message.runtime
            generation.event_loop = message.event_loop
        self._tell(
            handle,
            Happened.WORKER_LOADED,
            f"the app speaks {message.interface}; {message.runtime} serves it",
        )

    def _misunderstood(self, handle: Handle, error: MessageError) -> None:
        self._tell(handle, Happened.DAEMON_NOTICE, str(error))

    # --- what it prints -------------------------------------------------------------------------

    def _printed(
        self, handle: Handle, stream: Literal["stdout", "stderr"], lines: list[Line]
    ) -> None:
        for line in lines:
            if stream == "stderr":
                handle.last_lines.append(line.text)
            self._around.logs.log_worker_line(
                pool=self._crew.pool,
                kind=handle.kind.value,
                slot=handle.numbered,
                gen=handle.generation,
                pid=handle.pid,
                stream=stream,
                text=line.text,
                cut=line.cut,
            )

    def _dumped(self, handle: Handle, lines: list[Line]) -> None:
        if not handle.stacks:
            self._around.loop.call_later(STACKS_QUIET, self._tell_stacks, handle)
        room = MAX_STACK_LINES - len(handle.stacks)
        handle.stacks += [line.text for line in lines[:room]]

    def _tell_stacks(self, handle: Handle) -> None:
        if handle.stacks:
            handle.was_at = place(handle.stacks)
            text, handle.stacks = "\n".join(handle.stacks), []
            self._tell(handle, Happened.WORKER_STACKS, text)

    # --- its end --------------------------------------------------------------------------------

    def _exited(self, handle: Handle, status: ExitStatus) -> None:
        """Hear it out, settle its numbers, tell the owner; clear away in the background."""
        if handle.control is not None:
            handle.control.drain()
            handle.control.close()
        for pipe in handle.pipes:
            if pipe is not None:
                pipe.drain()
        self._tell_stacks(handle)
        if not handle.explained:
            self._quote(handle)
        record = record_of(self._around.board, handle)
        self._crew.tally.fold(record)
        # Of what is tried once and says why itself, they stand right above.
        self._crew.last_words = [] if handle.final else list(handle.last_lines)
        self._crew.last_lines[handle.attempt] = tuple(handle.last_lines)
        del self._crew.handles[handle.attempt]
        handle.child.close()
        oom = status.signal == signal.SIGKILL and self._around.out_of_memory.struck()
        description = _described(handle, status)
        if oom:
            description += " (probably by the kernel, out of memory)"
        self._post(
            Exited(
                attempt=handle.attempt,
                description=description,
                foreign_signal=status.signal in FOREIGN_SIGNALS and not oom,
                answered=record.finished > handle.probed,
            )
        )
        # After the template's own end, so that it is known when its forks turn out to have failed.
        self._hear.ended(handle, description)
        self._clear_away_soon(handle)

    def _quote(self, handle: Handle) -> None:
        """Take the reason of its exit from its stderr: its app may have closed the socket."""
        said = next((line for line in reversed(handle.last_lines) if line.startswith(OWN)), "")
        if said:
            self._post(ReportedFailure(attempt=handle.attempt, error=said.removeprefix(OWN)))

    def _clear_away_soon(self, handle: Handle) -> None:
        self._around.in_background(self._clear_away(handle))

    async def _clear_away(self, handle: Handle) -> None:
        """End what the worker left in other sessions; then its lease is free."""
        around = self._around
        if handle.cgroup is not None:
            handle.cgroup.kill()
            handle.cgroup.remove(around.loop, partial(around.notice, self._crew.pool))
        left = await sweep(around.instance, self._crew.pool, handle.attempt)
        if left:
            pids = ", ".join(map(str, left))
            self._tell(handle, Happened.WORKER_STRAYS, f"it left processes behind: killed {pids}")
        if handle.lease is None:
            return
        if handle.metrics_dir is not None:
            await asyncio.to_thread(around.app_metrics.retire, handle.metrics_dir, handle.lease)
        around.leases.give_back(handle.lease)

    # --- to the owner ---------------------------------------------------------------------------

    def _post(self, event: Event) -> None:
        self._around.post(self._crew.pool, event)

    def _tell(self, handle: Handle, event: Happened, reason: str) -> None:
        kind = {} if handle.kind is Kind.SLOT else {"kind": handle.kind.value}
        self._around.tell(
            Fact(
                event=event,
                reason=reason,
                pool=self._crew.pool,
                slot=handle.numbered,
                generation=handle.generation,
                attempt=handle.attempt,
                extra={"pid": handle.pid, **kind},
            )
        )


def _described(handle: Handle, status: ExitStatus) -> str:
    """Return in words how it ended; by whose signal, and where it was when drumd asked."""
    if status.signal is None or status.signal not in handle.sent:
        return status.describe()
    ended = f"ended by drumd with {signal_name(status.signal)}"
    asked = STACKS_SIGNAL in handle.sent and handle.was_at
    return f"it was in {handle.was_at}; {ended}" if asked else ended
