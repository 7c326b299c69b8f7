"""The app's own prometheus_client metrics, written as the worker's lease instead of its pid.

Files are named by lease (`counter_L3.db`), so there are as many as leases, however many workers
come and go, and a counter goes on where the lease's last worker left it. A child that the worker
forks writes as `L3-PID`: two processes in one file would lose counts.

The value class must be in place before the first metric exists, and the directory's variable
before prometheus_client is imported (prometheus_client 0.26, values.py); yet an app that does not
use it must not pay for its import, which is some 70 ms. So the import itself is watched.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_VALUES_MODULE = "prometheus_client.values"


def install(directory: str, lease: int) -> None:
    """Have every metric that this process makes write to `directory` as `lease`.

    Call it before the app, or anything that may import prometheus_client, is imported.
    """
    os.environ[DIRECTORY_VARIABLE] = directory
    identity = Identity(lease)
    os.register_at_fork(after_in_child=identity.become_child)
    sys.meta_path.insert(0, _ValuesFinder(lambda: identity.name))


class Identity:
    """Who writes: asked for on each change of a metric, so it is kept, not computed."""

    def __init__(self, lease: int) -> None:
        self._lease = lease
        self.name = f"L{lease}"

    def become_child(self) -> None:
        """Go on as a forked child of the worker."""
        self.name = f"L{self._lease}-{os.getpid()}"


class _ValuesFinder:
    """Finds prometheus_client.values as Python would, with a loader that replaces its class.

    No subclass of importlib.abc's, which takes 5 ms to import; what counts are the methods.
    """

    def __init__(self, identity: Callable[[], str]) -> None:
        self._identity = identity

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer for that one module, once."""
        if fullname != _VALUES_MODULE:
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(fullname)
        if found is not None and found.loader is not None:
            found.loader = cast("Loader", _ValuesLoader(found.loader, self._identity))
        return found


class _ValuesLoader:
    """Runs the module as its own loader would, then sets the value class for all metrics."""

    def __init__(self, loader: "Loader", identity: Callable[[], str]) -> None:
        self._loader = loader
        self._identity = identity

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the module's own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then replace its class."""
        self._loader.exec_module(module)
        module.ValueClass = module.MultiProcessValue(self._identity)  # type: ignore[attr-defined]
