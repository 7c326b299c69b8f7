"""A process supervisor for Python web and model servers."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drumd.config.modelserver.lookup import RuntimeParameters as RuntimeParameters
    from drumd.modelserver.errors import ModelError as ModelError

__version__ = "0.1.0"

# What model code imports from here; imported when asked for, since everything imports drumd.
_FROM = {
    "ModelError": "drumd.modelserver.errors",
    "RuntimeParameters": "drumd.config.modelserver.lookup",
}


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FROM[name]), name)
