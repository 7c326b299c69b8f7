"""A template: it imports the app once, and forks workers from itself, which share its memory.

The app is loaded once, a factory's call included; what its server starts (uvicorn's lifespan,
gunicorn's worker class) is each worker's own. gevent patches before the app is imported, as in a
worker that imports it itself.
"""

import contextlib
import gc
import os
import select
import signal
import sys
from os import close  # by name, as in `fork`

from drumd import forking
from drumd.wire.messages import Drain, Drained, Fork, Forked, ForkFailed, Ready, Stop
from drumd.wire.spec import INSTANCE_VARIABLE, WorkerSpec
from drumd.workers import appmetrics, failures, hooks, process
from drumd.workers.control import Control
from drumd.workers.fork import ForkError, fork_away, other_threads
from drumd.workers.forked import ForkedWorker, Inheritance
from drumd.workers.orders import IGNORED_SIGNALS
from drumd.workers.runtime import App
from drumd.workers.warm import warm
from drumd.workers.worker import Worker, load, loaded, make_runtime, settled

_FDS = 5
"""As many go with a `Fork`."""


class Template:
    """Loads the app, then forks whenever the supervisor says so. Idle it is not woken."""

    def __init__(self, spec: WorkerSpec, control: Control) -> None:
        self.spec = spec
        self.control = control
        self.doing = "start the template"
        """What goes after "cannot" if it fails."""
        self._metrics: appmetrics.Identity | None = None
        self._mark = ""
        # Made now, since gevent may replace the class.
        self._poll = select.poll()

    def settle(self) -> None:
        """Become the process that the spec describes; before any code of the app runs."""
        process.settle(self.spec)
        self._mark = os.environ.get(INSTANCE_VARIABLE, "")
        # The room in it is for the forks; programs that the app starts have no use for it.
        os.environ[INSTANCE_VARIABLE] = self._mark.rstrip("/")
        if self.spec.metrics_dir is not None:
            self._metrics = appmetrics.install_in_template(self.spec.metrics_dir)

    def serve(self) -> Worker | None:
        """Load the app, then fork workers; in a fork, return the worker. None at its own end."""
        app = self._load()
        _take_signals()
        # A collection writes to every object that it looks at, which would copy their pages.
        gc.collect()
        gc.freeze()
        self.control.send(Ready())
        self._poll.register(self.control.fileno(), select.POLLIN)
        inheritance = Inheritance(self.spec, self.control, app, self._metrics, self._mark)
        while not self.control.gone:
            self._poll.poll()
            for received in self.control.receive():
                match received.message:
                    case Fork(spec=document):
                        worker = self._fork(document, received.fds, inheritance)
                        if worker is not None:
                            return worker
                    case Drain():
                        self.control.send(Drained())
                        return None
                    case Stop():
                        return None
        return None

    def _load(self) -> App:
        spec = self.spec
        if spec.runtime != "auto":
            # Its server is imported once, too; and gevent patches here.
            make_runtime(spec.runtime, spec)
        self.doing = f"import {spec.app}"
        app = load(spec)
        for key, name, register in (
            ("before_fork", spec.before_fork, forking.before_fork),
            ("after_fork", spec.after_fork, forking.after_fork),
        ):
            if name is not None:
                self.doing = f"import {key} {name}"
                register(hooks.find(name, key))
        self.doing = f"preload {spec.app}"
        runtime = settled(app, spec)
        if spec.runtime == "auto":
            make_runtime(runtime, spec)
        warm(runtime, spec, app.interface)
        self.control.send(loaded(app, spec))
        return app

    def _fork(self, document: str, fds: list[int], inheritance: Inheritance) -> ForkedWorker | None:
        """Fork a worker and answer; return it in the fork, None in the template.

        Raises `SpecError` for a spec of another version: then a new template is needed anyway.
        """
        spec = WorkerSpec.decode(document.encode())
        answer: Forked | ForkFailed
        try:
            _expect_all(fds)
            _run_hooks()
            _flush()
            worker = ForkedWorker(spec, fds, inheritance)
            pid = fork_away(worker.part, worker.stand_alone)
        except ForkError as error:
            answer = ForkFailed(attempt=spec.attempt, error=str(error))
        else:
            if pid is None:
                return worker
            # Counted after the fork: libraries that end their threads for it (OpenBLAS does) lose
            # none.
            answer = Forked(attempt=spec.attempt, pid=pid, threads=other_threads())
        for fd in fds:
            close(fd)
        self.control.send(answer)
        return None


def _take_signals() -> None:
    """Let a SIGTERM or SIGINT end the template, and what a broad kill or a terminal sends not.

    The app may have set handlers at its import; those of its workers are set by their runtimes.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    for number in IGNORED_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.SIG_IGN)


def _expect_all(fds: list[int]) -> None:
    if len(fds) != _FDS:  # the kernel drops those that this process has no room for
        raise ForkError(
            f"cannot fork a worker: {len(fds)} of {_FDS} fds have arrived; raise the limit of open "
            "files (LimitNOFILE=, ulimit -n)"
        )


def _run_hooks() -> None:
    for hook in forking.hooks_before():
        try:
            hooks.run(hook)
        except BaseException as error:
            failure = failures.failed(f"run {hooks.name_of(hook)} before the fork", error)
            failures.complain(failure.error, failure.traceback)
            raise ForkError(failure.error) from error


def _flush() -> None:
    """Write out what is printed: else the fork would write it once more."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or replaced by the app
            stream.flush()
