"""What an app does around the forks of a preloaded pool.

    from drumd import forking

    @forking.before_fork
    def close_connections(): ...      # in the template, before each fork

    @forking.after_fork
    def connect(): ...                # in the new worker, before it serves

What must not be shared belongs here: connections, threads, CUDA, random states of one's own. Both
must be plain functions without parameters. Without preload nothing forks, so nothing is called.
This module imports nothing else of drumd, so an app can import it wherever drumd is installed.
"""

from collections.abc import Callable
from typing import TypeVar

Hook = Callable[[], object]
F = TypeVar("F", bound=Hook)

_before: list[Hook] = []
_after: list[Hook] = []


def before_fork(function: F) -> F:
    """Have `function` called in the template before each fork; usable as a decorator.

    The last registered is called first, as by `os.register_at_fork`. If it raises, the fork is
    given up, and the worker counts as one that could not start.
    """
    _before.append(function)
    return function


def after_fork(function: F) -> F:
    """Have `function` called in each forked worker before it serves; usable as a decorator.

    The first registered is called first. If it raises, the worker ends and counts as one that
    could not start.
    """
    _after.append(function)
    return function


def hooks_before() -> tuple[Hook, ...]:
    """Return what is to be called before a fork, in order."""
    return tuple(reversed(_before))


def hooks_after() -> tuple[Hook, ...]:
    """Return what is to be called after a fork, in order."""
    return tuple(_after)
