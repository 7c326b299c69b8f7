"""What the app wants done around a fork: functions that it registered, or the config names."""

import contextlib
from typing import Any, cast

from drumd.forking import Hook
from drumd.workers import loader
from drumd.workers.runtime import AppError


def find(name: str, key: str) -> Hook:
    """Import the function that `name` (`module:function`) of the config's `key` names.

    Raises `AppError`, or whatever the module raises.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise AppError(
            f"cannot read {key} {name!r}: write module:function, such as {module or 'shop'}:connect"
        )
    found = loader.find(module, attribute)
    if not callable(found):
        raise AppError(f"cannot call {key} {name!r}: it is no function")
    return cast("Hook", found)


def run(hook: Hook) -> None:
    """Call `hook`; raise what it raises, `AppError` for a coroutine function."""
    result: Any = hook()
    if hasattr(result, "__await__"):
        with contextlib.suppress(Exception):
            result.close()
        raise AppError(
            f"cannot call {name_of(hook)} around a fork: it is async, and no loop runs there; "
            "write a plain function"
        )


def name_of(hook: Hook) -> str:
    """Return what to call `hook` in a message."""
    module = getattr(hook, "__module__", None)
    name = getattr(hook, "__qualname__", None) or repr(hook)
    return f"{module}:{name}" if module else name
