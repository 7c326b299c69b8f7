"""Waiting on a channel with a generous cap: the only way that tests wait."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

CAP = 30.0
"""Seconds after which a wait is a failure; far above what is ever needed."""


def wait_until(
    probe: Callable[[], T], *, cap: float = CAP, what: str = "", every: float = 0.01
) -> T:
    """Return the first truthy result of `probe`; raise `AssertionError` after `cap` seconds."""
    end = time.monotonic() + cap
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {cap} s: {what or probe}; last result {result!r}")
        time.sleep(every)


async def until(
    probe: Callable[[], T], *, cap: float = CAP, what: str = "", every: float = 0.01
) -> T:
    """Do the same inside a running event loop."""
    end = time.monotonic() + cap
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {cap} s: {what or probe}; last result {result!r}")
        await asyncio.sleep(every)
