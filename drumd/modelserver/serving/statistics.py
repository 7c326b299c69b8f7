"""What one worker has done: counted in memory, for `/stats`."""

import os
import threading
import time
from collections import defaultdict
from typing import Any

import psutil


class _Route:
    """The requests of one route."""

    __slots__ = ("count", "errors", "longest", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.seconds = 0.0
        self.longest = 0.0


class Statistics:
    """Requests by route. Several threads count at once."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._routes: defaultdict[str, _Route] = defaultdict(_Route)

    def finished(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        with self._guard:
            counted = self._routes[route]
            counted.count += 1
            counted.seconds += seconds
            counted.longest = max(counted.longest, seconds)
            if status >= 400:  # noqa: PLR2004 - where HTTP's errors begin
                counted.errors += 1

    def shown(self) -> dict[str, Any]:
        """Return all of it, and what the process comes to."""
        with self._guard:
            requests = {
                name: {
                    "count": each.count,
                    "errors": each.errors,
                    "seconds": round(each.seconds, 6),
                    "longestSeconds": round(each.longest, 6),
                }
                for name, each in sorted(self._routes.items())
            }
        process = psutil.Process()
        return {
            "pid": os.getpid(),
            "memoryBytes": process.memory_info().rss,
            # The process's own: with preload this object is older than the worker.
            "uptimeSeconds": round(time.time() - process.create_time(), 3),
            "requests": requests,
        }
