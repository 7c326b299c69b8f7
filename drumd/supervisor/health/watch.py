"""The watch over ready workers: heartbeats and requests in, verdicts out. Pure."""

from dataclasses import dataclass, replace

from drumd.wire.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a worker is stalled, and when hung; in seconds."""

    stall_after: float = 1.0
    hang_timeout: float = 30.0
    request_timeout: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is held of a worker: at most one of `stalled` and `hung` says why."""

    late: float
    """Seconds since the last heartbeat in which the supervisor itself ran."""
    busy: bool = False
    """A request in flight explains the lateness."""
    stalled: bool = False
    hung: str = ""


class AwakeClock:
    """Time in which the supervisor itself ran: seconds since it began.

    A paused machine, a SIGSTOP or a re-exec leaves a gap between two looks. No worker is accused
    of what it did not do in a gap, so a gap counts no more than two intervals.
    """

    def __init__(self, interval: float, now: float, awake: float = 0.0) -> None:
        """Begin at `now` with `awake` seconds: those of the program before, after a re-exec."""
        self.interval = interval
        self.awake = awake
        self._last = now

    def look(self, now: float) -> float:
        """Return the time awake until `now` (monotonic seconds)."""
        self.awake += min(max(0.0, now - self._last), 2 * self.interval)
        self._last = now
        return self.awake


@dataclass(frozen=True, slots=True)
class Pulse:
    """The last heartbeat that was seen: its stamp, and the time awake when it was made."""

    beat_ns: int
    at: float


def feel(
    pulse: Pulse | None, record: Record, *, now: float, awake: float, interval: float
) -> Pulse:
    """Return the pulse after a look at a worker's record."""
    if pulse is not None and pulse.beat_ns == record.beat_ns:
        return pulse
    # A new heartbeat: it is younger than the last look, whatever happened in between.
    age = min(max(0.0, now - record.beat_ns / 1e9), interval)
    return Pulse(record.beat_ns, awake - age)


def judge(pulse: Pulse, record: Record, limits: Limits, *, now: float, awake: float) -> Verdict:
    """Say whether a ready worker makes progress.

    A late worker with a request in flight is busy, for as long as a request may take: what blocks
    it began with its lateness, so this, and not the age of the oldest request, is what counts (an
    event loop may hold a healthy stream open for hours). Without a request nothing explains it.
    """
    late = awake - pulse.at
    busy = record.in_flight > 0
    verdict = Verdict(late=late, busy=busy, stalled=late >= limits.stall_after)
    if not verdict.stalled:
        return replace(verdict, hung=_stuck(record, limits, now))
    if busy and late >= limits.request_timeout:
        return replace(
            verdict,
            hung=f"no heartbeat for {late:.1f} s with a request in flight "
            f"(request_timeout {limits.request_timeout:g} s)",
        )
    if not busy and late >= limits.hang_timeout:
        return replace(
            verdict,
            hung=f"no heartbeat for {late:.1f} s without a request in flight "
            f"(hang_timeout {limits.hang_timeout:g} s)",
        )
    return verdict


def _stuck(record: Record, limits: Limits, now: float) -> str:
    """Say why all threads are held to be stuck though the main loop beats; else ""."""
    if not record.capacity or record.in_flight < record.capacity:
        return ""
    still = now - record.progress_ns / 1e9
    if still < limits.request_timeout:
        return ""
    return (
        f"all {record.capacity} threads are stuck: no request began or ended for {still:.1f} s "
        f"(request_timeout {limits.request_timeout:g} s)"
    )
