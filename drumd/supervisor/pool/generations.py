"""Generations: what the workers of each are made of, for as long as anybody needs it."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from drumd.config.settings import PoolSettings
from drumd.supervisor.core.model import Pool
from drumd.supervisor.health.watch import Limits
from drumd.supervisor.pool.specs import limits, with_live
from drumd.supervisor.pool.surroundings import Surroundings
from drumd.supervisor.sockets.binding import Balance


@dataclass(slots=True, kw_only=True)
class Generation:
    """The material of one generation, and what its first worker has told of its app."""

    number: int
    settings: PoolSettings
    app_dir: Path
    """Where a `current` symlink led when the generation was prepared: it pins a release."""
    environ: Mapping[str, str]
    metrics_dir: Path | None
    """Where the app's prometheus_client files are; None: its metrics stay its own."""
    limits: Limits
    runtime: str
    """What serves in the workers; "" until one has looked at its app."""
    event_loop: bool | None = None
    """Whether one loop serves many connections at once; None until a worker has told."""
    threads_told: bool = False
    """The operator knows that its template has threads."""

    @property
    def balance(self) -> Balance | None:
        """Who accepts from where; None until the first worker has told what serves in it."""
        if self.event_loop is None:
            return None
        wanted: Literal["auto", "shared", "per-slot"] = self.settings.balance
        if wanted == "auto":
            return "per-slot" if self.event_loop else "shared"
        return wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptGeneration:
    """A generation over a re-exec: its workers, and those to come, are made of the same."""

    number: int
    settings: Mapping[str, Any]
    """What was said of it; what was not has the defaults of the program that reads it."""
    app_dir: str
    metrics_dir: str | None
    runtime: str
    event_loop: bool | None = None
    threads_told: bool = False


@dataclass(frozen=True, slots=True)
class KeptGenerations:
    """A pool's generations over a re-exec."""

    known: tuple[KeptGeneration, ...]
    latest: int


class Generations:
    """One pool's generations, by number: from `prepare` until their last worker is gone."""

    def __init__(self, pool: str, around: Surroundings) -> None:
        self._pool = pool
        self._around = around
        self._known: dict[int, Generation] = {}
        self._latest = 0

    def keep(self) -> KeptGenerations:
        """Return what `resume` needs."""
        return KeptGenerations(tuple(map(_kept, self)), self._latest)

    def resume(self, kept: KeptGenerations) -> None:
        """Go on with the generations from before a re-exec; raise `ValidationError`."""
        self._latest = kept.latest
        self._known = {
            generation.number: _resumed(generation, self._around.environ)
            for generation in kept.known
        }

    def __getitem__(self, number: int) -> Generation:
        """Return the generation; raise KeyError when nobody needs it any more."""
        return self._known[number]

    def __iter__(self) -> Iterator[Generation]:
        return iter(self._known.values())

    def get(self, number: int) -> Generation | None:
        """Return the generation; None when nobody needs it any more."""
        return self._known.get(number)

    def metrics_dirs(self, serving: int) -> tuple[Path, ...]:
        """Return where the app's metrics are: of `serving` first, then the newest first."""
        numbers = sorted(self._known, key=lambda number: (number != serving, -number))
        found = (self._known[number].metrics_dir for number in numbers)
        return tuple(directory for directory in found if directory is not None)

    def prepare(self, settings: PoolSettings) -> int:
        """Take up the material of a new generation; return its number, the highest so far."""
        self._latest += 1
        around = self._around
        wanted = settings.app_metrics
        self._known[self._latest] = Generation(
            number=self._latest,
            settings=settings,
            app_dir=Path(settings.app_dir).resolve(),
            environ=_environ(around.environ, settings),
            metrics_dir=around.files.directory(self._pool, self._latest) if wanted else None,
            limits=limits(settings),
            runtime="" if settings.runtime == "auto" else str(settings.runtime),
        )
        return self._latest

    def reconfigure(self, settings: PoolSettings) -> None:
        """Have all generations follow what takes effect without new workers."""
        for generation in self:
            generation.settings = with_live(generation.settings, settings)
            generation.limits = limits(settings)

    def drop_unneeded(self, pool: Pool) -> None:
        """Forget the material that no worker, rollout or operation needs any more."""
        needed = {pool.generation, *(worker.generation for worker in pool.workers.values())}
        needed |= {o.generation for o in pool.operations if o.generation is not None}
        needed |= {slot.next_generation for slot in pool.slots if slot.next_generation is not None}
        if pool.rollout is not None:
            needed.add(pool.rollout.generation)
        # A higher one than the core knows of was just prepared: its operation is on its way.
        for number in [n for n in self._known if n <= pool.latest and n not in needed]:
            self._end(self._known.pop(number), self.get(pool.generation))

    def _end(self, ended: Generation, serving: Generation | None) -> None:
        """Let its counters go on in the generation that serves; remove its files."""
        if ended.metrics_dir is None:
            return
        into = None if serving is None else serving.metrics_dir
        self._around.in_background(
            asyncio.to_thread(self._around.app_metrics.end, ended.metrics_dir, into)
        )


def _kept(generation: Generation) -> KeptGeneration:
    directory = generation.metrics_dir
    return KeptGeneration(
        number=generation.number,
        settings=generation.settings.model_dump(mode="json", exclude_defaults=True),
        app_dir=str(generation.app_dir),
        metrics_dir=None if directory is None else str(directory),
        runtime=generation.runtime,
        event_loop=generation.event_loop,
        threads_told=generation.threads_told,
    )


def _resumed(kept: KeptGeneration, environ: Mapping[str, str]) -> Generation:
    settings = PoolSettings.model_validate(dict(kept.settings))
    return Generation(
        number=kept.number,
        settings=settings,
        app_dir=Path(kept.app_dir),
        environ=_environ(environ, settings),
        metrics_dir=None if kept.metrics_dir is None else Path(kept.metrics_dir),
        limits=limits(settings),
        runtime=kept.runtime,
        event_loop=kept.event_loop,
        threads_told=kept.threads_told,
    )


def _environ(environ: Mapping[str, str], settings: PoolSettings) -> dict[str, str]:
    # Bytecode is told from its source's by whole seconds and size: too coarse for who edits.
    own = {"PYTHONDONTWRITEBYTECODE": "1"} if settings.reload else {}
    return {**own, **environ, **settings.environment}
