"""Development: the code of pools with `reload = true` is watched, and each change rolls its pool.

A change that does not even import aborts its rollout, so the last good code serves on.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from drumd.config.settings import PoolSettings
from drumd.supervisor.admin.operator import Operation, RefusedError

QUIET_MS = 300
"""Milliseconds without a further change that end a burst, such as a checkout of many files."""
_SHOWN = 3
"""Changed files that are named."""


class CodeWatch:
    """Watches the app directories that it is told to; `roll(pool, why)` begins a rollout."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        roll: Callable[[str, str], Operation],
        notice: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._roll = roll
        self._notice = notice
        self._watched: dict[str, tuple[str, asyncio.Task[None]]] = {}

    def follow(self, pools: dict[str, PoolSettings]) -> None:
        """Watch exactly those of `pools` that want it."""
        wanted = {name: settings.app_dir for name, settings in pools.items() if settings.reload}
        for name, (directory, task) in list(self._watched.items()):
            if wanted.get(name) != directory:
                task.cancel()
                del self._watched[name]
        for name in wanted.keys() - self._watched.keys():
            task = self._loop.create_task(self._watch(name, Path(wanted[name])))
            self._watched[name] = (wanted[name], task)

    def close(self) -> None:
        """Watch nothing any more."""
        self.follow({})

    async def _watch(self, pool: str, directory: Path) -> None:
        try:
            # Only development needs it, and it is not small.
            from watchfiles import PythonFilter, awatch  # noqa: PLC0415

            async for changes in awatch(directory, watch_filter=PythonFilter(), step=QUIET_MS):
                names = sorted({Path(path).name for _, path in changes})
                self._begin(pool, _listed(names))
        except ImportError:
            self._notice(
                pool,
                f"cannot watch {directory} for changes without the package watchfiles: "
                "`pip install drumd[reload]`; until then `drumctl reload` takes up new code",
            )
        except (OSError, RuntimeError) as error:
            self._notice(
                pool,
                f"cannot watch {directory} for changes: {error}; use `drumctl reload` instead",
            )

    def _begin(self, pool: str, what: str) -> None:
        try:
            self._roll(pool, f"a change of {what}")
        except RefusedError as error:
            self._notice(pool, str(error))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
