"""The tables of a pool that have keys of their own: `[pools.NAME.health]` and the like.

Every description here is shown in docs/configuration.md, so it is written for operators.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from drumd.config.effects import LIVE
from drumd.config.kinds import MAX_WORKERS, Count, Duration, Number, ProbePath, Size


class Section(BaseModel):
    """A table of the config: what was loaded stays as it was said."""

    # Inputs may hold secrets, so no traceback of pydantic's shows them.
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )


class Health(Section):
    """When a worker is ready, stalled or hung (docs/design.md, §7)."""

    stall_after: Duration = Field(
        default=1.0,
        gt=0,
        json_schema_extra=LIVE,
        description="a heartbeat later than this: no new connections for the worker",
    )
    hang_timeout: Duration = Field(
        default=30.0,
        gt=0,
        json_schema_extra=LIVE,
        description="a heartbeat later than this, and no request in flight: replaced",
    )
    request_timeout: Duration = Field(
        default=120.0,
        gt=0,
        json_schema_extra=LIVE,
        description="a late worker with a request older than this is replaced",
    )
    startup_probe: ProbePath | None = Field(
        default=None,
        json_schema_extra=LIVE,
        description="a GET of this path must be answered with 2xx or 3xx before a worker is ready",
    )


class Restart(Section):
    """What follows crashes."""

    intensity: Count = Field(
        default=4,
        ge=0,
        json_schema_extra=LIVE,
        description="more crashes than this within `period` fail the slot",
    )
    period: Duration = Field(
        default=60.0,
        gt=0,
        json_schema_extra=LIVE,
        description="the time in which crashes are counted",
    )
    backoff_initial: Duration = Field(
        default=0.1,
        gt=0,
        json_schema_extra=LIVE,
        description="cap of the first wait (full jitter)",
    )
    backoff_max: Duration = Field(
        default=30.0,
        gt=0,
        json_schema_extra=LIVE,
        description="cap of all waits; each one doubles",
    )
    stable_after: Duration = Field(
        default=10.0,
        gt=0,
        json_schema_extra=LIVE,
        description="a worker that served this long clears its slot's record",
    )
    retry_after: Duration = Field(
        default=300.0,
        gt=0,
        json_schema_extra=LIVE,
        description="how often a failed slot is tried again",
    )
    on_exhausted: Literal["degrade", "exit"] = Field(
        default="degrade",
        json_schema_extra=LIVE,
        description="a slot that fails: go on without it, or end drumd with exit 4",
    )


class Rollout(Section):
    """How many workers are replaced at a time, by a rollout or a recycle."""

    max_surge: Count = Field(
        default=1,
        ge=0,
        le=MAX_WORKERS,
        json_schema_extra=LIVE,
        description="workers that may be starting beside the pool's own; "
        "those that drain do not count",
    )
    max_unavailable: Count = Field(
        default=0,
        ge=0,
        le=MAX_WORKERS,
        json_schema_extra=LIVE,
        description="slots that may be without a ready worker; 0 keeps the pool at full strength",
    )
    min_ready: Duration = Field(
        default=1.0,
        ge=0,
        json_schema_extra=LIVE,
        description="how long the first new worker must have served before more are replaced",
    )
    memory: Literal["refuse", "no-surge", "ignore"] = Field(
        default="refuse",
        json_schema_extra=LIVE,
        description="where memory has no room for one more worker beside those that run: "
        "refuse to replace any, end the old one first (no-surge), or start it all the same",
    )


class Recycle(Section):
    """When a worker is replaced by plan; its replacement is ready first."""

    max_requests: Count | None = Field(
        default=None,
        ge=1,
        json_schema_extra=LIVE,
        description="a worker that has answered this many requests is replaced",
    )
    max_requests_jitter: Count = Field(
        default=0,
        ge=0,
        json_schema_extra=LIVE,
        description="up to this many requests more, drawn for each worker, "
        "so that not all are due at once",
    )
    max_age: Duration | None = Field(
        default=None,
        gt=0,
        json_schema_extra=LIVE,
        description="a worker that has been ready for this long is replaced",
    )
    max_age_jitter: Duration = Field(
        default=0.0,
        ge=0,
        json_schema_extra=LIVE,
        description="up to this much longer, drawn for each worker",
    )
    max_memory: Size | None = Field(
        default=None,
        gt=0,
        json_schema_extra=LIVE,
        description="a worker that has more private memory is replaced; "
        "pages that it shares with a template do not count",
    )

    @property
    def planned(self) -> bool:
        """Whether any worker is ever replaced by plan."""
        return not (self.max_requests is None and self.max_age is None and self.max_memory is None)


class Scale(Section):
    """When a pool with `workers = { min, max }` grows and shrinks."""

    up_at: Number = Field(
        default=0.8,
        gt=0,
        le=1,
        json_schema_extra=LIVE,
        description="it grows while at least this share of its workers' capacity is busy, 0 to 1",
    )
    down_at: Number = Field(
        default=0.3,
        ge=0,
        lt=1,
        json_schema_extra=LIVE,
        description="it shrinks while at most this share is busy; below `up_at`",
    )
    queue: Count = Field(
        default=1,
        ge=1,
        json_schema_extra=LIVE,
        description="as many waiting connections for each worker count as busy, too",
    )
    up_after: Duration = Field(
        default=5.0,
        ge=0,
        json_schema_extra=LIVE,
        description="how long it must be busy before it grows",
    )
    down_after: Duration = Field(
        default=60.0,
        ge=0,
        json_schema_extra=LIVE,
        description="how long it must be idle before it shrinks",
    )
    cooldown: Duration = Field(
        default=15.0,
        ge=0,
        json_schema_extra=LIVE,
        description="the least time between two steps",
    )
