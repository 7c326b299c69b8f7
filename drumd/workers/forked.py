"""A worker that a template forks: what is the template's alone is replaced, the app stays."""

import os
import sys
from collections.abc import Sequence
from os import close  # by name, as in `fork`
from typing import NamedTuple

from drumd import forking
from drumd.wire.spec import INSTANCE_VARIABLE, WorkerFds, WorkerSpec, instance_of, mark
from drumd.workers import appmetrics, hooks, process, shown
from drumd.workers.control import Control
from drumd.workers.runtime import App
from drumd.workers.worker import Worker


class Inheritance(NamedTuple):
    """What a fork takes over from its template."""

    spec: WorkerSpec
    """The template's."""
    control: Control
    """The template's, whose fd leads to the worker's own supervisor end once it is forked."""
    app: App
    metrics: appmetrics.Identity | None
    mark: str
    """As the template's /proc/PID/environ shows it."""


class ForkedWorker(Worker):
    """A worker that is constructed in the template, then forked by `part` and `stand_alone`.

    `fds`: as `Fork` orders them; they stay open in the template.
    """

    def __init__(self, spec: WorkerSpec, fds: Sequence[int], inheritance: Inheritance) -> None:
        control, scoreboard, stacks, stdout, stderr = fds
        template = inheritance.spec
        # Each takes the place of the template's own, which is closed by that; so whatever writes
        # to one of these (the control's object, faulthandler, the app's loggers) goes on as it is.
        places = WorkerFds(
            control=template.fds.control, scoreboard=scoreboard, stacks=template.fds.stacks
        )
        self._moves = {
            control: places.control,
            stacks: places.stacks,
            stdout: 1,
            stderr: 2,
        }
        super().__init__(WorkerSpec(**{**vars(spec), "fds": places}), inheritance.control)
        self._app = inheritance.app
        self._inheritance = inheritance
        self._forker = 0

    def part(self) -> None:
        """Take over fds and name; in the process between template and worker."""
        self._forker = os.getpid()
        for fd, place in self._moves.items():
            os.dup2(fd, place, inheritable=place in (1, 2))
            close(fd)
        os.set_blocking(self.spec.fds.control, False)
        self._rename()

    def stand_alone(self) -> None:
        """Leave the template's session, process group and cgroup; first thing in the worker."""
        os.setsid()
        process.join_cgroup(self.spec)

    def settle(self) -> None:
        """Become a process like that of any worker, then do what the app wants done."""
        process.settle_fork(self.spec, self._forker)
        metrics = self._inheritance.metrics
        if metrics is not None and self.spec.metrics_dir is not None:
            appmetrics.inherit(metrics, self.spec.metrics_dir, self.spec.lease)
        _reseed()
        for hook in forking.hooks_after():
            self.doing = f"run {hooks.name_of(hook)} after the fork"
            hooks.run(hook)

    def _rename(self) -> None:
        """Carry the worker's mark and title, for the programs that it starts and in /proc."""
        template = self._inheritance
        if template.mark:
            own = mark(instance_of(template.mark), self.spec.pool, self.spec.attempt)
            os.environ[INSTANCE_VARIABLE] = own
            shown.rewrite(
                shown.ENVIRONMENT,
                f"{INSTANCE_VARIABLE}={template.mark}",
                f"{INSTANCE_VARIABLE}={own}",
                filler="/",
            )
        shown.rewrite(
            shown.ARGUMENTS,
            "\0".join(template.spec.title),
            "\0".join(self.spec.title),
            filler=" ",
        )


def _reseed() -> None:
    """Give numpy's global random state a new seed, as Python itself gives `random` one at a fork.

    Else all workers would draw the same numbers. Generators of the app's own are its own business.
    """
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
