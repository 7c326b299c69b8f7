"""Reloading: the config is read again, and what it changes is begun, pool by pool.

Nothing is changed unless all of it can be: the file is valid, every new address is free, and the
daemon takes the operations. The order: new addresses are opened, pools that went are stopped, new
ones started, what is live counts at once, and last the pools whose workers would be others roll.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from drumd.config.changes import steps
from drumd.config.diff import Changes, PoolChange, diff
from drumd.config.effects import Effect
from drumd.config.loading import Loaded
from drumd.config.modelserver.changed import changes_between
from drumd.config.modelserver.command import POOL as MODEL_POOL
from drumd.config.problems import ConfigInvalid
from drumd.config.settings import PoolSettings, Settings
from drumd.supervisor.admin.operator import (
    Operation,
    Pending,
    RefusedError,
    Reload,
    unknown_pool,
)
from drumd.supervisor.core.events import Cancelled, Reconfigured
from drumd.supervisor.core.model import OperationKind, Pool
from drumd.supervisor.owner import Owner
from drumd.supervisor.pool.hands import Hands
from drumd.supervisor.pool.specs import policy
from drumd.supervisor.reload_refusals import in_words, refuse_impossible
from drumd.supervisor.sockets.errors import ListenError
from drumd.wire.address import parse_address


class Pools(Protocol):
    """What makes pools of a running daemon, and lets go of them."""

    def open(self, name: str, settings: PoolSettings) -> Pool:
        """Bind a new pool's addresses and have hands for it; raise `ListenError`."""

    def discard(self, name: str) -> None:
        """Close what `open` opened, of a pool without workers."""


class Submit(Protocol):
    """Queues an operation."""

    def __call__(
        self,
        kind: OperationKind,
        pool: str,
        by: str,
        *,
        size: int | None = None,
        generation: int | None = None,
        preload: bool = False,
    ) -> Operation:
        """Queue it and return it; raise `RefusedError`."""


class Reloader:
    """Knows the config in force, and brings the daemon to another one."""

    def __init__(
        self,
        loaded: Loaded,
        owner: Owner,
        hands: Mapping[str, Hands],
        pools: Pools,
        submit: Submit,
        on_change: Callable[[Settings], None],
    ) -> None:
        self._loaded = loaded
        self._owner = owner
        self._hands = hands
        self._pools = pools
        self._submit = submit
        self._on_change = on_change
        self._turn = asyncio.Lock()

    @property
    def loaded(self) -> Loaded:
        """The config in force."""
        return self._loaded

    @property
    def settled(self) -> bool:
        """Whether no reload is just being begun."""
        return not self._turn.locked()

    async def changes(self) -> Pending:
        """Return what a reload would change now; raise `RefusedError` for an invalid config."""
        fresh = await self._read()
        moved = {
            name: str(_directory(settings))
            for name, settings in fresh.settings.pools.items()
            if name in self._hands and self._has_moved(name, settings)
        }
        return Pending(changes=changes_between(self._loaded, fresh), moved=moved)

    async def reload(self, only: str | None, by: str) -> Reload:
        """Read the config again, and begin what it changes, for one pool or for all.

        Pools whose workers would be others roll. Where the config says the same as before, what
        has changed is the code: then all roll, and with `only` that one does in any case.
        Raise `RefusedError` and `UnknownNameError`, and then nothing has changed.
        """
        async with self._turn:
            fresh = await self._read()
            wanted = fresh.settings
            if only is not None:
                wanted = self._with_pool(only, wanted)
            changes = diff(self._loaded.settings, wanted)
            rolling = self._rolling(changes, wanted, only)
            for name in rolling:
                if name in self._hands:  # it may have ended meanwhile, if it was leaving
                    await self._hands[name].measure(template=wanted.pools[name].preload)
            # From here on nothing waits, so what was found possible stays so.
            refuse_impossible(changes, rolling, self._loaded.settings, self._owner)
            opened = self._rebind(changes)
            operations, notes = self._begin(changes, wanted, opened, rolling, by)
            if only is None:
                notes += self._left_out(changes, wanted, rolling)
            self._loaded = self._in_force(fresh, wanted, only)
            self._on_change(self._loaded.settings)
            notes += [str(warning) for warning in fresh.warnings]
            return Reload(operations=tuple(operations), notes=tuple(notes))

    def _in_force(self, fresh: Loaded, wanted: Settings, only: str | None) -> Loaded:
        """Return what counts from now on: of keys that take a restart of drumd the old values."""
        known = self._loaded
        kept = {
            change.path[-1]: getattr(known.settings.supervisor, change.path[-1])
            for change in diff(known.settings, wanted).supervisor
            if change.effect is Effect.RESTART
        }
        supervisor = wanted.supervisor.model_copy(update=kept)
        mine = "" if only is None else f"pools.{only}."
        origins = {key: of for key, of in fresh.origins.items() if key.startswith(mine)}
        if only is not None:
            others = known.origins.items()
            origins |= {key: of for key, of in others if not key.startswith(mine)}
        origins |= {f"supervisor.{key}": known.origins[f"supervisor.{key}"] for key in kept}
        return Loaded(
            settings=Settings.model_construct(supervisor=supervisor, pools=wanted.pools),
            origins=origins,
            warnings=fresh.warnings,
            sources=fresh.sources,
            model=fresh.model if only in (None, MODEL_POOL) else known.model,
        )

    def roll(self, name: str, by: str) -> Operation:
        """Bring a pool to a new generation with the settings in force: its code has changed."""
        settings = self._loaded.settings.pools[name]
        generation = self._hands[name].prepare(settings)
        return self._submit_rollout(name, by, generation, settings)

    # --- what is wanted -------------------------------------------------------------------------

    async def _read(self) -> Loaded:
        if self._owner.ended is not None:
            raise RefusedError("cannot reload: drumd stops")
        try:
            # Validating takes some 50 ms, and a file may be on a slow disk.
            return await asyncio.to_thread(self._loaded.sources.load)
        except ConfigInvalid as error:
            count = len(error.problems)
            hints = (f"warning: {hint}" for hint in error.hints)
            listed = "\n".join(f"  {line}" for line in (*error.problems, *hints))
            raise RefusedError(
                f"cannot use the changed config: {count} problem{'' if count == 1 else 's'}; "
                f"drumd goes on with the one that it has\n{listed}"
            ) from error

    def _with_pool(self, name: str, wanted: Settings) -> Settings:
        """Return the settings in force, but those wanted for one pool."""
        known = self._loaded.settings
        names = {**known.pools, **wanted.pools}
        if name not in names:
            raise unknown_pool(name, names)
        pools = {
            each: wanted.pools[each] if each == name else known.pools[each]
            for each in (name, *known.pools)
            if each != name or name in wanted.pools
        }
        return Settings.model_construct(supervisor=known.supervisor, pools=pools)

    def _rolling(self, changes: Changes, wanted: Settings, only: str | None) -> tuple[str, ...]:
        """Return the pools whose workers are to be replaced."""
        there = [name for name in wanted.pools if name in self._hands]
        if only is not None:
            return tuple(name for name in there if name == only)
        changed = {pool.name for pool in changes.pools if pool.rollout}
        changed |= {name for name in there if self._has_moved(name, wanted.pools[name])}
        if not changed and not changes.takes_effect:
            return tuple(there)
        return tuple(name for name in there if name in changed)

    def _has_moved(self, name: str, settings: PoolSettings) -> bool:
        """Say whether the app's directory is another one, such as a link to the next release."""
        generation = self._hands[name].generations.get(self._owner.pools[name].generation)
        return generation is not None and generation.app_dir != _directory(settings)

    # --- what is done ---------------------------------------------------------------------------

    def _rebind(self, changes: Changes) -> dict[str, Pool]:
        """Open all new addresses, or none, and return the new pools; raise `RefusedError`."""
        undo: list[Callable[[], None]] = []
        opened: dict[str, Pool] = {}
        try:
            for pool in changes.pools:
                if pool.after is None:
                    continue
                if pool.before is None:
                    opened[pool.name] = self._pools.open(pool.name, pool.after)
                    undo.append(partial(self._pools.discard, pool.name))
                elif pool.sockets:
                    self._listen(pool.name, pool.after)
                    undo.append(partial(self._listen, pool.name, pool.before))
        except ListenError as error:
            for step in reversed(undo):
                step()
            raise RefusedError(f"cannot reload: {in_words(error)}; nothing has changed") from error
        return opened

    def _listen(self, name: str, settings: PoolSettings) -> None:
        addresses = [parse_address(text) for text in settings.bind]
        self._hands[name].rebind(addresses, backlog=settings.backlog)

    def _begin(
        self,
        changes: Changes,
        wanted: Settings,
        opened: Mapping[str, Pool],
        rolling: Sequence[str],
        by: str,
    ) -> tuple[list[Operation], list[str]]:
        operations: list[Operation] = []
        notes: list[str] = []
        for pool in changes.pools:
            notes += [f"pool {pool.name}: {step}" for step in steps(pool)]
            if pool.after is None:
                for waiting in self._owner.pools[pool.name].operations:
                    self._owner.post(pool.name, Cancelled(operation_id=waiting.id, by=by))
                operations.append(self._submit(OperationKind.STOP, pool.name, by))
                self._owner.remove(pool.name, partial(self._pools.discard, pool.name))
            elif pool.name in opened:
                self._owner.add(opened[pool.name])
                operations.append(self._submit(OperationKind.START, pool.name, by))
            else:
                size = self._reconfigure(pool, pool.after, rolls=pool.name in rolling)
                if size is not None:
                    operations.append(self._submit(OperationKind.SCALE, pool.name, by, size=size))
        for name in rolling:
            settings = wanted.pools[name]
            generation = self._hands[name].prepare(settings)
            operations.append(self._submit_rollout(name, by, generation, settings))
        return operations, notes

    def _left_out(
        self, changes: Changes, wanted: Settings, rolling: Sequence[str]
    ) -> Iterator[str]:
        """Yield what a reload of everything leaves as it is."""
        still = [n for n in wanted.pools if n not in rolling and n in self._loaded.settings.pools]
        if still:
            yield (
                f"not rolled, since the config says the same of their workers: {', '.join(still)}; "
                "`drumctl reload POOL` brings out what is on disk"
            )
        if changes.restart:
            yield f"takes effect when drumd is restarted: {', '.join(changes.restart)}"

    def _submit_rollout(
        self, name: str, by: str, generation: int, settings: PoolSettings
    ) -> Operation:
        return self._submit(
            OperationKind.RELOAD, name, by, generation=generation, preload=settings.preload
        )

    def _reconfigure(self, pool: PoolChange, after: PoolSettings, *, rolls: bool) -> int | None:
        """Have what is live count; return the size that is left to be brought about.

        One that rolls gets its size at once: what is missing is filled by the rollout.
        """
        self._hands[pool.name].reconfigure(after)
        size = pool.resized(self._owner.pools[pool.name].size)
        at_once = size if rolls else None
        self._owner.post(pool.name, Reconfigured(policy=policy(after), size=at_once))
        return None if rolls else size


def _directory(settings: PoolSettings) -> Path:
    """Return where the app is imported from now: a link to a release may have moved."""
    return Path(settings.app_dir).resolve()
