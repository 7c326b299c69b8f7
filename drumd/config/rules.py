"""Rules that look at more than one key, or at the machine."""

import grp
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drumd.config.kinds import WorkerRange
from drumd.config.layers import KeyPath
from drumd.config.problems import ABSENT
from drumd.config.quantities import format_duration
from drumd.config.settings import PoolSettings, Settings
from drumd.wire.address import TcpAddress, parse_address

_ALL_INTERFACES = frozenset({"0.0.0.0", "::"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a rule found: a problem without its origin, its value not yet redacted."""

    path: KeyPath
    value: Any = ABSENT
    message: str
    suggestion: str = ""
    with_paths: tuple[KeyPath, ...] = ()
    """Further keys that it rests on."""


def errors(settings: Settings, *, from_file: bool) -> Iterator[Finding]:
    """Yield what cannot work. `from_file` tells whether a config file was read."""
    if not settings.pools:
        yield Finding(
            path=("pools",),
            message="there is no pool, so there is nothing to serve",
            suggestion='write [pools.web] with app = "main:app", or use: drumd serve main:app'
            if from_file
            else "there is no drumd.toml here: name one with --config, "
            "or serve one app without a file: drumd serve main:app",
        )
    yield from _unknown_group(settings.supervisor.admin_group)
    for name, pool in settings.pools.items():
        path = ("pools", name)
        if not Path(pool.app_dir).is_dir():
            yield Finding(
                path=(*path, "app_dir"),
                value=pool.app_dir,
                message="there is no such directory",
                suggestion="name the directory that the app is imported from",
            )
        if pool.runtime == "auto" and "worker_class" in pool.gunicorn:
            # gevent must patch before the app is imported, and `auto` looks at the imported app.
            yield Finding(
                path=(*path, "gunicorn", "worker_class"),
                value=pool.gunicorn["worker_class"],
                message='cannot be used with runtime "auto", which is settled only when the app '
                "is loaded",
                suggestion=f'set runtime = "gunicorn" in [pools.{name}]',
                with_paths=((*path, "runtime"),),
            )
        yield from _order(path, pool)
        yield from _hooks(path, pool)
        yield from _budget(path, pool)
    yield from _shared_binds(settings)


def _unknown_group(group: str | None) -> Iterator[Finding]:
    """Yield the admin group where this machine does not know it."""
    if group is None:
        return
    try:
        grp.getgrnam(group)
    except (KeyError, ValueError):  # the latter for what can be no name, such as a NUL in it
        yield Finding(
            path=("supervisor", "admin_group"),
            value=group,
            message=f"cannot find group {group!r}",
            suggestion="name one that `getent group` lists",
        )


def _order(path: KeyPath, pool: PoolSettings) -> Iterator[Finding]:
    """Yield the durations that must not be shorter than others."""
    restart, health = pool.restart, pool.health
    if restart.backoff_max < restart.backoff_initial:
        yield _too_short(
            (*path, "restart", "backoff_max"),
            restart.backoff_max,
            (*path, "restart", "backoff_initial"),
            restart.backoff_initial,
        )
    if health.hang_timeout < health.stall_after:
        yield _too_short(
            (*path, "health", "hang_timeout"),
            health.hang_timeout,
            (*path, "health", "stall_after"),
            health.stall_after,
        )
    if health.request_timeout < health.stall_after:
        yield _too_short(
            (*path, "health", "request_timeout"),
            health.request_timeout,
            (*path, "health", "stall_after"),
            health.stall_after,
        )


def _hooks(path: KeyPath, pool: PoolSettings) -> Iterator[Finding]:
    """Yield the hooks of a fork where nothing is forked."""
    if pool.preload:
        return
    for name in ("before_fork", "after_fork"):
        hook = getattr(pool, name)
        if hook is not None:
            yield Finding(
                path=(*path, name),
                value=hook,
                message="would never be called: without preload no worker is forked",
                suggestion=f"set preload = true in [{_dotted(path)}], or leave {name} out",
                with_paths=((*path, "preload"),),
            )


def _budget(path: KeyPath, pool: PoolSettings) -> Iterator[Finding]:
    """Yield what would keep a pool from being replaced or scaled at all."""
    rollout, scale = pool.rollout, pool.scale
    if rollout.max_surge == rollout.max_unavailable == 0:
        yield Finding(
            path=(*path, "rollout", "max_surge"),
            value=rollout.max_surge,
            message="cannot be 0 while max_unavailable is 0, too: no worker could be replaced",
            suggestion="set one of the two to at least 1",
            with_paths=((*path, "rollout", "max_unavailable"),),
        )
    if scale.down_at >= scale.up_at:
        yield Finding(
            path=(*path, "scale", "down_at"),
            value=scale.down_at,
            message=f"must be below up_at, which is {scale.up_at:g}",
            with_paths=((*path, "scale", "up_at"),),
        )


def _too_short(path: KeyPath, value: float, other: KeyPath, least: float) -> Finding:
    return Finding(
        path=path,
        value=format_duration(value),
        message=f"must be at least {other[-1]}, which is {format_duration(least)}",
        with_paths=(other,),
    )


def _shared_binds(settings: Settings) -> Iterator[Finding]:
    """Yield addresses that are wanted twice, by two pools, by one, or by the admin."""
    wanted: list[tuple[KeyPath, str]] = []
    if settings.supervisor.admin_bind is not None:
        wanted.append((("supervisor", "admin_bind"), settings.supervisor.admin_bind))
    for name, pool in settings.pools.items():
        wanted += [(("pools", name, "bind"), bind) for bind in pool.bind]
    for at, (path, bind) in enumerate(wanted):
        for first_path, first in wanted[:at]:
            if not _collide(first, bind):
                continue
            within = first_path == path
            yield Finding(
                path=path,
                value=bind,
                message=f"collides with {first} of "
                + ("this list" if within else _dotted(first_path)),
                suggestion="leave one out" if within else f"give {path[1]} an address of its own",
                with_paths=(first_path,),
            )
            break


def _dotted(path: KeyPath) -> str:
    return ".".join(path)


def _collide(one: str, other: str) -> bool:
    """Tell whether two addresses cannot both be bound: the same, or one on all interfaces.

    v4 and v6 never collide, since v6 sockets are V6ONLY, and for port 0 the kernel picks free ones.
    """
    first, second = parse_address(one), parse_address(other)
    if not isinstance(first, TcpAddress) or not isinstance(second, TcpAddress):
        return first == second
    if first.port != second.port or first.port == 0 or (":" in first.host) != (":" in second.host):
        return False
    return first.host == second.host or not {first.host, second.host}.isdisjoint(_ALL_INTERFACES)


def warnings(settings: Settings, origins: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what works, and is probably not meant."""
    for name, pool in settings.pools.items():
        path = ("pools", name)
        if pool.linger > pool.grace_period:
            yield Finding(
                path=(*path, "linger"),
                value=format_duration(pool.linger),
                message=f"ends with grace_period, after {format_duration(pool.grace_period)}",
                suggestion="raise grace_period or lower linger",
            )
        if pool.runtime == "flask":
            yield Finding(
                path=(*path, "runtime"),
                value=pool.runtime,
                message="is Werkzeug's development server",
                suggestion='use "gunicorn" to serve a Flask app to others',
            )
        if pool.worker_memory is not None and pool.workers != "auto":
            yield _without_effect((*path, "worker_memory"), 'workers = "auto"')
        if pool.runtime == "uvicorn" and origins[_dotted((*path, "threads"))] != "default":
            yield _without_effect((*path, "threads"), "the gunicorn and flask runtimes")
        if pool.runtime in ("uvicorn", "flask") and pool.gunicorn:
            yield _without_effect((*path, "gunicorn"), "the gunicorn runtime")
        if pool.runtime in ("gunicorn", "flask") and pool.uvicorn:
            yield _without_effect((*path, "uvicorn"), "the uvicorn runtime")
        yield from _idle_keys(path, pool, origins)


def _idle_keys(path: KeyPath, pool: PoolSettings, origins: Mapping[str, str]) -> Iterator[Finding]:
    """Yield keys that were said and do nothing without another one."""
    if not isinstance(pool.workers, WorkerRange):
        for name in type(pool.scale).model_fields:
            if origins[_dotted((*path, "scale", name))] != "default":
                yield _without_effect((*path, "scale", name), "workers = { min, max }")
    recycle = pool.recycle
    if recycle.max_requests is None and recycle.max_requests_jitter:
        yield _without_effect((*path, "recycle", "max_requests_jitter"), "max_requests")
    if recycle.max_age is None and recycle.max_age_jitter:
        yield _without_effect((*path, "recycle", "max_age_jitter"), "max_age")


def _without_effect(path: KeyPath, only_with: str) -> Finding:
    return Finding(path=path, message=f"has no effect: it is for {only_with}")
