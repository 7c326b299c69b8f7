"""`/metrics`: the numbers of a snapshot, and the apps' own, in Prometheus's text format.

Labels have bounded sets of values: pools, states, leases, listeners. Pids are none of them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from drumd.supervisor.core.model import Cause, PoolState, SlotState, WorkerState
from drumd.supervisor.observe.memory import resident_memory
from drumd.supervisor.observe.snapshot import OUTCOMES, START_BOUNDS, PoolNumbers, Snapshot
from drumd.wire.records import COUNTERS, add_counters
from drumd.wire.scoreboard import DURATION_BOUNDS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

WORKER_STATES = tuple(state for state in WorkerState if state is not WorkerState.EXITED)
"""States that live workers can have. Each state is reported, also while nothing is in it."""
_CODES = {
    "status_1xx": "1xx",
    "status_2xx": "2xx",
    "status_3xx": "3xx",
    "status_4xx": "4xx",
    "status_5xx": "5xx",
    "no_status": "none",
}
_EXTRA_HELP = {
    "event_loop_lag_seconds": "How late the supervisor's event loop was, last time it looked.",
}


def render(
    snapshot: Snapshot,
    app_families: Iterable[Metric] = (),
    app_skipped: Mapping[str, int] | None = None,
) -> bytes:
    """Return the page. Reads /proc for the workers' memory: call it in a thread.

    `app_families` and `app_skipped` come from `AppMetrics` (`collect` and `skipped`).
    """
    return generate_latest(_Page(snapshot, app_families, app_skipped or {}))


class _Page(Collector):
    """All families of one scrape, as prometheus_client wants to be given them."""

    def __init__(
        self, snapshot: Snapshot, app_families: Iterable[Metric], app_skipped: Mapping[str, int]
    ) -> None:
        self._snapshot = snapshot
        self._app_families = app_families
        self._app_skipped = app_skipped

    def collect(self) -> Iterator[Metric]:
        yield from _daemon(self._snapshot)
        pools = self._snapshot.pools
        yield from _states(pools)
        yield from _lives(pools)
        yield from _changes(pools)
        yield from _traffic(pools)
        yield from _workers(pools)
        skipped = CounterMetricFamily(
            "drumd_app_metrics_skipped",
            "Files or families of the apps' own metrics that a scrape had to leave out.",
            labels=["pool"],
        )
        for pool in pools:
            skipped.add_metric([pool.name], self._app_skipped.get(pool.name, 0))
        yield skipped
        yield from ProcessCollector(registry=None).collect()
        yield from self._app_families


def _daemon(snapshot: Snapshot) -> Iterator[Metric]:
    yield InfoMetricFamily("drumd", "The supervisor.", value={"version": snapshot.version})
    yield GaugeMetricFamily(
        "drumd_start_time_seconds",
        "When the supervisor started, since the epoch.",
        value=snapshot.started_at,
    )
    yield CounterMetricFamily(
        "drumd_orphans_reaped",
        "Processes that workers left behind, reaped by the supervisor.",
        value=snapshot.orphans_reaped,
    )
    yield CounterMetricFamily(
        "drumd_log_lines_dropped",
        "Log lines lost because the receiver of the log was stuck.",
        value=snapshot.log_lines_dropped,
    )
    for key, value in snapshot.extra.items():
        text = _EXTRA_HELP.get(key, f"{key.replace('_', ' ').capitalize()} of the supervisor.")
        kind = CounterMetricFamily if key.endswith("_total") else GaugeMetricFamily
        yield kind(f"drumd_{key}", text, value=value)


def _states(pools: tuple[PoolNumbers, ...]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "drumd_pool_info", "What a pool runs; always 1.", labels=["pool", "runtime"]
    )
    state = GaugeMetricFamily(
        "drumd_pool_state", "1 for the state that the pool is in.", labels=["pool", "state"]
    )
    generation = GaugeMetricFamily(
        "drumd_pool_generation", "The pool's generation.", labels=["pool"]
    )
    size = GaugeMetricFamily("drumd_pool_size", "Slots that the pool should have.", labels=["pool"])
    slots = GaugeMetricFamily("drumd_slots", "Slots by their state.", labels=["pool", "state"])
    workers = GaugeMetricFamily(
        "drumd_workers", "Live workers by their state.", labels=["pool", "state"]
    )
    stalled = GaugeMetricFamily(
        "drumd_workers_stalled", "Ready workers whose heartbeat is late.", labels=["pool"]
    )
    for pool in pools:
        name = pool.name
        info.add_metric([name, pool.runtime], 1)
        for pool_state in PoolState:
            state.add_metric([name, pool_state], pool_state == pool.state)
        generation.add_metric([name], pool.generation)
        size.add_metric([name], pool.size)
        for slot_state in SlotState:
            slots.add_metric([name, slot_state], pool.slots_by_state.get(slot_state, 0))
        counts = Counter(worker.state for worker in pool.workers)
        for worker_state in WORKER_STATES:
            workers.add_metric([name, worker_state], counts[worker_state])
        stalled.add_metric([name], sum(worker.stalled for worker in pool.workers))
    yield from (info, state, generation, size, slots, workers, stalled)


def _lives(pools: tuple[PoolNumbers, ...]) -> Iterator[Metric]:
    exits = CounterMetricFamily(
        "drumd_worker_exits", "Workers that ended, by cause.", labels=["pool", "cause"]
    )
    starts = HistogramMetricFamily(
        "drumd_worker_start_duration_seconds", "Time from spawn to ready.", labels=["pool"]
    )
    for pool in pools:
        for cause in Cause:
            exits.add_metric([pool.name, cause], pool.exits.get(cause, 0))
        buckets = _buckets(START_BOUNDS, pool.start_durations)
        starts.add_metric([pool.name], buckets=buckets, sum_value=pool.start_seconds)
    yield from (exits, starts)


def _changes(pools: tuple[PoolNumbers, ...]) -> Iterator[Metric]:
    spares = GaugeMetricFamily(
        "drumd_spares", "Ready workers that wait to take a slot.", labels=["pool"]
    )
    templates = GaugeMetricFamily(
        "drumd_templates", "Ready templates, one for each generation in use.", labels=["pool"]
    )
    rollouts = CounterMetricFamily(
        "drumd_rollouts", "Rollouts that have ended, by outcome.", labels=["pool", "outcome"]
    )
    handed = CounterMetricFamily(
        "drumd_connections_handed_over",
        "Idle connections that drained workers gave to others, unseen by their clients.",
        labels=["pool"],
    )
    for pool in pools:
        spares.add_metric([pool.name], pool.spares_ready)
        templates.add_metric([pool.name], pool.templates_ready)
        for outcome in OUTCOMES:
            rollouts.add_metric([pool.name, outcome], pool.rollouts.get(outcome, 0))
        handed.add_metric([pool.name], pool.handed)
    yield from (spares, templates, rollouts, handed)


def _traffic(pools: tuple[PoolNumbers, ...]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "drumd_requests",
        "Finished requests by class of their answer; none: the client or the app went away.",
        labels=["pool", "code"],
    )
    durations = HistogramMetricFamily(
        "drumd_request_duration_seconds", "Time from a request to its answer.", labels=["pool"]
    )
    in_flight = GaugeMetricFamily(
        "drumd_requests_in_flight", "Requests being answered now.", labels=["pool"]
    )
    connections = GaugeMetricFamily(
        "drumd_connections", "Open client connections of the workers.", labels=["pool"]
    )
    queues = GaugeMetricFamily(
        "drumd_accept_queue_length",
        "Connections that wait to be accepted.",
        labels=["pool", "listener"],
    )
    dropped = CounterMetricFamily(
        "drumd_worker_log_lines_dropped",
        "Lines of drumd's own that workers dropped because their log pipe was full.",
        labels=["pool"],
    )
    for pool in pools:
        name = pool.name
        totals = pool.folded
        for worker in pool.workers:
            totals = add_counters(totals, worker.record)
        counts = dict(zip(COUNTERS, totals, strict=False))
        for field, code in _CODES.items():
            requests.add_metric([name, code], counts[field])
        durations.add_metric(
            [name],
            buckets=_buckets(DURATION_BOUNDS, totals[len(COUNTERS) :]),
            sum_value=counts["busy_ns"] / 1e9,
        )
        in_flight.add_metric([name], sum(worker.record.in_flight for worker in pool.workers))
        connections.add_metric([name], sum(worker.record.connections for worker in pool.workers))
        for listener, length in pool.queues.items():
            queues.add_metric([name, listener], length)
        dropped.add_metric([name], counts["log_dropped"])
    yield from (requests, durations, in_flight, connections, queues, dropped)


def _workers(pools: tuple[PoolNumbers, ...]) -> Iterator[Metric]:
    labels = ["pool", "lease"]
    # The resident set is one short file. The proportional one (smaps_rollup) walks all pages with
    # the worker's memory map locked: milliseconds to seconds for a big model, each scrape.
    memory = GaugeMetricFamily(
        "drumd_worker_resident_memory_bytes", "Resident memory of a worker.", labels=labels
    )
    lag = GaugeMetricFamily(
        "drumd_worker_heartbeat_lag_seconds",
        "How late a worker's last heartbeat was against its interval.",
        labels=labels,
    )
    for pool in pools:
        for worker in pool.workers:
            key = [pool.name, str(worker.lease)]
            resident = resident_memory(worker.pid)
            if resident is not None:
                memory.add_metric(key, resident)
            lag.add_metric(key, worker.record.lag_ns / 1e9)
    yield from (memory, lag)


def _buckets(bounds: tuple[float, ...], cells: tuple[int, ...]) -> list[tuple[str, float]]:
    """Return cumulative buckets, as Prometheus has them, from cells that each count their own."""
    names = [*map(str, bounds), "+Inf"]
    return list(zip(names, accumulate(cells), strict=True))
