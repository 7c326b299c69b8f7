"""The settings: what `drumd.toml`, the environment and the flags may say, with defaults.

The models are frozen: what was loaded stays as it was said. Every description here is shown in
docs/configuration.md, so it is written for operators.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from drumd.config.quantities import ByteSize, Seconds
from drumd.wire.address import TcpAddress, parse_address

RuntimeChoice = Literal["auto", "uvicorn", "gunicorn", "flask"]
BalanceChoice = Literal["auto", "shared", "per-slot"]

MAX_WORKERS = 256
"""Workers of one pool; far above what one machine serves with, and a typing error is caught."""

POOL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""Names appear in metrics, paths, environment variables and `POOL/SLOT`."""

_IDENTIFIER = r"[^\W\d]\w*"
_APP = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}(\.{_IDENTIFIER})*")


def _whole_number(value: object) -> object:
    """Refuse what pydantic would turn into a whole number: `true`, and 2.0."""
    if isinstance(value, (bool, float)):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic collects ValueError
    return value


def _worker_count(value: object) -> object:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    try:
        count = int(value) if isinstance(value, str) else value
    except ValueError:
        count = None
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_WORKERS:
        raise ValueError(f'must be a whole number from 1 to {MAX_WORKERS}, or "auto"')
    return count


def _app(text: str) -> str:
    if _APP.fullmatch(text):
        return text
    raise ValueError(f"must name the app as module:attribute{_app_advice(text)}")


def _app_advice(text: str) -> str:
    module, colon, attribute = text.partition(":")
    if attribute.endswith(")"):
        return "; leave the parentheses away: a factory that takes no arguments is called"
    if "/" in module or module.endswith(".py"):
        directory, _, name = module.rpartition("/")
        directory_hint = f', with app_dir = "{directory}"' if directory else ""
        return f", such as {name.removesuffix('.py')}:{attribute or 'app'}{directory_hint}"
    if not colon and module:
        return f", such as {module}:app"
    return ", such as main:app"


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _address(text: str) -> str:
    """Return the address in the one form that compares."""
    return str(parse_address(text))


def _tcp_address(text: str) -> str:
    if not isinstance(parse_address(text), TcpAddress):
        raise ValueError(  # noqa: TRY004 - pydantic collects ValueError
            "must be host:port; who may use a path is said by admin_socket"
        )
    return text


def _socket_path(path: str) -> str:
    """Refuse what the kernel takes for no socket's path."""
    parse_address(f"unix:{path}")
    return path


def _variables(environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"cannot set a variable {name!r}; names have no =, and nothing a NUL")
        if name.startswith("DRUMD_"):
            raise ValueError(f"cannot set {name}; drumd tells its workers by this name")
    return environment


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _pool_name(name: str) -> str:
    if not POOL_NAME.fullmatch(name):
        raise ValueError(
            "cannot be a pool's name; write small letters, digits, - and _, first a letter"
        )
    return name


Duration = Annotated[float, Seconds()]
Size = Annotated[int, ByteSize()]
Count = Annotated[int, BeforeValidator(_whole_number)]
Bind = Annotated[str, AfterValidator(_address)]
PoolName = Annotated[str, AfterValidator(_pool_name)]


class _Section(BaseModel):
    # Inputs may hold secrets, so no traceback of pydantic's shows them.
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )


class Health(_Section):
    """When a worker is held to be stalled, and when to be hung (docs/design.md, §7)."""

    stall_after: Duration = Field(
        default=1.0,
        gt=0,
        description="a heartbeat later than this: no new connections for the worker",
    )
    hang_timeout: Duration = Field(
        default=30.0,
        gt=0,
        description="a heartbeat later than this, and no request in flight: replaced",
    )
    request_timeout: Duration = Field(
        default=120.0, gt=0, description="a late worker with a request older than this is replaced"
    )


class Restart(_Section):
    """What follows crashes."""

    intensity: Count = Field(
        default=4, ge=0, description="more crashes than this within `period` fail the slot"
    )
    period: Duration = Field(
        default=60.0, gt=0, description="the time in which crashes are counted"
    )
    backoff_initial: Duration = Field(
        default=0.1, gt=0, description="cap of the first wait (full jitter)"
    )
    backoff_max: Duration = Field(
        default=30.0, gt=0, description="cap of all waits; each one doubles"
    )
    stable_after: Duration = Field(
        default=10.0, gt=0, description="a worker that served this long clears its slot's record"
    )
    retry_after: Duration = Field(
        default=300.0, gt=0, description="how often a failed slot is tried again"
    )
    on_exhausted: Literal["degrade", "exit"] = Field(
        default="degrade",
        description="a slot that fails: go on without it, or end drumd with exit 4",
    )


class PoolSettings(_Section):
    """A named set of identical workers."""

    app: Annotated[str, AfterValidator(_app)] = Field(description="the app, as module:attribute")
    app_dir: str = Field(
        default=".", min_length=1, description="the directory that the app is imported from"
    )
    runtime: RuntimeChoice = Field(
        default="auto",
        description="what serves: uvicorn, gunicorn, flask (development), or by the app",
    )
    workers: Annotated[int | Literal["auto"], BeforeValidator(_worker_count)] = Field(
        default=1,
        description=f"how many workers, 1 to {MAX_WORKERS}; "
        "auto: by the CPUs that this process may really use",
    )
    worker_memory: Size | None = Field(
        default=None,
        gt=0,
        description='what one worker needs; caps `workers = "auto"` by the memory limit',
    )
    threads: Count = Field(
        default=4, ge=1, le=1024, description="requests that a gthread worker serves at once"
    )
    bind: Annotated[tuple[Bind, ...], BeforeValidator(_one_or_many)] = Field(
        default=("127.0.0.1:8000",),
        min_length=1,
        description="addresses: host:port, [v6]:port, unix:PATH, fd://N or fd://NAME",
    )
    backlog: Count = Field(default=2048, ge=1, le=65535, description="length of each accept queue")
    balance: BalanceChoice = Field(
        default="auto",
        description="shared: workers pull from one queue; per-slot: connections are pushed evenly",
    )
    keepalive: Duration = Field(
        default=75.0,
        ge=0,
        description="how long an idle HTTP connection stays open; above the proxies' 60 s",
    )
    essential: bool = Field(default=True, description="drumd ends when this pool has no slot left")
    access_log: bool = Field(default=False, description="log each request")
    app_metrics: bool = Field(
        default=True,
        description="aggregate the apps' own prometheus_client metrics over the workers",
    )
    start_timeout: Duration = Field(
        default=60.0, gt=0, description="how long a worker may take to get ready"
    )
    grace_period: Duration = Field(default=25.0, ge=0, description="how long a worker may drain")
    linger: Duration = Field(
        default=2.0,
        ge=0,
        description="how long a drain keeps idle connections open for one more request",
    )
    stop_timeout: Duration = Field(
        default=3.0, gt=0, description="time between SIGTERM and SIGKILL"
    )
    health: Health = Field(default=Health(), description="when a worker is stalled, and when hung")
    restart: Restart = Field(default=Restart(), description="what follows crashes")
    environment: Annotated[dict[str, str], AfterValidator(_variables)] = Field(
        default_factory=dict, repr=False, description="environment variables for the workers"
    )
    uvicorn: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="options of uvicorn.Config, passed through"
    )
    gunicorn: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="settings of gunicorn, passed through"
    )


class SupervisorSettings(_Section):
    """The daemon itself."""

    admin_socket: Annotated[str, Field(min_length=1), AfterValidator(_socket_path)] | None = Field(
        default=None,
        min_length=1,
        description="path of the admin socket; by default a directory of this user's",
    )
    admin_group: str | None = Field(
        default=None,
        min_length=1,
        description="a group whose members may operate drumd, besides root and its own user",
    )
    admin_bind: Annotated[Bind, AfterValidator(_tcp_address)] | None = Field(
        default=None, description="host:port for /metrics, /livez and /readyz, read-only"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = (
        Field(default="info", description="the least important events that are logged")
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, JSON elsewhere"
    )
    journal_size: Count = Field(default=1000, ge=10, le=100_000, description="events that are kept")


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
