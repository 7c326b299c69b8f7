"""What a changed key takes to come into effect; each key in the settings declares its own.

A key is declared with one of the constants below, as `json_schema_extra=LIVE` of its `Field`.
"""

from enum import StrEnum
from typing import Final

from pydantic.config import JsonDict
from pydantic.fields import FieldInfo


class Effect(StrEnum):
    """What has to happen before a new value counts."""

    LIVE = "live"
    """Nothing: it counts from the reload on."""
    NEW_WORKERS = "new workers"
    """A rollout: running workers keep the old value for their life."""
    SOCKETS = "sockets"
    """Sockets are opened and closed; the workers stay."""
    RESTART = "restart of drumd"


_NAME = "effect"

LIVE: Final[JsonDict] = {_NAME: Effect.LIVE}
NEW_WORKERS: Final[JsonDict] = {_NAME: Effect.NEW_WORKERS}
SOCKETS: Final[JsonDict] = {_NAME: Effect.SOCKETS}
RESTART: Final[JsonDict] = {_NAME: Effect.RESTART}


def effect_of(known: FieldInfo) -> Effect:
    """Return what the key declares; raise `LookupError` for a key without a declaration."""
    extra = known.json_schema_extra
    if not isinstance(extra, dict) or _NAME not in extra:
        raise LookupError(f"cannot tell the effect of a change of {known!r}; declare one with it")
    return Effect(str(extra[_NAME]))
