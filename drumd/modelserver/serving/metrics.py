"""What Prometheus is told of the model; drumd adds it up over the workers."""

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from drumd import forking

_METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_requests = Counter(
    "model_requests",
    "Requests answered, by route, method and status.",
    ("route", "method", "status"),
)
_durations = Histogram(
    "model_request_seconds",
    "Seconds from a request to the end of its answer, by route and status.",
    ("route", "status"),
    buckets=_SECONDS,
)
_in_flight = Gauge(
    "model_requests_in_flight",
    "Requests that are being answered, by route.",
    ("route",),
    multiprocess_mode="livesum",
)
_load = Gauge(
    "model_load_seconds",
    "Seconds that loading the model took; of several workers, the longest.",
    multiprocess_mode="livemax",
)
_hooks = Histogram(
    "model_hook_seconds",
    "Seconds that the model's code took, by hook.",
    ("hook",),
    buckets=_SECONDS,
)


def began(route: str) -> None:
    """Count a request that is being answered."""
    _of_route(route).inc()


def ended(route: str, method: str, status: int, seconds: float) -> None:
    """Count a request whose answer is complete."""
    _of_route(route).dec()
    requests, durations = _of_status(route, method if method in _METHODS else "other", status)
    requests.inc()
    durations.observe(seconds)


def hook_took(hook: str, seconds: float) -> None:
    """Count a call of the model's code."""
    _hooks.labels(hook).observe(seconds)


# To find a metric by its labels takes longer than to count it.
@cache
def _of_route(route: str) -> Gauge:
    return _in_flight.labels(route)


@cache
def _of_status(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    return _requests.labels(route, method, str(status)), _durations.labels(route, str(status))


def loaded(seconds: float) -> None:
    """Tell how long the load took: here, and in each worker that is forked from here."""
    _load_seconds.append(seconds)
    _tell_load()


_load_seconds: list[float] = []


@forking.after_fork
def _tell_load() -> None:
    # What a template counts is dropped, so its forks have to say it themselves.
    if _load_seconds:
        _load.set(_load_seconds[-1])
