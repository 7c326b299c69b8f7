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
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
TEMPLATES = "template"
"""Directory below a pool's where its template writes: no scrape looks there."""
_VALUES_MODULE = "prometheus_client.values"


class Identity:
    """Who writes: asked for on each change of a metric, so it is kept, not computed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.witness: Any = None
        """Some value of a metric, if there is one."""
        self._parent = name
        os.register_at_fork(after_in_child=self._become_child)

    def become(self, name: str) -> None:
        """Write as `name` from now on."""
        self.name = self._parent = name

    def _become_child(self) -> None:
        self.name = f"{self._parent}-{os.getpid()}"


def install(directory: str, lease: int) -> None:
    """Have every metric that this process makes write to `directory` as `lease`.

    Call it before the app, or anything that may import prometheus_client, is imported.
    """
    _install(directory, Identity(f"L{lease}"))


def install_in_template(directory: str) -> Identity:
    """Have metrics write where nobody reads, until a fork goes on as a worker (`inherit`)."""
    import shutil  # noqa: PLC0415 - workers don't pay for it

    aside = f"{directory}/{TEMPLATES}"
    # What an earlier template left may be cut off in the middle.
    shutil.rmtree(aside, ignore_errors=True)
    os.makedirs(aside, mode=0o700)  # noqa: PTH103 - pathlib costs start time here
    identity = Identity("template")
    _install(aside, identity)
    return identity


def inherit(identity: Identity, directory: str, lease: int) -> None:
    """Go on in a template's fork: all metrics write to `directory` as `lease`, from its values.

    Also those that were made in the template, and whatever that had counted is forgotten.
    """
    os.environ[DIRECTORY_VARIABLE] = directory
    identity.become(f"L{lease}")
    if identity.witness is not None:
        # Any use makes all values look for their files again; so a scrape sees them at once.
        identity.witness.get()


def _install(directory: str, identity: Identity) -> None:
    os.environ[DIRECTORY_VARIABLE] = directory
    sys.meta_path.insert(0, _ValuesFinder(identity))


class _ValuesFinder:
    """Finds prometheus_client.values as Python would, with a loader that replaces its class.

    No subclass of importlib.abc's, which takes 5 ms to import; what counts are the methods.
    """

    def __init__(self, identity: Identity) -> None:
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

    def __init__(self, loader: "Loader", identity: Identity) -> None:
        self._loader = loader
        self._identity = identity

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the module's own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then replace its class."""
        self._loader.exec_module(module)
        identity = self._identity

        class Value(module.MultiProcessValue(lambda: identity.name)):  # type: ignore[misc]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                identity.witness = self

        module.ValueClass = Value  # type: ignore[attr-defined]
