"""From runtime parameters to keys of the pool in drumd.toml."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

from drumd.config.modelserver import known
from drumd.config.modelserver.known import Known
from drumd.config.modelserver.parameters import Parameters, origin_of
from drumd.config.modelserver.server_type import Server
from drumd.config.modelserver.table import KNOWN
from drumd.config.modelserver.target import Target

DIGEST = "RUNTIME_PARAMS_DIGEST"
"""A variable of the workers that changes with what they read themselves.

So a reload replaces them when a file of parameters has changed; its value says nothing else.
"""

_READ_BY_WORKERS = frozenset(
    {
        known.THREADS,
        known.QUEUE,
        known.REQUEST_TIMEOUT,
        known.MAX_BODY,
        known.BACKEND_HOST,
        known.BACKEND_PORT,
    }
)
"""Known parameters that are in `ModelSettings`; the others are the supervisor's."""

_BY_WORKER_CLASS = {
    "auto": ("auto", "auto"),
    "UvicornWorker": ("auto", "auto"),
    "UvicornH11Worker": ("asyncio", "h11"),
}
"""uvicorn's loop and HTTP protocol."""


def keys_of(parameters: Parameters, server: Server) -> Iterator[tuple[str, Any, str]]:
    """Yield dotted keys of the pool with their values and origins.

    Those of other servers do not count, and so don't those that mean nothing to this one.
    """
    for name, parameter in parameters.by_name.items():
        parameter_known = KNOWN.get(name)
        if parameter_known is None or parameter.value is None:
            continue
        if parameter_known.server not in ("", server.runtime) or _is_idle(parameter_known, server):
            continue
        values = _values(parameter_known, parameter.value)
        for key, value in zip(parameter_known.keys, values, strict=True):
            yield key, value, origin_of(parameter)


def read_by_workers(name: str) -> bool:
    """Tell whether workers read a parameter; the others are the supervisor's alone."""
    return name not in KNOWN or name in _READ_BY_WORKERS


def digest(parameters: Parameters, target: Target) -> str:
    """Return a short text that changes with what workers read of parameters and target."""
    values = {
        name: parameter.value
        for name, parameter in parameters.by_name.items()
        if read_by_workers(name)
    }
    said = comparable([values, target.type, target.labels, target.name])
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def comparable(value: Any) -> str:
    """Return a text that is another one for another value; for Python alone, `true` would be 1."""
    return json.dumps(_sorted(value), default=str)


def _sorted(value: Any) -> Any:
    """Return the value with mappings as pairs: keys in YAML may be of several types."""
    if isinstance(value, Mapping):
        pairs = [[str(key), _sorted(inner)] for key, inner in value.items()]
        return {"": sorted(pairs, key=itemgetter(0))}
    return [_sorted(item) for item in value] if isinstance(value, (list, tuple)) else value


def _is_idle(parameter: Known, server: Server) -> bool:
    """Tell whether a parameter sets nothing of the pool: it is settled, or for another server."""
    if parameter.name == known.SERVER_TYPE:
        return True
    if parameter.name == known.WORKERS:
        return server.runtime == "flask"
    return parameter.name == known.THREADS and server.runtime == "uvicorn"


def _values(parameter: Known, value: Any) -> tuple[Any, ...]:
    """Return the value of each of its keys."""
    if parameter.name == known.UVICORN_WORKER_CLASS:
        return _BY_WORKER_CLASS[value]
    if parameter.name == known.UVICORN_CONNECTIONS:
        # uvicorn 0.54: what comes on a connection is refused when there are `limit_concurrency`,
        # the one that it comes on included.
        return (value + 1,)
    if parameter.keys == ("recycle.max_requests",):
        return (value or None,)  # 0: never
    return (value,) * len(parameter.keys)
