"""The watchman: keeps a warden, where nothing else clears up after a killed supervisor."""

import asyncio
import os
from collections.abc import Callable

from drumd.supervisor.processes.exits import Exits
from drumd.supervisor.processes.spawn import SpawnError
from drumd.supervisor.processes.status import ExitStatus
from drumd.supervisor.processes.warden import Warden, needed, start_warden

_AGAIN_AFTER = 1.0
"""Seconds until a warden that ended is replaced."""


class Watchman:
    """Starts the warden, and another one whenever it ends."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        exits: Exits,
        instance: str,
        notice: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._exits = exits
        self._instance = instance
        self._notice = notice
        self._warden: Warden | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The warden's pid; None without one."""
        return None if self._warden is None else self._warden.pid

    def start(self) -> None:
        """Start the warden, if one is needed and there is none."""
        self._timer = None
        if self._closed or self._warden is not None or not needed(os.environ):
            return
        try:
            self._warden = start_warden(self._instance)
        except SpawnError as error:
            self._notice(f"{error}; a kill -9 of drumd may leave workers behind")
            return
        self._exits.watch(self._warden.pid, self._ended, group=False)

    def resume(self, warden: int | None) -> None:
        """Go on with the warden that was started before a re-exec, if it still lives."""
        if warden is None:
            return
        self._warden = Warden(warden)
        try:
            self._exits.watch(warden, self._ended, group=False)
        except OSError:
            self._warden = None

    def close(self) -> None:
        """Replace it no more; it ends by itself after the supervisor."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._warden is not None:
            self._exits.forget(self._warden.pid)

    def _ended(self, _pid: int, status: ExitStatus) -> None:
        self._warden = None
        if not self._closed:
            self._notice(f"the warden ended ({status.describe()}); another one is started")
            self._timer = self._loop.call_later(_AGAIN_AFTER, self.start)
