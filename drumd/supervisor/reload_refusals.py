"""What a reload is refused for, before it changes anything: what could not be carried through."""

import os
from collections.abc import Sequence

from drumd.config.diff import Changes
from drumd.config.settings import Settings
from drumd.supervisor.admin.operator import MAX_QUEUED, RefusedError
from drumd.supervisor.owner import Owner
from drumd.supervisor.sockets.errors import AddressInUseError, ListenError


def refuse_impossible(
    changes: Changes, rolling: Sequence[str], in_force: Settings, owner: Owner
) -> None:
    """Raise `RefusedError` where a change, or rolling the pools `rolling`, is impossible now."""
    if owner.ended is not None:
        raise RefusedError("cannot reload: drumd stops")
    added = [pool.name for pool in changes.pools if pool.before is None]
    removed = [pool.name for pool in changes.pools if pool.after is None]
    for name in (*rolling, *added):
        if name in owner.leaving:
            raise RefusedError(
                f"cannot reload: pool {name} is still ending since the config had it no more; "
                "nothing has changed; reload again when `drumctl status` shows it no more"
            )
    for name in (*rolling, *removed):
        if len(owner.pools[name].operations) >= MAX_QUEUED:
            raise RefusedError(
                f"cannot reload: {MAX_QUEUED} operations of pool {name} wait already; nothing "
                "has changed; cancel some with `drumctl cancel ID`"
            )
    _refuse_moves(changes, in_force)


def _refuse_moves(changes: Changes, in_force: Settings) -> None:
    """Refuse to move an address: the pool that has it still answers who is waiting there."""
    holders = {address: name for name, pool in in_force.pools.items() for address in pool.bind}
    for pool in changes.pools:
        for address in pool.opened:
            holder = holders.get(address, pool.name)
            if holder != pool.name:
                raise RefusedError(
                    f"cannot reload: {address} would move from pool {holder} to pool {pool.name}, "
                    "and two pools cannot have it at a time; nothing has changed; take it from "
                    f"{holder}, reload, give it to {pool.name}, and reload again: in between "
                    "nobody answers there"
                )


def in_words(error: ListenError) -> str:
    """Return what to say of an address that cannot be had; it may be drumd itself that has it."""
    if not isinstance(error, AddressInUseError) or error.holder is None:
        return str(error)
    if error.holder.pid != os.getpid():
        return str(error)
    return f"a pool still lets go of {error.address}, so reload again in a moment"
