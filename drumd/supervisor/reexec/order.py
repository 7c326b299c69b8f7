"""The order: how a re-exec tells the program that it starts what it is to do.

An environment variable, read and removed before anything else is imported. The standard library
alone, since this is what the old program's last resort stands on.
"""

import json
import os
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass
from typing import Literal

VARIABLE = "DRUMD_REEXEC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to do with the state on fd `state`."""

    task: Literal["check", "resume", "return"]
    """`check`: say whether it can be read, on fd `answer`. `resume`: go on with it. `return`: go
    on with it, as the old program, because the new one could not (`failure`)."""
    state: int
    answer: int = -1
    failure: str = ""

    def encode(self) -> str:
        """Return the variable's value."""
        return json.dumps(asdict(self))


def take_order(environ: MutableMapping[str, str]) -> Order | None:
    """Return the order that this process was started with, and remove it; None without one."""
    value = environ.pop(VARIABLE, None)
    try:
        return None if value is None else Order(**json.loads(value))
    except (ValueError, TypeError):
        raise SystemExit(
            f"drumd: cannot read {VARIABLE}: drumd sets it itself when it replaces its program; "
            "unset it"
        ) from None


def read_state(fd: int) -> bytes:
    """Return the whole document on `fd`; it can be read again."""
    return os.pread(fd, os.fstat(fd).st_size, 0)
