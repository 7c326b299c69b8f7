"""The settings: what `drumd.toml`, the environment and the flags may say, with defaults.

The models are frozen: what was loaded stays as it was said. Every description here is shown by
`drumd check` and in the docs, so it is written for operators.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from drumd.config.quantities import ByteSize, Seconds

RuntimeChoice = Literal["auto", "uvicorn", "gunicorn", "flask"]
BalanceChoice = Literal["auto", "shared", "per-slot"]

Duration = Annotated[float, Seconds()]
Size = Annotated[int, ByteSize()]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Health(_Section):
    """When a worker is held to be stalled, and when to be hung (docs/design.md, §7)."""

    stall_after: Duration = Field(
        1.0, gt=0, description="a heartbeat later than this: no new connections for the worker"
    )
    hang_timeout: Duration = Field(
        30.0, gt=0, description="a heartbeat later than this, and no request in flight: replaced"
    )
    request_timeout: Duration = Field(
        120.0, gt=0, description="a late worker with a request older than this is replaced"
    )


class Restart(_Section):
    """What follows crashes."""

    intensity: int = Field(
        4, ge=0, description="more crashes than this within `period` fail the slot"
    )
    period: Duration = Field(60.0, gt=0, description="the time in which crashes are counted")
    backoff_initial: Duration = Field(0.1, gt=0, description="cap of the first wait (full jitter)")
    backoff_max: Duration = Field(30.0, gt=0, description="cap of all waits; each one doubles")
    stable_after: Duration = Field(
        10.0, gt=0, description="a worker that served this long clears its slot's record"
    )
    retry_after: Duration = Field(300.0, gt=0, description="how often a failed slot is tried again")
    on_exhausted: Literal["degrade", "exit"] = Field(
        "degrade", description="a slot that fails: go on without it, or end drumd with exit 4"
    )


class PoolSettings(_Section):
    """A named set of identical workers."""

    app: str = Field(description="the app, as module:attribute")
    app_dir: str = Field(".", description="the directory that the app is imported from")
    runtime: RuntimeChoice = Field(
        "auto", description="what serves: uvicorn, gunicorn, flask (development), or by the app"
    )
    workers: int | Literal["auto"] = Field(
        1, description="how many workers; auto: by the CPUs that this process may really use"
    )
    worker_memory: Size | None = Field(
        None, description="what one worker needs; caps `workers = \"auto\"` by the memory limit"
    )
    threads: int = Field(4, ge=1, le=1024, description="requests that a gthread worker serves at once")
    bind: tuple[str, ...] = Field(
        ("127.0.0.1:8000",),
        min_length=1,
        description="addresses: host:port, [v6]:port, unix:PATH, fd://N or fd://NAME",
    )
    backlog: int = Field(2048, ge=1, le=65535, description="length of each accept queue")
    balance: BalanceChoice = Field(
        "auto",
        description="shared: workers pull from one queue; per-slot: connections are pushed evenly",
    )
    keepalive: Duration = Field(
        75.0, ge=0, description="how long an idle HTTP connection stays open; above the proxies' 60 s"
    )
    essential: bool = Field(True, description="drumd ends when this pool has no slot left")
    environment: dict[str, str] = Field(
        default_factory=dict, description="environment variables for the workers"
    )
    access_log: bool = Field(False, description="log each request")
    app_metrics: bool = Field(
        True, description="aggregate the apps' own prometheus_client metrics over the workers"
    )
    start_timeout: Duration = Field(60.0, gt=0, description="how long a worker may take to get ready")
    grace_period: Duration = Field(25.0, ge=0, description="how long a worker may drain")
    linger: Duration = Field(
        2.0, ge=0, description="how long a drain keeps idle connections open for one more request"
    )
    stop_timeout: Duration = Field(3.0, gt=0, description="time between SIGTERM and SIGKILL")
    health: Health = Field(default_factory=Health)
    restart: Restart = Field(default_factory=Restart)
    uvicorn: dict[str, Any] = Field(
        default_factory=dict, description="options of uvicorn.Config, passed through"
    )
    gunicorn: dict[str, Any] = Field(
        default_factory=dict, description="settings of gunicorn, passed through"
    )


class SupervisorSettings(_Section):
    """The daemon itself."""

    admin_socket: str | None = Field(
        None, description="path of the admin socket; by default a directory of this user's"
    )
    admin_group: str | None = Field(
        None, description="a group whose members may operate drumd, besides root and its own user"
    )
    admin_bind: str | None = Field(
        None, description="host:port for /metrics, /livez and /readyz, read-only"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, JSON elsewhere"
    )
    journal_size: int = Field(1000, ge=10, le=100_000, description="events that are kept")


class Settings(_Section):
    """Everything that drumd is told."""

    supervisor: SupervisorSettings = Field(default_factory=SupervisorSettings)
    pools: dict[str, PoolSettings] = Field(default_factory=dict)
