"""`drumctl stop` without a pool: the daemon ends, once it is certain that this is meant."""

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

from drumd.exitcodes import ControlExit
from drumd.supervisor.cli.call import Call
from drumd.supervisor.cli.client import Client, ControlError
from drumd.supervisor.cli.outcome import INTERRUPTED
from drumd.supervisor.observe.console import escape


def stop_daemon(call: Call) -> int:
    """End the daemon; who sits at a terminal and did not say `--all` is asked first."""
    if not call.given.all and not _confirmed(call):
        call.progress.line("nothing was stopped")
        return ControlExit.DEGRADED
    if call.given.no_wait:
        call.client.post("/stop")
        print("drumd stops")
        return ControlExit.OK
    return _await_end(call)


def _confirmed(call: Call) -> bool:
    if not (sys.stdin.isatty() and call.progress.interactive):
        return True  # a program means what it says
    status = call.client.get("/status")
    pools = ", ".join(pool["name"] for pool in status["pools"])
    sys.stderr.write(f"stop drumd (pid {status['pid']}) with all its pools ({pools})? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _await_end(call: Call) -> int:
    """Ask the daemon to stop and show its events until its process has ended."""
    client, progress = call.client, call.progress
    # All is had before the request: afterwards the daemon may be gone at any moment.
    pid = client.daemon_pid()
    newest = list(client.lines("/events", last=1))
    events = client.lines("/events", since=newest[-1]["seq"] if newest else 0, follow="true")
    with _exit_of(pid) as gone:
        client.post("/stop")
        try:
            for entry in events:
                if "reason" in entry:
                    progress.show([escape(_told(entry))])
            _wait_for_exit(gone, client)
        except KeyboardInterrupt:
            progress.line("the daemon goes on stopping; `drumctl status` shows how far it is")
            return INTERRUPTED
    progress.clear()
    call.out.line(f"drumd pid {pid} has stopped" if pid else "drumd has stopped")
    return ControlExit.OK


def _told(entry: dict[str, Any]) -> str:
    where = "/".join(str(entry[key]) for key in ("pool", "slot") if key in entry)
    first, *_ = entry["reason"].splitlines() or [""]
    return f"{' '.join(filter(None, [entry['event'], where]))}: {first}"


@contextlib.contextmanager
def _exit_of(pid: int) -> Iterator[int | None]:
    """Give an fd that is readable once process `pid` has exited; None where it cannot be seen."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _wait_for_exit(gone: int | None, client: Client) -> None:
    if gone is not None:
        select.select([gone], [], [])
        return
    # A daemon in another pid namespace: its socket is what can be seen of it.
    with contextlib.suppress(ControlError):
        while True:
            client.daemon_pid()
            time.sleep(0.1)
