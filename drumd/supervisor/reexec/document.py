"""The state document: all that the new program is told, as one versioned JSON document.

Fields may be added, with defaults: an older program leaves out what it does not know, a newer one
fills in what it is not told. What changes the meaning of a field raises `MAJOR`.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from drumd.config.loading import Loaded, Sources
from drumd.config.modelserver.command import ModelServer
from drumd.config.modelserver.inforce import ModelInForce
from drumd.config.settings import Settings
from drumd.supervisor.admin.desk import KeptDesk
from drumd.supervisor.announcer import KeptAnnouncer
from drumd.supervisor.core.model import Pool
from drumd.supervisor.fds import Fd, fds_in
from drumd.supervisor.holdings import KeptHoldings
from drumd.supervisor.observe.journal import KeptJournal
from drumd.supervisor.observe.logging import KeptLogs
from drumd.supervisor.pool.kept import KeptHands
from drumd.supervisor.reexec.errors import ReexecError
from drumd.supervisor.reexec.order import read_state
from drumd.supervisor.reexec.program import Program
from drumd.supervisor.signals import KeptSignals

MAJOR = 1
_MAX_SAID = 5
"""Problems that are named of a document that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptConfig:
    """The config in force: what was said of it. Holds secrets, as the settings do."""

    settings: Mapping[str, Any]
    origins: Mapping[str, str]
    flags: Mapping[str, Any]
    file: str | None
    directory: str
    model_server: ModelServer | None = None
    model: ModelInForce | None = None

    @classmethod
    def of(cls, loaded: Loaded) -> "KeptConfig":
        """Return what `load` needs; defaults are left to the program that reads it."""
        sources = loaded.sources
        return cls(
            settings=loaded.settings.model_dump(mode="json", exclude_defaults=True),
            origins=dict(loaded.origins),
            flags=dict(sources.flags),
            file=None if sources.config is None else os.fspath(sources.config),
            directory=str(sources.directory),
            model_server=sources.model_server,
            model=loaded.model,
        )

    def load(self) -> Loaded:
        """Return the config; raise `ReexecError` when this program takes it for wrong."""
        try:
            settings = Settings.model_validate(dict(self.settings))
        except ValidationError as error:
            raise ReexecError(f"cannot use the config in force: {_said(error)}") from error
        sources = Sources(
            flags=self.flags,
            environ=dict(os.environ),
            config=self.file,
            directory=Path(self.directory),
            model_server=self.model_server,
        )
        return Loaded(
            settings=settings,
            origins=self.origins,
            warnings=(),
            sources=sources,
            model=self.model,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """The operation that a re-exec carries out."""

    operation: str
    began: float
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDaemon:
    """Everything. Instants are of the monotonic clock, which an exec does not touch."""

    errand: Errand
    config: KeptConfig
    holdings: KeptHoldings
    pools: Mapping[str, Pool]
    leaving: frozenset[str] = frozenset()
    """Pools that are forgotten once they are empty."""
    hands: Mapping[str, KeptHands]
    leases: frozenset[int]
    journal: KeptJournal
    desk: KeptDesk
    announcer: KeptAnnouncer
    signals: KeptSignals
    logs: KeptLogs
    warden: int | None = None
    orphans_reaped: int = 0
    oom_kills: int = 0
    metrics_skipped: Mapping[str, int] | None = None
    mask: frozenset[int] = frozenset()
    """Signals that were blocked before the re-exec blocked all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What is on the fd that a new program is given."""

    program: Program
    """The one before."""
    fds: tuple[Fd, ...]
    state: KeptDaemon


def encode(state: KeptDaemon, program: Program) -> bytes:
    """Return the document. The stub reads `program` and `fds` without any library."""
    document = {
        "format": MAJOR,
        "program": asdict(program),
        "fds": sorted(fds_in(state)),
        "state": _adapter().dump_python(state, mode="json"),
    }
    # A lone surrogate, such as in the name of a file, is no UTF-8: pydantic would refuse it.
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


def decode(content: bytes) -> Document:
    """Read a document; raise `ReexecError` when this program cannot read its version."""
    try:
        document = json.loads(content)
        major = document["format"]
        if major != MAJOR:
            raise ReexecError(
                f"cannot read the state: format {major}, this drumd reads {MAJOR}; restart drumd "
                "to change to this version"
            )
        return Document(
            program=TypeAdapter(Program).validate_python(document["program"]),
            fds=tuple(map(Fd, document["fds"])),
            state=_adapter().validate_python(document["state"]),
        )
    except ValidationError as error:
        raise ReexecError(f"cannot read the state: {_said(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ReexecError(f"cannot read the state: {error!r}") from error


def to_memory(content: bytes) -> int:
    """Return the fd of a memory file with `content`, which nobody can change any more."""
    fd = os.memfd_create("drumd-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def from_memory(fd: int) -> Document:
    """Read the document on `fd`; raise `ReexecError`."""
    return decode(read_state(fd))


@cache
def _adapter() -> TypeAdapter[KeptDaemon]:
    return TypeAdapter(KeptDaemon)


def _said(error: ValidationError) -> str:
    """Return what is wrong, without any value: it may be a secret."""
    problems = error.errors(include_input=False, include_context=False, include_url=False)
    said = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems[:_MAX_SAID]]
    if len(problems) > _MAX_SAID:
        said.append(f"and {len(problems) - _MAX_SAID} more")
    return "; ".join(said)
