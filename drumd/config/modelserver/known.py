"""The runtime parameters that drumd itself reads: types, ranges, defaults, keys of drumd.toml."""

import math
from dataclasses import dataclass
from typing import Any

from drumd.config.modelserver.definitions import range_in_words
from drumd.config.modelserver.values import ParameterType, plain
from drumd.config.problems import nearest

MAX_WORKERS = 256
"""As in `drumd.config.kinds`, which is too much to import for a worker; a test compares."""
_DAY = 86_400
_MANY = 1_000_000_000

NUMERIC, STRING = ParameterType.NUMERIC, ParameterType.STRING

SERVER_TYPE = "DRUM_SERVER_TYPE"
SERVER_TYPES = ("fastapi", "flask", "gunicorn", "uvicorn")
WORKERS = "CUSTOM_MODEL_WORKERS"
THREADS = "CUSTOM_MODEL_THREADS"
QUEUE = "CUSTOM_MODEL_QUEUE"
REQUEST_TIMEOUT = "DRUM_CLIENT_REQUEST_TIMEOUT"
MAX_BODY = "DRUM_MAX_REQUEST_SIZE"
BACKEND_HOST = "OPENAI_HOST"
BACKEND_PORT = "OPENAI_PORT"
UVICORN_WORKER_CLASS = "DRUM_UVICORN_WORKER_CLASS"

PLAIN_VARIABLES = frozenset({BACKEND_HOST, BACKEND_PORT})
"""Parameters that are also taken from environment variables of that very name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A parameter that drumd reads."""

    name: str
    type: ParameterType
    meaning: str
    least: int | None = None
    most: int | None = None
    whole: bool = False
    choices: tuple[str, ...] = ()
    default: str = ""
    """As documents show it."""
    keys: tuple[str, ...] = ()
    """Keys of the pool in drumd.toml that it sets."""
    server: str = ""
    """The runtime that it counts for; all of them, where it is empty."""
    allow_empty: bool = False

    def check(self, value: Any) -> Any:
        """Return the value as drumd uses it; raise `ValueError` that says what is allowed."""
        if self.allow_empty and value in (None, ""):
            return None
        return self._choice(value) if self.type is STRING else self._number(value)

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        if self.choices:
            return ", ".join(self.choices)
        if self.type is STRING:
            return "string"
        noun = "whole number" if self.whole else "number"
        return f"{noun} {range_in_words(self.least, self.most)}"

    def _choice(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be {self._expected}")  # noqa: TRY004 - collected with others
        if not self.choices:
            return value
        # A class may be named with its module, as gunicorn's -k has it.
        named = value.lower().removeprefix("uvicorn.workers.").removeprefix("uvicorn_worker.")
        for choice in self.choices:
            if choice.lower() == (named if self.name == UVICORN_WORKER_CLASS else value.lower()):
                return choice
        if self.name == SERVER_TYPE:
            raise ValueError(
                f"ValueError: Invalid {SERVER_TYPE}: {value!r}. "
                f"Valid options are: {', '.join(SERVER_TYPES)}"
            )
        meant = nearest(value, self.choices)
        hint = f"; did you mean {meant}?" if meant else ""
        raise ValueError(f"must be {self._expected}{hint}")

    def _number(self, value: Any) -> float:
        # The type that the model gives it may be a string, since others read it as one.
        value = plain(value) if isinstance(value, str) else value
        number = value if type(value) in (int, float) else math.nan
        least, most = self.least or 0, self.most or 0  # every number has both
        if not least <= number <= most or (self.whole and number != int(number)):
            raise ValueError(f"must be {self._expected}")
        return int(number) if self.whole else float(number)

    @property
    def _expected(self) -> str:
        return f"one of {self.allowed}" if self.choices else f"a {self.allowed}"


def _of_server(server: str, prefix: str, worker_class: Known) -> tuple[Known, ...]:
    """Return the parameters that there are of each server."""
    levels = ("critical", "error", "warning", "info", "debug")
    return (
        worker_class,
        Known(
            name=f"{prefix}KEEP_ALIVE",
            type=NUMERIC,
            least=0,
            most=3600,
            default="75",
            keys=("keepalive",),
            server=server,
            meaning="seconds that an idle HTTP connection stays open",
        ),
        Known(
            name=f"{prefix}GRACEFUL_TIMEOUT",
            type=NUMERIC,
            least=0,
            most=3600,
            default="25",
            keys=("grace_period",),
            server=server,
            meaning="seconds that a worker may go on with its requests before it must end",
        ),
        Known(
            name=f"{prefix}MAX_REQUESTS",
            type=NUMERIC,
            whole=True,
            least=0,
            most=_MANY,
            default="0",
            keys=("recycle.max_requests",),
            server=server,
            meaning="a worker that has answered this many requests is replaced; 0: never",
        ),
        Known(
            name=f"{prefix}MAX_REQUESTS_JITTER",
            type=NUMERIC,
            whole=True,
            least=0,
            most=_MANY,
            default="0",
            keys=("recycle.max_requests_jitter",),
            server=server,
            meaning="up to this many requests more, drawn for each worker",
        ),
        Known(
            name=f"{prefix}WORKER_CONNECTIONS",
            type=NUMERIC,
            whole=True,
            least=1,
            most=65_535,
            default="1000" if server == "gunicorn" else "not set",
            keys=(
                "gunicorn.worker_connections"
                if server == "gunicorn"
                else "uvicorn.limit_concurrency",
            ),
            server=server,
            meaning="connections that a worker has open at once"
            if server == "gunicorn"
            else "connections or requests that a worker has at once; more are answered with 503",
        ),
        Known(
            name=f"{prefix}LOG_LEVEL",
            type=STRING,
            choices=levels if server == "gunicorn" else (*levels, "trace"),
            default="info",
            keys=("gunicorn.loglevel" if server == "gunicorn" else "uvicorn.log_level",),
            server=server,
            meaning=f"the least important lines that {server} itself logs",
        ),
    )


TABLE = (
    Known(
        name=SERVER_TYPE,
        type=STRING,
        choices=SERVER_TYPES,
        default="flask",
        keys=("runtime",),
        meaning="what serves: Werkzeug for development (flask), the Flask app in gunicorn's "
        "workers, or the FastAPI app in uvicorn's (fastapi, or its other name uvicorn)",
    ),
    Known(
        name=WORKERS,
        type=NUMERIC,
        whole=True,
        least=1,
        most=MAX_WORKERS,
        default="1",
        keys=("workers",),
        meaning="worker processes; flask has one",
    ),
    Known(
        name=THREADS,
        type=NUMERIC,
        whole=True,
        least=1,
        most=1024,
        default="4",
        keys=("threads",),
        meaning="requests that a worker of gunicorn or fastapi computes at once",
    ),
    Known(
        name=QUEUE,
        type=NUMERIC,
        whole=True,
        least=0,
        most=65_535,
        default="64",
        meaning="requests that may wait for one of these threads with fastapi; "
        "more are answered with 503",
    ),
    Known(
        name=REQUEST_TIMEOUT,
        type=NUMERIC,
        least=1,
        most=_DAY,
        default="120",
        keys=("health.request_timeout",),
        meaning="seconds: a worker that hangs with a request older than this is replaced, "
        "and a backend that is silent for longer is given up",
    ),
    Known(
        name="DRUM_WEBSERVER_BACKLOG",
        type=NUMERIC,
        whole=True,
        least=1,
        most=65_535,
        default="2048",
        keys=("backlog",),
        meaning="connections that may wait to be accepted",
    ),
    Known(
        name="DRUM_START_TIMEOUT",
        type=NUMERIC,
        least=1,
        most=_DAY,
        default="600",
        keys=("start_timeout",),
        meaning="seconds that a worker may take to load the model",
    ),
    Known(
        name=MAX_BODY,
        type=NUMERIC,
        whole=True,
        least=1,
        most=2**40,
        default=str(256 * 1024 * 1024),
        meaning="bytes that a request's body may have",
    ),
    Known(
        name=BACKEND_HOST,
        type=STRING,
        default="not set",
        allow_empty=True,
        meaning="host of the server that `/directAccess/` and `/nim/` lead to; "
        "also as a variable of this name",
    ),
    Known(
        name=BACKEND_PORT,
        type=NUMERIC,
        whole=True,
        least=1,
        most=65_535,
        default="not set",
        allow_empty=True,
        meaning="its port; also as a variable of this name",
    ),
    *_of_server(
        "gunicorn",
        "DRUM_GUNICORN_",
        Known(
            name="DRUM_GUNICORN_WORKER_CLASS",
            type=STRING,
            choices=("sync", "gthread", "gevent"),
            default="gthread",
            keys=("gunicorn.worker_class",),
            server="gunicorn",
            meaning="gunicorn's worker class; gevent takes the extra of that name",
        ),
    ),
    *_of_server(
        "uvicorn",
        "DRUM_UVICORN_",
        Known(
            name=UVICORN_WORKER_CLASS,
            type=STRING,
            choices=("auto", "UvicornWorker", "UvicornH11Worker"),
            default="auto",
            keys=("uvicorn.loop", "uvicorn.http"),
            server="uvicorn",
            meaning="UvicornH11Worker: asyncio's own loop and h11, for whatever cannot do with "
            "uvloop and httptools; the module may be said, such as `uvicorn.workers.UvicornWorker`",
        ),
    ),
)

KNOWN = {known.name: known for known in TABLE}
