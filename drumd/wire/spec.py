"""The worker spec: the one document that tells a worker process what it is."""

import json
import signal
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from drumd.wire.document import Document

SPEC_VERSION = 1

SPEC_FD_VARIABLE = "DRUMD_SPEC_FD"
"""Environment variable that names the fd on which a worker finds its spec."""

INSTANCE_VARIABLE = "DRUMD_INSTANCE"
"""Environment variable that marks every process of one supervisor; the warden kills by it.

Its value is `INSTANCE` for the supervisor's own helpers and `INSTANCE/POOL/ATTEMPT` for a worker
and whatever that worker forks, so that one worker's strays can be told from another's. Slashes may
follow (`mark`).
"""

_ROOM = 20
"""Digits that the attempt of a template's fork may have."""

STACKS_SIGNAL = signal.SIGRTMIN + 5
"""Makes a worker write the stacks of all its threads to its stacks pipe, stuck or not, and live on.

A real-time signal, since servers and apps use SIGUSR1, SIGUSR2 and SIGABRT for their own ends.
"""

RuntimeName = Literal["auto", "uvicorn", "gunicorn", "flask"]
"""What serves inside a worker. `auto` is settled by the worker, which looks at the loaded app."""


RoleName = Literal["worker", "template"]
"""What a process is: a template imports the app and forks workers from itself."""


class SpecError(Exception):
    """cannot read the worker spec."""


class WorkerFds(Document):
    """The fds that a worker inherits, by number."""

    control: int
    """SOCK_SEQPACKET, one message a packet (`drumd.wire.messages`)."""
    scoreboard: int
    """The memfd with every lease's record (`drumd.wire.scoreboard`); not open in a template."""
    stacks: int
    """Write end of a pipe: faulthandler writes the stacks of all threads here."""


class WorkerSpec(Document):
    """What one worker, or template, is to be. Durations are in seconds, sizes in bytes."""

    role: RoleName = "worker"
    pool: str
    slot: int
    generation: int
    attempt: int
    lease: int
    """Its record and the name of its metric files; means nothing of a template."""
    supervisor_pid: int
    """The parent that the worker must have; another one means that the supervisor is gone."""
    app: str
    """`module:attribute`; the attribute may be dotted."""
    app_dir: str
    """Put first on `sys.path`, and the worker's working directory. Absolute, symlinks resolved."""
    runtime: RuntimeName
    options: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    """Options passed through to the servers: `{"uvicorn": {...}, "gunicorn": {...}}`."""
    threads: int
    """Requests that a thread-based runtime (gthread) serves at once."""
    backlog: int
    """What every `listen()` must say, since the last one counts for all sharers of a socket."""
    keepalive: float
    """How long an idle HTTP connection stays open."""
    grace_period: float
    """How long the worker may drain before the supervisor ends it."""
    linger: float
    """How long a drain leaves idle keep-alive connections open before it closes them."""
    beat_interval: float = 0.25
    access_log: bool = False
    metrics_dir: str | None = None
    """Directory of prometheus_client's multiprocess files; None: the app's metrics stay its own."""
    cgroup_procs: str | None = None
    """A `cgroup.procs` file that the worker joins before it imports the app."""
    before_fork: str | None = None
    """`module:function` that a template calls before each fork, before those that the app has
    registered."""
    after_fork: str | None = None
    """`module:function` that each of its forks calls, after those that the app has registered."""
    fds: WorkerFds
    version: int = SPEC_VERSION

    @property
    def title(self) -> tuple[str, str, str]:
        """What `ps` shows behind the program: `pool=web slot=2 gen=3`."""
        place = "template" if self.role == "template" else f"slot={self.slot}"
        return f"pool={self.pool}", place, f"gen={self.generation}"

    def encode(self) -> bytes:
        """Return the spec as one JSON document."""
        return json.dumps(self.fields()).encode()

    @classmethod
    def decode(cls, document: bytes) -> "WorkerSpec":
        """Read a spec back; raise `SpecError` when it is of another version or malformed."""
        try:
            fields = json.loads(document)
            version = fields.get("version")
            if version != SPEC_VERSION:
                raise SpecError(
                    f"cannot read the worker spec: version {version!r}, this worker reads "
                    f"{SPEC_VERSION}; install the same drumd for supervisor and workers"
                )
            fields["fds"] = WorkerFds(**fields["fds"])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SpecError(f"cannot read the worker spec: {error}") from error


def mark(instance: str, pool: str, attempt: int, *, room: bool = False) -> str:
    """Return the mark of a worker or template.

    With `room` slashes follow that any other attempt's mark may overwrite: a fork's environment,
    as /proc shows it, is the very memory of its template's.
    """
    return f"{instance}/{pool}/{attempt:/<{_ROOM if room else 0}}"


def instance_of(mark: str) -> str:
    """Return the instance that a worker's mark names."""
    return mark.rstrip("/").rsplit("/", 2)[0]
