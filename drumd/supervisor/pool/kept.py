"""What is kept of a pool's processes over a re-exec, and how the new program goes on with it."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from drumd.supervisor.core.model import Kind
from drumd.supervisor.health.watch import Pulse
from drumd.supervisor.pool.crew import Crew
from drumd.supervisor.pool.doors import KeptDoors
from drumd.supervisor.pool.generations import KeptGenerations
from drumd.supervisor.pool.handle import Handle
from drumd.supervisor.pool.handovers import KeptHandovers
from drumd.supervisor.pool.probes import KeptProbes
from drumd.supervisor.pool.recycling import KeptShare
from drumd.supervisor.pool.tally import KeptTally
from drumd.supervisor.processes.cgroup import WorkerCgroup
from drumd.supervisor.processes.control import KeptControl
from drumd.supervisor.processes.pipes import KeptPipe
from drumd.supervisor.processes.spawn import Child


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHandle:
    """A worker: its process goes on, and hears of nothing."""

    attempt: int
    kind: Kind = Kind.SLOT
    slot: int
    generation: int
    lease: int | None
    pid: int
    control: KeptControl | None
    """None when the worker has closed its end."""
    pipes: tuple[KeptPipe | None, ...]
    """stdout, stderr, stacks; None for one that has ended."""
    metrics_dir: str | None = None
    cgroup: str | None = None
    last_lines: tuple[str, ...] = ()
    explained: bool = False
    stacks: tuple[str, ...] = ()
    handover: bool = False
    epoch: int = 0
    acknowledged: int = 0
    told: frozenset[int] | None = None
    pulse: Pulse | None = None
    probed: int = 0
    private: int | None = None

    @classmethod
    def of(cls, handle: Handle) -> "KeptHandle":
        """Return what `resumed_handle` needs."""
        return cls(
            attempt=handle.attempt,
            kind=handle.kind,
            slot=handle.slot,
            generation=handle.generation,
            lease=handle.lease,
            pid=handle.pid,
            control=None if handle.control is None else handle.control.keep(),
            pipes=tuple(None if pipe is None else pipe.keep() for pipe in handle.pipes),
            metrics_dir=_text(handle.metrics_dir),
            cgroup=_text(None if handle.cgroup is None else handle.cgroup.path),
            last_lines=tuple(handle.last_lines),
            explained=handle.explained,
            stacks=tuple(handle.stacks),
            handover=handle.handover,
            epoch=handle.epoch,
            acknowledged=handle.acknowledged,
            told=handle.told,
            pulse=handle.pulse,
            probed=handle.probed,
            private=handle.private,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCrew:
    """A pool's workers, and what they add up to."""

    handles: tuple[KeptHandle, ...]
    runtime: str
    pids: Mapping[int, int]
    tally: KeptTally
    last_words: tuple[str, ...]

    @classmethod
    def of(cls, crew: Crew) -> "KeptCrew":
        """Return what is needed to go on with the crew."""
        return cls(
            handles=tuple(KeptHandle.of(handle) for handle in crew.handles.values()),
            runtime=crew.runtime,
            pids=dict(crew.pids),
            tally=crew.tally.keep(),
            last_words=tuple(crew.last_words),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptHands:
    """A pool's hands; its listeners are among the daemon's holdings."""

    crew: KeptCrew
    generations: KeptGenerations
    doors: KeptDoors
    handovers: KeptHandovers
    probes: KeptProbes
    shares: Mapping[int, KeptShare]
    awake: float
    """Seconds that the supervisor has run, as its pulses count them."""


def resumed_handle(kept: KeptHandle) -> Handle:
    """Return the handle of a worker that was kept; its ends are not read yet.

    Raise OSError when an fd is not what it was. A worker that is no child of this process any
    more has -1 for its pidfd.
    """
    try:
        pidfd = os.pidfd_open(kept.pid)
    except ProcessLookupError:
        pidfd = -1
    if kept.control is None:  # a closed one stands for it
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.close()
    else:
        control = socket.socket(fileno=kept.control.fd)
    handle = Handle(
        attempt=kept.attempt,
        kind=kept.kind,
        slot=kept.slot,
        generation=kept.generation,
        lease=kept.lease,
        child=Child(pid=kept.pid, pidfd=pidfd, control=control, stdout=-1, stderr=-1, stacks=-1),
        metrics_dir=None if kept.metrics_dir is None else Path(kept.metrics_dir),
        cgroup=None if kept.cgroup is None else WorkerCgroup(Path(kept.cgroup)),
        explained=kept.explained,
        stacks=list(kept.stacks),
        handover=kept.handover,
        epoch=kept.epoch,
        acknowledged=kept.acknowledged,
        told=kept.told,
        pulse=kept.pulse,
        probed=kept.probed,
        private=kept.private,
    )
    handle.last_lines.extend(kept.last_lines)
    return handle


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
