"""What the command line of `drumd server` says."""

from collections.abc import Mapping
from dataclasses import dataclass, field

POOL = "model"
"""The name of the one pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelServer:
    """What the command line of `drumd server` says of the model; None for nothing."""

    code_dir: str | None = None
    address: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    """By the name of the variable that says the same, such as `TARGET_TYPE`."""
