"""From settings to what the core, the watch and the workers are given."""

from pathlib import Path
from typing import TypeVar

from drumd.config.effects import Effect, effect_of
from drumd.config.kinds import WorkerRange
from drumd.config.modelserver.server_type import FASTAPI_APP, FLASK_APP
from drumd.config.sections import Section
from drumd.config.settings import PoolSettings
from drumd.supervisor.core.actions import Spawn
from drumd.supervisor.core.model import Kind, Policy, Scaling, Tight
from drumd.supervisor.health.watch import Limits
from drumd.wire.spec import WorkerFds, WorkerSpec


def policy(settings: PoolSettings) -> Policy:
    """Return how the core runs this pool."""
    restart = settings.restart
    return Policy(
        start_timeout=settings.start_timeout,
        raised_by=_raised_by(settings),
        grace_period=settings.grace_period,
        linger=settings.linger,
        stop_timeout=settings.stop_timeout,
        intensity=restart.intensity,
        period=restart.period,
        backoff_initial=restart.backoff_initial,
        backoff_max=restart.backoff_max,
        stable_after=restart.stable_after,
        retry_after=restart.retry_after,
        exit_on_exhausted=restart.on_exhausted == "exit",
        essential=settings.essential,
        max_surge=settings.rollout.max_surge,
        max_unavailable=settings.rollout.max_unavailable,
        min_ready=settings.rollout.min_ready,
        tight=Tight(settings.rollout.memory),
        spares=settings.spares,
        scaling=scaling(settings),
    )


def _raised_by(settings: PoolSettings) -> str:
    """Return where the limit of a start can be set, which the core does not know."""
    if settings.app in (FLASK_APP, FASTAPI_APP):
        return "--start-timeout, DRUM_START_TIMEOUT, or start_timeout in a config"
    return "start_timeout"


def scaling(settings: PoolSettings) -> Scaling | None:
    """Return when the pool grows and shrinks by itself; None for one of a fixed size."""
    if not isinstance(settings.workers, WorkerRange):
        return None
    scale = settings.scale
    return Scaling(
        least=settings.workers.least,
        most=settings.workers.most,
        up_at=scale.up_at,
        down_at=scale.down_at,
        queue=scale.queue,
        up_after=scale.up_after,
        down_after=scale.down_after,
        cooldown=scale.cooldown,
    )


def limits(settings: PoolSettings) -> Limits:
    """Return when the pool's workers are held to be stalled or hung."""
    return Limits(
        stall_after=settings.health.stall_after,
        hang_timeout=settings.health.hang_timeout,
        request_timeout=settings.health.request_timeout,
    )


S = TypeVar("S", bound=Section)


def with_live(running: S, wanted: S) -> S:
    """Return `running` with those of the `wanted` values that take no new workers to come true."""
    changes: dict[str, object] = {}
    for name, known in type(running).model_fields.items():
        before, after = getattr(running, name), getattr(wanted, name)
        if isinstance(before, Section) and isinstance(after, Section):
            changes[name] = with_live(before, after)
        elif effect_of(known) in (Effect.LIVE, Effect.SOCKETS):
            changes[name] = after
    return running.model_copy(update=changes)


def worker_spec(
    settings: PoolSettings,
    pool: str,
    order: Spawn,
    *,
    lease: int,
    supervisor_pid: int,
    app_dir: Path,
    metrics_dir: Path | None,
    cgroup_procs: str | None,
    fds: WorkerFds,
) -> WorkerSpec:
    """Return the document that a worker or template is started with, or forked with."""
    return WorkerSpec(
        role="template" if order.kind is Kind.TEMPLATE else "worker",
        pool=pool,
        slot=order.slot,
        generation=order.generation,
        attempt=order.attempt,
        lease=lease,
        supervisor_pid=supervisor_pid,
        app=settings.app,
        app_dir=str(app_dir),
        runtime=settings.runtime,
        options={"uvicorn": dict(settings.uvicorn), "gunicorn": dict(settings.gunicorn)},
        threads=settings.threads,
        backlog=settings.backlog,
        keepalive=settings.keepalive,
        grace_period=settings.grace_period,
        linger=settings.linger,
        access_log=settings.access_log,
        metrics_dir=None if metrics_dir is None else str(metrics_dir),
        cgroup_procs=cgroup_procs,
        before_fork=settings.before_fork,
        after_fork=settings.after_fork,
        fds=fds,
    )
