"""Running hooks: measured, and with their exceptions told as what they are."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drumd.modelserver.errors import HookError, LoadError, RequestError
from drumd.modelserver.inference.blame import advice, described, own_status, user_traceback
from drumd.modelserver.inference.hooks import Hook
from drumd.modelserver.inference.interruptions import is_the_users_own

Watcher = Callable[[str, float], None]
"""Is called with a hook's name and the seconds that it took."""

_DOING = {
    "read_input_data": "read the data",
    "transform": "transform the data",
    "score_unstructured": "answer",
    "chat": "answer",
    "get_supported_llm_models": "list the models",
}


def cannot(hook: str) -> str:
    """Return how a message begins that tells of a hook in vain: `cannot predict: score in …`."""
    return f"cannot {_DOING.get(hook, 'predict')}: {place(hook)}"


def place(hook: str) -> str:
    """Return where a hook is: in custom.py, or in the artifact's own code."""
    return "the model's predict" if hook == "predict" else f"{hook} in custom.py"


class Runner:
    """Calls what the model brings along."""

    def __init__(self, code_dir: Path) -> None:
        self._code_dir = code_dir
        self.watcher: Watcher | None = None

    def load(self, hook: Hook) -> Any:
        """Call a hook that takes the model directory alone; raise `LoadError`."""
        try:
            return hook(str(self._code_dir))
        except BaseException as error:
            if not is_the_users_own(error):
                raise
            raise LoadError(
                f"cannot load the model: {place(hook.name)} raised "
                f"{described(error)}{advice(error)}",
                user_traceback(error, self._code_dir),
            ) from error

    def run(self, name: str, call: Callable[..., Any], *arguments: Any, **offered: Any) -> Any:
        """Call a hook as `guarded` does, and tell the watcher how long it took."""
        started = time.perf_counter()
        try:
            return self.guarded(name, call, *arguments, **offered)
        finally:
            self.watched(name, time.perf_counter() - started)

    def guarded(self, name: str, call: Callable[..., Any], *arguments: Any, **offered: Any) -> Any:
        """Call a hook, or what belongs to it; raise `HookError`, or a `RequestError` of its own."""
        try:
            return call(*arguments, **offered)
        except RequestError:
            raise
        except BaseException as error:
            if not is_the_users_own(error):
                raise
            raise hook_error(name, error) from error

    def watched(self, name: str, seconds: float) -> None:
        """Tell the watcher that a hook ran."""
        if self.watcher is not None:
            self.watcher(name, seconds)


def hook_error(name: str, error: BaseException) -> HookError:
    """Return what is told of an exception that a hook raised."""
    own = own_status(error)
    if own is not None:
        return HookError(name, own[1], own[0])
    return HookError(name, f"{cannot(name)} raised {described(error)}")
