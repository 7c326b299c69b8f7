"""What a worker was told, as state that its serving loop looks at, and the loop's pulse."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from drumd.wire.messages import Accept, Accepting, Drain, Drained, Leaving, Ready, Stop, TakeOver
from drumd.workers.meter import Meter
from drumd.workers.runtime import Place

if TYPE_CHECKING:
    from drumd.workers.handover import Handover

DRAIN_TURN = 0.05
"""Seconds between two looks of a draining loop at what is left."""


class Orders:
    """The supervisor's wishes and foreign signals, noted; the serving loop carries them out.

    `on_accept(epoch, wanted)` gets each wanted set as {listener: fd}; the fds are its own now, and
    it answers with `accepting` once it accepts from exactly these. `handover`: where the runtime
    can hand over connections; its heirs and leavers come and go with what is read here.
    """

    def __init__(
        self,
        place: Place,
        on_accept: Callable[[int, Mapping[int, int]], None],
        handover: "Handover | None" = None,
    ) -> None:
        self._control = place.control
        self._spec = place.spec
        self._on_accept = on_accept
        self._handover = handover
        if handover is not None:
            handover.poll_too(self._control.fileno())
        self._parent = os.getppid()
        self.drain: Drain | None = None
        """Set once the worker is to stop accepting and finish what is in flight."""
        self.stopped = False
        """True once it is to return at once."""

    @property
    def leaving(self) -> bool:
        """Return whether the worker is to accept no more."""
        return self.stopped or self.drain is not None

    def fileno(self) -> int:
        """Return the fd whose readability calls for `read`."""
        return (self._handover or self._control).fileno()

    def read(self) -> None:
        """Take what the supervisor said since the last time; never wait."""
        for received in self._control.receive():
            match received.message:
                case Accept(epoch=epoch, listeners=listeners) if not self.leaving:
                    self._on_accept(epoch, dict(zip(listeners, received.fds, strict=True)))
                case Accept():  # too late: it was on its way when the worker began to leave
                    _close_all(received.fds)
                case Drain() as drain:
                    self.drain = drain
                    self._replace_heirs(received.fds)
                case TakeOver():
                    self._add_leavers(received.fds)
                case Stop():
                    self.stopped = True
        if self._control.gone:
            self.stopped = True
        if self._handover is not None:
            self._handover.turn()

    def _replace_heirs(self, channels: Sequence[int]) -> None:
        if self._handover is None:
            _close_all(channels)
        else:
            self._handover.heirs.replace(channels)

    def _add_leavers(self, channels: Sequence[int]) -> None:
        if self._handover is None:
            _close_all(channels)  # who would hand over sees the end, and keeps its connections
        else:
            for fd in channels:
                self._handover.leavers.add(fd)

    def look_for_parent(self) -> None:
        """Stop when the process was orphaned; costs one system call."""
        if os.getppid() != self._parent:
            self.stopped = True

    def leave(self, number: int) -> None:
        """Take a signal that drumd did not send: drain by the spec's own times, then stop at once.

        Safe in a signal handler.
        """
        if self.leaving:
            self.stopped = True
        else:
            self.retire()
            self._control.send(Leaving(signal=number))

    def retire(self) -> None:
        """Drain by the spec's own times."""
        if self.drain is None:
            deadline = monotonic() + self._spec.grace_period
            self.drain = Drain(deadline=deadline, linger=self._spec.linger)

    def ready(self) -> None:
        """Say that the worker could serve now."""
        self._control.send(Ready(handover=self._handover is not None))

    def accepting(self, epoch: int, listeners: tuple[int, ...]) -> None:
        """Say that the worker accepts from exactly `listeners`, as wanted in `epoch`."""
        self._control.send(Accepting(epoch=epoch, listeners=tuple(sorted(listeners))))

    def drained(self) -> None:
        """Say that no connection is left; take none over any more."""
        handed = 0
        if self._handover is not None:
            self._handover.leavers.close()
            handed = self._handover.heirs.handed
        self._control.send(Drained(handed=handed))


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


class Pulse:
    """Beats at most once an interval, from a loop that turns at least that often."""

    def __init__(self, meter: Meter, interval: float) -> None:
        self._meter = meter
        self._interval = interval
        self._next = 0.0

    def beat(self) -> bool:
        """Beat when it is time to; return whether it was."""
        now = monotonic()
        if now < self._next:
            return False
        self._next = now + self._interval
        self._meter.beat()
        return True

    def rest(self) -> float:
        """Return the seconds that the loop may wait before it must beat again."""
        return max(0.0, self._next - monotonic())


class Closable(Protocol):
    """Whatever accepts from a listener, until it is closed."""

    def close(self) -> object:
        """Accept no more from the listener; leave the connections alone."""


L = TypeVar("L", bound=Closable)


class Listeners(Generic[L]):
    """The listeners that a worker accepts from, by number; `start` begins to accept from one."""

    def __init__(self, start: Callable[[socket.socket], L]) -> None:
        self._start = start
        self._held: dict[int, L] = {}

    def hold(self, wanted: Mapping[int, int]) -> tuple[int, ...]:
        """Accept from exactly `wanted` ({number: fd}, the fds become ours); return the numbers.

        A listener is closed, never shut down: that would end it for everyone who shares it.
        """
        for number in self._held.keys() - wanted.keys():
            self._held.pop(number).close()
        for number, fd in wanted.items():
            if number in self._held:
                os.close(fd)  # one more fd of the socket that is held already
            else:
                self._held[number] = self._start(listening_socket(fd))
        return tuple(self._held)

    def release(self) -> None:
        """Accept from none."""
        self.hold({})


def listening_socket(fd: int) -> socket.socket:
    """Wrap the listener on `fd`: non-blocking, since others may win the race for a connection."""
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    listener.set_inheritable(False)  # a program that the app starts would keep it open
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        # Accepted sockets inherit it; without it small answers wait for the client's delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""A worker that gets one of these from elsewhere drains; a second one ends it at once."""
IGNORED_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
"""Signals that reach workers by a terminal or a broad kill, and by default would end them."""


class Wakeups:
    """A pipe that each signal writes a byte to, so that a loop asleep in a poll turns."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """Return the end to poll for reading."""
        return self._read_end

    def clear(self) -> None:
        """Take all bytes out."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read_end, 512):
                pass


def handle_signals(orders: Orders) -> None:
    """Install the handlers that all runtimes share; main thread only."""

    def leave(number: int, _frame: FrameType | None) -> None:
        orders.leave(number)

    def stop(_number: int, _frame: FrameType | None) -> None:
        orders.stopped = True

    for number in LEAVE_SIGNALS:
        signal.signal(number, leave)
        # Python restarts what was interrupted anyway (PEP 475); C code of the app's may not.
        signal.siginterrupt(number, False)
    signal.signal(signal.SIGQUIT, stop)
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
