"""The runtime parameters that drumd itself reads: types, ranges, defaults, keys of drumd.toml."""

from drumd.config.modelserver.known import (
    BACKEND_HOST,
    BACKEND_PORT,
    MAX_BODY,
    MAX_WORKERS,
    NUMERIC,
    QUEUE,
    REQUEST_TIMEOUT,
    SERVER_TYPE,
    SERVER_TYPES,
    STRING,
    THREADS,
    UVICORN_WORKER_CLASS,
    WORKERS,
    Known,
)

_DAY = 86_400
_MANY = 1_000_000_000


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
            else "connections that a worker has open at once; on more of them it answers with 503 "
            "(the key is set to one more, since uvicorn counts the one that it refuses)",
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
        meaning="requests that a worker computes at once",
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
