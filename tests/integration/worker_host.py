"""A real parent for workers under test: what the supervisor gives a worker, and nothing more.

with WorkerHost() as host:
    listener = host.listen()
    worker = host.spawn("asgi_app:app", runtime="uvicorn")
    worker.expect(Ready)
    worker.accept(listener)
    ... talk HTTP to listener.address ...
    worker.drain(linger=0)
    assert worker.wait() == 0
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from drumd.wire.handover import make_channel
from drumd.wire.messages import (
    MAX_PACKET,
    Accept,
    Accepting,
    Drain,
    Message,
    Ready,
    Stop,
    SupervisorMessage,
    TakeOver,
    WorkerMessage,
    decode,
    encode,
)
from drumd.wire.records import Record, read_record
from drumd.wire.scoreboard import Scoreboard
from drumd.wire.spec import (
    INSTANCE_VARIABLE,
    SPEC_FD_VARIABLE,
    STACKS_SIGNAL,
    WorkerFds,
    WorkerSpec,
)
from tests.waiting import CAP, wait_until

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "apps"

M = TypeVar("M", bound=WorkerMessage)


@dataclass
class Listener:
    """A listening socket that the host owns, with the number that workers know it by."""

    id: int
    sock: socket.socket

    @property
    def address(self) -> Any:
        """Return what `socket.connect` takes: (host, port), or a path."""
        return self.sock.getsockname()

    def connect(self, timeout: float = CAP) -> socket.socket:
        """Return a new client connection."""
        client = socket.socket(self.sock.family)
        client.settimeout(timeout)
        client.connect(self.address)
        return client


@dataclass
class Collected:
    """What came out of a pipe so far; a thread reads it, so that the worker never waits."""

    fd: int
    data: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := os.read(self.fd, 65_536):
                self.data += chunk
        os.close(self.fd)

    @property
    def text(self) -> str:
        """Return it as text."""
        return bytes(self.data).decode(errors="replace")

    def finish(self, cap: float = CAP) -> str:
        """Return everything up to the end of file: all holders of the pipe are gone."""
        self._thread.join(cap)
        return self.text


class HostedWorker:
    """One worker process and the host's ends of its sockets and pipes."""

    def __init__(
        self,
        spec: WorkerSpec,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        output: Collected | int,
        stacks: Collected,
        board: Scoreboard,
    ) -> None:
        self.spec = spec
        self.process = process
        self.control = control
        self.messages: list[Message] = []
        """All that the worker said, in order."""
        self.started = time.monotonic()
        self._unseen: list[Message] = []
        self._output = output
        self._stacks = stacks
        self._board = board
        self._epoch = 0

    @property
    def pid(self) -> int:
        """Return the worker's pid."""
        return self.process.pid

    @property
    def record(self) -> Record:
        """Return what its record of the scoreboard says now."""
        return read_record(self._board, self.spec.lease)

    @property
    def output(self) -> str:
        """Return what the worker wrote to stdout and stderr so far."""
        return self._output.text if isinstance(self._output, Collected) else ""

    @property
    def stacks(self) -> str:
        """Return what it wrote to its stacks pipe so far."""
        return self._stacks.text

    # --- listening to it --------------------------------------------------------------------------

    def expect(self, kind: type[M], cap: float = CAP) -> M:
        """Return the next message of `kind`; others before it stay in `messages` only.

        Raises `AssertionError` with the worker's output when it ends or stays silent instead.
        """
        end = time.monotonic() + cap
        while True:
            while self._unseen:
                message = self._unseen.pop(0)
                if isinstance(message, kind):
                    return message
            if self._receive(0.02):
                continue
            if self.process.poll() is not None and not self._receive(0):
                raise AssertionError(self._tale(f"it ended, no {kind.__name__}"))
            if time.monotonic() > end:
                raise AssertionError(self._tale(f"no {kind.__name__} within {cap} s"))

    def _receive(self, seconds: float) -> bool:
        self.control.settimeout(seconds)
        try:
            packet = self.control.recv(MAX_PACKET)
        except (TimeoutError, BlockingIOError, ConnectionResetError):
            return False
        if not packet:
            time.sleep(min(seconds, 0.01))
            return False
        message = decode(packet)
        self.messages.append(message)
        self._unseen.append(message)
        return True

    def wait(self, cap: float = CAP) -> int:
        """Return its exit code (-n for signal n) once it has ended; all its messages are in."""
        try:
            code = self.process.wait(cap)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._tale(f"it did not end within {cap} s")) from None
        while self._receive(0):
            pass
        return code

    def finished_output(self) -> str:
        """Return all its output; the worker must have ended."""
        return self._output.finish() if isinstance(self._output, Collected) else ""

    def _tale(self, problem: str) -> str:
        return (
            f"{problem}; exit {self.process.poll()}, messages {self.messages}, "
            f"output:\n{self.output}"
        )

    # --- telling it -------------------------------------------------------------------------------

    def tell(self, message: SupervisorMessage, *listeners: Listener) -> None:
        """Send one message with the fds of `listeners`."""
        self._send(message, [each.sock for each in listeners])

    def _send(self, message: SupervisorMessage, socks: Sequence[socket.socket]) -> None:
        socket.send_fds(self.control, [encode(message)], [each.fileno() for each in socks])

    def accept(self, *listeners: Listener) -> Accepting:
        """Make it accept from exactly `listeners`, and wait until it says so."""
        self._epoch += 1
        self.tell(
            Accept(epoch=self._epoch, listeners=tuple(each.id for each in listeners)), *listeners
        )
        while True:
            answer = self.expect(Accepting)
            if answer.epoch == self._epoch:
                assert answer.listeners == tuple(sorted(each.id for each in listeners))
                return answer

    def drain(self, *heirs: "HostedWorker", linger: float = 0.0, patience: float = CAP) -> None:
        """Tell it to drain, and to hand its connections over to `heirs`.

        `patience` seconds from now is its deadline.
        """
        channels = [heir.take_over(self.spec.attempt) for heir in heirs]
        self.drain_into(*channels, linger=linger, patience=patience)
        for channel in channels:
            channel.close()

    def drain_into(
        self, *channels: socket.socket, linger: float = 0.0, patience: float = CAP
    ) -> None:
        """Tell it to drain, and to send its connections on `channels`."""
        deadline = time.monotonic() + patience
        self._send(Drain(deadline=deadline, linger=linger, heirs=len(channels)), channels)

    def take_over(self, attempt: int = 0) -> socket.socket:
        """Tell it to take over connections; return the end of the channel to send them on."""
        leavers_end, heirs_end = make_channel()
        self._send(TakeOver(attempt=attempt), [heirs_end])
        heirs_end.close()
        return leavers_end

    def stop(self) -> None:
        """Tell it to stop at once."""
        self.tell(Stop())

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def dump_stacks(self, cap: float = CAP) -> str:
        """Ask for the stacks of all threads; return them once they are complete."""
        before = len(self.stacks)
        self.signal(STACKS_SIGNAL)
        wait_until(lambda: len(self.stacks) > before, cap=cap, what="stacks")
        # faulthandler writes the current thread last and ends it with its outermost frame.
        wait_until(lambda: "Current thread" in self.stacks[before:], cap=cap, what="stacks")
        return self.stacks[before:]


class WorkerHost:
    """Owns a scoreboard, listeners and workers; leaving the context ends and removes all."""

    def __init__(self, leases: int = 8) -> None:
        self.board = Scoreboard.create(leases)
        self.directory = tempfile.TemporaryDirectory(prefix="drumd-host-")
        self.workers: list[HostedWorker] = []
        self.listeners: list[Listener] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.process.wait(CAP)
            worker.control.close()
        for listener in self.listeners:
            listener.sock.close()
        self.board.close()
        os.close(self.board.fd)
        self.directory.cleanup()

    def path(self, name: str) -> str:
        """Return a path in the host's temporary directory."""
        return str(Path(self.directory.name) / name)

    def listen(
        self, *, unix: bool = False, host: str = "127.0.0.1", backlog: int = 128
    ) -> Listener:
        """Bind and listen on a free port of `host`, or on a Unix socket."""
        number = len(self.listeners)
        if unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(self.path(f"listener-{number}.sock"))
        else:
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, 0))
        sock.listen(backlog)
        listener = Listener(number, sock)
        self.listeners.append(listener)
        return listener

    def spawn(
        self,
        app: str,
        *,
        env: Mapping[str, str] | None = None,
        output: int | None = None,
        ignore: tuple[int, ...] = (),
        **wanted: Any,
    ) -> HostedWorker:
        """Start a worker that serves `app` from tests/apps.

        `wanted`: fields of the spec that differ from the defaults below. `env`: added to the
        environment. `output`: an fd for stdout and stderr instead of a pipe that the host reads.
        `ignore`: signals that the worker inherits as ignored.
        """
        lease = wanted.pop("lease", len(self.workers))
        if lease < self.board.leases:  # else the worker has to complain
            self.board.clear(lease)
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stacks_out, stacks_in = os.pipe()
        board_fd = os.dup(self.board.fd)
        spec_fd = os.memfd_create("drumd-spec", os.MFD_CLOEXEC)
        spec = WorkerSpec(
            **{
                "pool": "web",
                "slot": 0,
                "generation": 1,
                "attempt": len(self.workers) + 1,
                "lease": lease,
                "supervisor_pid": os.getpid(),
                "app": app,
                "app_dir": str(APPS),
                "runtime": "auto",
                "threads": 4,
                "backlog": 128,
                "keepalive": 75.0,
                "grace_period": 30.0,
                "linger": 0.0,
                "fds": WorkerFds(control=theirs.fileno(), scoreboard=board_fd, stacks=stacks_in),
                **wanted,
            }
        )
        os.write(spec_fd, spec.encode())
        os.lseek(spec_fd, 0, os.SEEK_SET)
        if output is None:
            read_end, write_end = os.pipe()
        else:
            read_end, write_end = -1, output
        fds = (theirs.fileno(), board_fd, stacks_in, spec_fd)
        with _ignored(ignore):
            process = subprocess.Popen(
                [sys.executable, "-m", "drumd.workers", f"pool={spec.pool}", f"slot={spec.slot}"],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=fds,
                start_new_session=True,
                restore_signals=False,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    INSTANCE_VARIABLE: f"host/{spec.pool}/{spec.attempt}",
                    SPEC_FD_VARIABLE: str(spec_fd),
                    **(env or {}),
                },
            )
        theirs.close()
        for fd in (board_fd, stacks_in, spec_fd, *(() if output is not None else (write_end,))):
            os.close(fd)
        worker = HostedWorker(
            spec,
            process,
            mine,
            Collected(read_end) if output is None else output,
            Collected(stacks_out),
            self.board,
        )
        self.workers.append(worker)
        return worker

    def serve(self, app: str, *listeners: Listener, **wanted: Any) -> HostedWorker:
        """Spawn a worker, wait until it is ready, and make it accept from `listeners`."""
        worker = self.spawn(app, **wanted)
        worker.expect(Ready)
        worker.accept(*(listeners or (self.listen(),)))
        return worker


@contextlib.contextmanager
def _ignored(signals: tuple[int, ...]) -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
