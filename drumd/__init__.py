"""A process supervisor for Python web and model servers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drumd.config.modelserver.lookup import RuntimeParameters
    from drumd.modelserver.errors import ModelError

__all__ = ["ModelError", "RuntimeParameters"]
__version__ = "0.1.0"

_MODULES = {
    "ModelError": "drumd.modelserver.errors",
    "RuntimeParameters": "drumd.config.modelserver.lookup",
}
"""What a model's code may import from here, and where it is: imported when asked for."""


def __getattr__(name: str) -> Any:
    """Return what models import from here."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - every process of drumd's imports this

    return getattr(import_module(_MODULES[name]), name)
