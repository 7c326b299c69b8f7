"""The contenders: how each server is started, waited for and ended."""

import asyncio
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import machine
from bench.client import ask_for_pids, free_port

CHECKOUT = Path(__file__).parents[1]
KEEPALIVE = 75
"""Seconds, for all alike: the defaults differ (gunicorn 2, uvicorn 5, drumd 75)."""
START_CAP = 60.0
END_CAP = 10.0


class BenchError(Exception):
    """cannot measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a server is to serve, and where."""

    app: str
    workers: int
    threads: int
    port: int
    scratch: Path
    """A directory of this server's own."""
    directory: Path = CHECKOUT
    """Where the app is imported from."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that can be started: a contender."""

    name: str
    interface: str
    """asgi or wsgi."""
    command: Callable[[Job], Sequence[str]] = field(repr=False)
    needs: str = ""
    """A module that must be installed beside drumd's own dependencies."""
    least_workers: int = 1

    @property
    def missing(self) -> bool:
        """Return whether what it needs is not installed."""
        return bool(self.needs) and importlib.util.find_spec(self.needs) is None


def drumd(
    name: str,
    interface: str,
    *,
    gunicorn_class: str | None = None,
    balance: str = "auto",
    more: Sequence[str] = (),
) -> Server:
    """Return drumd with the uvicorn runtime, or with one of gunicorn's worker classes.

    `more`: further lines of the pool's config.
    """

    def command(job: Job) -> list[str]:
        runtime = "gunicorn" if gunicorn_class else "uvicorn"
        lines = [
            "[supervisor]",
            f'admin_socket = "{job.scratch}/admin.sock"',
            "[pools.web]",
            f'app = "{job.app}"',
            f'app_dir = "{job.directory}"',
            f'runtime = "{runtime}"',
            f"workers = {job.workers}",
            f"threads = {job.threads}",
            f'bind = "127.0.0.1:{job.port}"',
            f'balance = "{balance}"',
            f"keepalive = {KEEPALIVE}",
            *more,
        ]
        if gunicorn_class:
            lines += ["[pools.web.gunicorn]", f'worker_class = "{gunicorn_class}"']
        config = job.scratch / "drumd.toml"
        config.write_text("\n".join(lines) + "\n")
        return ["-m", "drumd", "run", "--config", str(config)]

    return Server(name, interface, command)


def gunicorn(
    name: str, interface: str, worker_class: str, *, needs: str = "", more: Sequence[str] = ()
) -> Server:
    """Return gunicorn under its own arbiter; `more`: further options."""

    def command(job: Job) -> list[str]:
        return [
            *("-m", "gunicorn", job.app),
            *("--worker-class", worker_class),
            *("--workers", str(job.workers)),
            *("--threads", str(job.threads)),
            *("--bind", f"127.0.0.1:{job.port}"),
            *("--keep-alive", str(KEEPALIVE)),
            # Its default is one path for all of a user's gunicorns.
            *("--control-socket", str(job.scratch / "gunicorn.ctl")),
            *more,
        ]

    return Server(name, interface, command, needs)


def uvicorn(name: str = "uvicorn --workers", *, least: int = 1) -> Server:
    """Return uvicorn under its own supervisor; with one worker it has none.

    `least`: workers that it gets even when fewer are asked for.
    """

    def command(job: Job) -> list[str]:
        return [
            *("-m", "uvicorn", job.app),
            *("--workers", str(job.workers)),
            *("--port", str(job.port)),
            *("--timeout-keep-alive", str(KEEPALIVE)),
            "--no-access-log",  # on by default, and off in all others
        ]

    return Server(name, "asgi", command, least_workers=least)


def granian() -> Server:
    """Return granian under its own supervisor. How long it keeps idle connections is not said."""

    def command(job: Job) -> list[str]:
        return [
            *("-m", "granian", job.app),
            *("--interface", "asgi"),
            *("--workers", str(job.workers)),
            *("--port", str(job.port)),
            # By default a worker that dies ends the whole server.
            "--respawn-failed-workers",
        ]

    return Server("granian", "asgi", command, needs="granian")


DRUMD_UVICORN = drumd("drumd, uvicorn", "asgi")
DRUMD_GTHREAD = drumd("drumd, gthread", "wsgi", gunicorn_class="gthread")
DRUMD_ASGI = drumd("drumd, asgi", "asgi", gunicorn_class="asgi")
UVICORN = uvicorn()
UVICORN_WORKER = gunicorn(
    "gunicorn, uvicorn-worker", "asgi", "uvicorn_worker.UvicornWorker", needs="uvicorn_worker"
)
GTHREAD = gunicorn("gunicorn, gthread", "wsgi", "gthread")
ASGI = gunicorn("gunicorn, asgi", "asgi", "asgi")
GRANIAN = granian()


class Running:
    """A server that was started here. What it says goes to a file, for when it fails."""

    def __init__(self, server: Server, job: Job) -> None:
        self.server = server
        self.port = job.port
        self.scratch = job.scratch
        self._workers = job.workers
        self._output = job.scratch / "output"
        with self._output.open("wb") as output:
            self._popen = subprocess.Popen(
                [sys.executable, *server.command(job)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": f"{job.directory}:{CHECKOUT}"},
                start_new_session=True,
            )
        self._seen: set[psutil.Process] = set()

    @property
    def name(self) -> str:
        """Return the server's name."""
        return self.server.name

    @property
    def pid(self) -> int:
        """Return the pid of the process that was started: the supervisor or master."""
        return self._popen.pid

    def wait_whole(self) -> set[int]:
        """Wait until each of its workers has answered; return their pids."""
        return asyncio.run(self.until_whole())

    async def until_whole(self) -> set[int]:
        """Do the same in a running event loop."""
        pids: set[int] = set()
        try:
            async with asyncio.timeout(START_CAP):
                while len(pids) < self._workers:
                    if self._popen.poll() is not None:
                        raise BenchError(f"cannot start {self.name}: {self._said()}")
                    found = await ask_for_pids(self.port, 4 * self._workers)
                    pids = {pid for pid in pids | found if psutil.pid_exists(pid)}
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise BenchError(
                f"cannot get {self._workers} workers of {self.name} to answer; "
                f"pids that did: {sorted(pids)}; {self._said()}"
            ) from None
        self.processes()
        return pids

    def reload(self) -> None:
        """Have it take up the code that is on disk: all of them do so at SIGHUP."""
        self._popen.send_signal(signal.SIGHUP)

    @property
    def ended(self) -> bool:
        """Return whether its supervisor has ended by itself."""
        return self._popen.poll() is not None

    def processes(self) -> set[psutil.Process]:
        """Return its processes that live now; they are ended with it, even when orphaned."""
        try:
            root = psutil.Process(self.pid)
            living = {root, *root.children(recursive=True)}
        except psutil.NoSuchProcess:
            living = set()
        self._seen |= living
        return living

    def end(self) -> None:
        """End it: by SIGTERM, and what is left after a while by SIGKILL."""
        self.processes()
        self._popen.terminate()
        try:
            self._popen.wait(END_CAP)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for process in self._seen:
            with contextlib.suppress(psutil.NoSuchProcess):  # psutil knows a pid that was reused
                process.send_signal(signal.SIGKILL)

    def _said(self) -> str:
        return f"it said:\n{self._output.read_text(errors='replace')[-2000:]}"


@contextmanager
def running(
    servers: Sequence[Server],
    *,
    workers: int,
    threads: int = 4,
    app: str = "tiny",
    cpus: frozenset[int] | None = None,
    wait: bool = True,
    directory: Path | None = None,
) -> Iterator[list[Running]]:
    """Run all `servers` at once, each on a port of its own, until the block ends.

    `app`: tiny or slow, of which there is one for each interface. Missing servers are left out.
    `cpus`: where they may run; by default everywhere. `wait`: until all workers answer.
    `directory`: where releases of the app are, of tests/e2e/apps/steady.py; `app` is not used then.
    """
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drumd-bench-")))
        started = []
        for number, server in enumerate(present(servers)):
            job = Job(
                app=f"bench.apps.{app}_{server.interface}:app"
                if directory is None
                else f"steady:{server.interface}",
                workers=max(workers, server.least_workers),
                threads=threads,
                port=free_port(),
                scratch=root / str(number),
                directory=directory or CHECKOUT,
            )
            job.scratch.mkdir()
            with machine.on(cpus or frozenset(machine.CPUS)):
                one = Running(server, job)
            stack.callback(one.end)
            started.append(one)
        for one in started:
            if wait:
                one.wait_whole()
        yield started


def present(servers: Sequence[Server]) -> list[Server]:
    """Return those of `servers` that are installed."""
    return [server for server in servers if not server.missing]
