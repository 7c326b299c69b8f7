"""The settings: what `drumd.toml`, the environment and the flags may say, with defaults.

The models are frozen: what was loaded stays as it was said. Every description here is shown in
docs/configuration.md, so it is written for operators. So is what a change of a key takes, which
each key declares (`drumd.config.effects`).
"""

from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from drumd.config.effects import LIVE, NEW_WORKERS, RESTART, SOCKETS
from drumd.config.kinds import (
    MAX_WORKERS,
    Addresses,
    App,
    Count,
    Duration,
    Hook,
    LogLevel,
    PoolName,
    Size,
    SocketPath,
    TcpBind,
    Variables,
    Workers,
)
from drumd.config.sections import Health, Recycle, Restart, Rollout, Scale, Section


class PoolSettings(Section):
    """A named set of identical workers."""

    app: App = Field(json_schema_extra=NEW_WORKERS, description="the app, as module:attribute")
    app_dir: str = Field(
        default=".",
        min_length=1,
        json_schema_extra=NEW_WORKERS,
        description="the directory that the app is imported from",
    )
    runtime: Literal["auto", "uvicorn", "gunicorn", "flask"] = Field(
        default="auto",
        json_schema_extra=NEW_WORKERS,
        description="what serves: uvicorn, gunicorn, flask (development), or by the app",
    )
    workers: Workers = Field(
        default=1,
        json_schema_extra=LIVE,
        description=f"how many workers, 1 to {MAX_WORKERS}; "
        "auto: by the CPUs that this process may really use; "
        '`{ min = 2, max = 8 }` or `"2-8"`: by the load, see `scale`',
    )
    worker_memory: Size | None = Field(
        default=None,
        gt=0,
        json_schema_extra=LIVE,
        description='what one worker needs; caps `workers = "auto"` by the memory limit',
    )
    threads: Count = Field(
        default=4,
        ge=1,
        le=1024,
        json_schema_extra=NEW_WORKERS,
        description="requests that a gthread or flask worker serves at once",
    )
    preload: bool = Field(
        default=False,
        json_schema_extra=NEW_WORKERS,
        description="import the app once, in a template, and fork the workers from it: "
        "they start in milliseconds and share its memory",
    )
    before_fork: Hook | None = Field(
        default=None,
        json_schema_extra=NEW_WORKERS,
        description="with `preload`: a module:function that the template calls "
        "before it forks a worker",
    )
    after_fork: Hook | None = Field(
        default=None,
        json_schema_extra=NEW_WORKERS,
        description="with `preload`: a module:function that each worker calls after its fork, "
        "to renew what must not be shared (connections, random state)",
    )
    spares: Count = Field(
        default=0,
        ge=0,
        le=MAX_WORKERS,
        json_schema_extra=LIVE,
        description="ready workers that wait to take the place of one that crashes or is recycled; "
        "for apps that take long to load",
    )
    bind: Addresses = Field(
        default=("127.0.0.1:8000",),
        min_length=1,
        json_schema_extra=SOCKETS,
        description="addresses: host:port, [v6]:port, unix:PATH, fd://N or fd://NAME",
    )
    # Runtimes listen again with the backlog of their spec whenever they are given a listener, and
    # the last one to do so sets it for all: it holds only when no worker of the old one is left.
    backlog: Count = Field(
        default=2048,
        ge=1,
        le=65535,
        json_schema_extra=NEW_WORKERS,
        description="length of each accept queue",
    )
    balance: Literal["auto", "shared", "per-slot"] = Field(
        default="auto",
        json_schema_extra=SOCKETS,
        description="shared: workers pull from one queue; per-slot: connections are pushed evenly",
    )
    keepalive: Duration = Field(
        default=75.0,
        ge=0,
        json_schema_extra=NEW_WORKERS,
        description="how long an idle HTTP connection stays open; above the proxies' 60 s",
    )
    essential: bool = Field(
        default=True,
        json_schema_extra=LIVE,
        description="drumd ends when this pool has no slot left",
    )
    access_log: bool = Field(
        default=False, json_schema_extra=NEW_WORKERS, description="log each request"
    )
    app_metrics: bool = Field(
        default=True,
        json_schema_extra=NEW_WORKERS,
        description="aggregate the apps' own prometheus_client metrics over the workers",
    )
    reload: bool = Field(
        default=False,
        json_schema_extra=LIVE,
        description="development: watch the code in `app_dir` and roll out each change",
    )
    start_timeout: Duration = Field(
        default=60.0,
        gt=0,
        json_schema_extra=LIVE,
        description="how long a worker may take to get ready",
    )
    grace_period: Duration = Field(
        default=25.0, ge=0, json_schema_extra=LIVE, description="how long a worker may drain"
    )
    linger: Duration = Field(
        default=2.0,
        ge=0,
        json_schema_extra=LIVE,
        description="how long a drain keeps idle connections open for one more request",
    )
    stop_timeout: Duration = Field(
        default=3.0,
        gt=0,
        json_schema_extra=LIVE,
        description="time between SIGTERM and SIGKILL",
    )
    health: Health = Field(
        default=Health(), description="when a worker is ready, stalled, and hung"
    )
    restart: Restart = Field(default=Restart(), description="what follows crashes")
    rollout: Rollout = Field(
        default=Rollout(),
        description="how many workers a rollout or a recycle replaces at a time; "
        "`max_surge` and `max_unavailable` cannot both be 0",
    )
    recycle: Recycle = Field(
        default=Recycle(),
        description="when a worker is replaced by plan; its replacement is ready first",
    )
    scale: Scale = Field(
        default=Scale(),
        description="when a pool with `workers = { min, max }` grows and shrinks",
    )
    environment: Variables = Field(
        default_factory=dict,
        repr=False,
        json_schema_extra=NEW_WORKERS,
        description="environment variables for the workers",
    )
    uvicorn: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        json_schema_extra=NEW_WORKERS,
        description="options of uvicorn.Config, passed through",
    )
    gunicorn: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        json_schema_extra=NEW_WORKERS,
        description="settings of gunicorn, passed through",
    )


class SupervisorSettings(Section):
    """The daemon itself."""

    admin_socket: SocketPath | None = Field(
        default=None,
        json_schema_extra=RESTART,
        description="path of the admin socket; by default a directory of this user's",
    )
    admin_group: str | None = Field(
        default=None,
        min_length=1,
        json_schema_extra=RESTART,
        description="a group whose members may operate drumd, besides root and its own user",
    )
    admin_bind: TcpBind | None = Field(
        default=None,
        json_schema_extra=RESTART,
        description="host:port for /metrics, /livez and /readyz, read-only",
    )
    log_level: LogLevel = Field(
        default="info",
        json_schema_extra=LIVE,
        description="the least important events that are logged",
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto",
        json_schema_extra=RESTART,
        description="auto: console on a terminal, JSON elsewhere",
    )
    journal_size: Count = Field(
        default=1000,
        ge=10,
        le=100_000,
        json_schema_extra=RESTART,
        description="events that are kept",
    )


class Settings(BaseSettings):
    """Everything that drumd is told; `drumd.config.loading` reads it from its sources."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )

    supervisor: SupervisorSettings = Field(
        default=SupervisorSettings(), description="the daemon itself"
    )
    pools: dict[PoolName, PoolSettings] = Field(
        default_factory=dict, description="named sets of identical workers"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing but what is passed in: pydantic-settings' own environment is not ours."""
        return (init_settings,)
