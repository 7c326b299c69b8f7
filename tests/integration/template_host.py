"""A real parent for templates and the workers that they fork: the supervisor's own code asks.

with TemplateHost() as host:
    template = host.template("asgi_app:app", runtime="uvicorn")
    worker = host.fork(template)
    worker.expect(Ready)
    ... as with any worker of a `WorkerHost` ...
"""

import os
import signal
import socket
import subprocess
import time
import uuid
from contextlib import nullcontext
from typing import Any, cast

from drumd.supervisor.processes.exits import become_subreaper
from drumd.supervisor.processes.forking import PreparedFork, prepare_fork
from drumd.wire.messages import Forked, ForkFailed, Ready, encode
from drumd.wire.spec import INSTANCE_VARIABLE, WorkerFds, WorkerSpec, mark
from tests.integration.worker_host import Collected, HostedWorker, WorkerHost
from tests.waiting import CAP


class ForkedProcess:
    """What `subprocess.Popen` is for a worker that the host has spawned."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.002)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class TemplateHost(WorkerHost):
    """A `WorkerHost` that forks, too. This process becomes a child subreaper for good."""

    def __init__(self) -> None:
        super().__init__()
        become_subreaper()
        self.instance = uuid.uuid4().hex
        """The mark of templates and their workers; other tests may run at the same time."""
        self.answers: list[Forked] = []

    def template(self, app: str, *, ready: bool = True, **wanted: Any) -> HostedWorker:
        """Start a template, with the room in its environment that the supervisor gives it."""
        attempt = len(self.workers) + 1
        room = {INSTANCE_VARIABLE: mark(self.instance, "web", attempt, room=True)}
        env = {**room, **(wanted.pop("env", None) or {})}
        template = self.spawn(app, role="template", env=env, **wanted)
        if ready:
            template.expect(Ready)
        return template

    def prepare(self, template: HostedWorker, **wanted: Any) -> tuple[WorkerSpec, PreparedFork]:
        """Return a fork that can be asked for, as the supervisor prepares it."""
        number = len(self.workers)
        fields = {
            **vars(template.spec), "role": "worker", "attempt": number + 1, "slot": number,
            "lease": number, **wanted,
        }  # fmt: skip
        self.board.clear(fields["lease"])

        made: list[WorkerSpec] = []

        def make_spec(fds: WorkerFds) -> WorkerSpec:
            made.append(WorkerSpec(**{**fields, "fds": fds}))
            return made[0]

        fork = prepare_fork(make_spec, scoreboard=self.board.fd, hold=nullcontext())
        return made[0], fork

    def fork(self, template: HostedWorker, **wanted: Any) -> HostedWorker:
        """Have `template` fork a worker; `wanted`: fields of its spec that differ."""
        spec, fork = self.prepare(template, **wanted)
        ask(template, fork)
        answer = template.expect(Forked)
        self.answers.append(answer)
        assert answer.attempt == spec.attempt
        child = fork.complete(answer.pid)
        merged = bytearray()
        for pipe in (child.stdout, child.stderr, child.stacks):
            os.set_blocking(pipe, True)
        Collected(child.stdout, merged)
        worker = HostedWorker(
            spec,
            cast("subprocess.Popen[bytes]", ForkedProcess(answer.pid)),
            child.control,
            Collected(child.stderr, merged),
            Collected(child.stacks),
            self.board,
        )
        os.close(child.pidfd)
        self.workers.append(worker)
        return worker

    def refuse(self, template: HostedWorker, **wanted: Any) -> ForkFailed:
        """Have `template` fail to fork; return its answer."""
        _spec, fork = self.prepare(template, **wanted)
        ask(template, fork)
        answer = template.expect(ForkFailed)
        fork.abandon()
        return answer


def ask(template: HostedWorker, fork: PreparedFork) -> None:
    """Send what asks for a fork."""
    socket.send_fds(template.control, [encode(fork.message)], fork.fds)


def kill(worker: HostedWorker) -> None:
    """End it with SIGKILL and wait for that."""
    worker.signal(signal.SIGKILL)
    worker.process.wait(CAP)
