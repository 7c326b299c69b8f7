"""What the admin API may ask of the daemon: the border between the two."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from drumd.config.diff import Changes
from drumd.config.loading import Loaded
from drumd.supervisor.core.model import OperationKind, OperationState
from drumd.supervisor.observe.journal import Journal
from drumd.supervisor.observe.snapshot import Snapshot

MAX_QUEUED = 16
"""Operations that may wait for one pool."""

FINAL = frozenset({OperationState.DONE, OperationState.FAILED, OperationState.CANCELLED})


class DaemonTask(StrEnum):
    """What an operator may have done to the daemon itself."""

    RE_EXEC = "re-exec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing that an operator asked of one pool, as the operator sees it."""

    id: str
    pool: str
    """ "" for what concerns the daemon itself."""
    kind: OperationKind | DaemonTask
    state: OperationState
    reason: str
    """In words: what it waits for, how far it is, or how it ended."""
    slot: int | None = None
    """The one slot that a restart is for."""
    size: int | None = None
    """The size that a scale is to."""
    progress: tuple[int, int] = (0, 0)
    """Steps done, of how many."""
    requested_by: str = ""
    slots: tuple[str, ...] = ()
    """Slot by slot, how far it is (`admin.picture.Cell`)."""
    last_lines: tuple[str, ...] = ()
    """Of one that failed: what the worker that it failed by had last written to its stderr."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What a reload of the config has begun."""

    operations: tuple[Operation, ...]
    """To be waited for: rollouts, and pools that are started or stopped."""
    notes: tuple[str, ...]
    """What else was done, and what was not, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What a reload would change now."""

    changes: Changes
    moved: Mapping[str, str]
    """By pool: where its `app_dir` leads now, when that is not where its workers are from."""


class UnknownNameError(Exception):
    """cannot find that name. The message says what names there are."""


def unknown_pool(name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for a pool's name that is none, with the nearest one there is."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return UnknownNameError(f"cannot find pool {name!r}: the pools are {', '.join(names)}{hint}")


class RefusedError(Exception):
    """cannot do that now. The message says why and what to do instead."""


class Operator(Protocol):
    """The daemon as its admin API sees it. All calls are on the loop; none blocks it."""

    @property
    def journal(self) -> Journal:
        """The ordered record of events."""

    def status(self) -> dict[str, Any]:
        """Return the document of `drumctl status --json` (docs/design.md, §9)."""

    def snapshot(self) -> Snapshot:
        """Return the numbers behind `/metrics`."""

    def submit(
        self, kind: OperationKind, pool: str, *, slot: int | None, size: int | None, by: str
    ) -> Operation:
        """Queue an operation; raise `UnknownNameError` or `RefusedError`."""

    async def reload(self, pool: str | None, *, by: str) -> Reload:
        """Read the config again and begin what it changes, of one pool or of all.

        Raise `UnknownNameError` or `RefusedError`, and then nothing has changed.
        """

    def config(self) -> Loaded:
        """Return the config in force."""

    async def changes(self) -> Pending:
        """Return what a reload would change; raise `RefusedError` when the config is invalid."""

    def operation(self, operation_id: str) -> Operation:
        """Return an operation (the last 200 are kept); raise `UnknownNameError`."""

    async def wait(self, operation_id: str, timeout: float) -> Operation:  # noqa: ASYNC109 - the API's own long poll
        """Return the operation once its state or progress changed, or after `timeout` seconds."""

    def cancel(self, operation_id: str, *, by: str) -> Operation:
        """Cancel what has not taken effect; raise `UnknownNameError` or `RefusedError`."""

    def re_exec(self, *, by: str) -> Operation:
        """Replace the daemon's own program, workers untouched; raise `RefusedError`."""

    def release(self) -> None:
        """Let all who wait or follow have an answer now; they ask again."""

    def shutdown(self, *, by: str) -> None:
        """Stop the daemon gracefully, as SIGTERM does."""

    def ready(self) -> tuple[bool, str]:
        """Say whether every pool that should serve does, and which does not and why."""
