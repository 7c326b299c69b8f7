"""What the service manager is told, over a real datagram socket."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumd.supervisor.observe.notify import Notifier, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and the NOTIFY_SOCKET that names it."""
    shown = str(tmp_path / "notify") if request.param == "path" else f"@drumd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + shown[1:] if shown.startswith("@") else shown)
        receiver.settimeout(30)
        yield receiver, shown


def _received(receiver: socket.socket) -> dict[str, str]:
    lines = receiver.recv(4096).decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_ready_carries_status_and_main_pid(manager: tuple[socket.socket, str]) -> None:
    """READY=1 comes with the status line and the main pid, in one datagram."""
    receiver, address = manager
    assert Notifier({"NOTIFY_SOCKET": address}).ready("web: 2 of 2 workers")
    assert _received(receiver) == {
        "READY": "1",
        "STATUS": "web: 2 of 2 workers",
        "MAINPID": str(os.getpid()),
    }


def test_each_message_says_its_thing(manager: tuple[socket.socket, str]) -> None:
    """Status, stop, watchdog and more time are one assignment or two each."""
    receiver, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.status("loading")
    notifier.stopping("draining")
    notifier.watchdog()
    notifier.extend_timeout(1.5)
    assert [_received(receiver) for _ in range(4)] == [
        {"STATUS": "loading"},
        {"STOPPING": "1", "STATUS": "draining"},
        {"WATCHDOG": "1"},
        {"EXTEND_TIMEOUT_USEC": "1500000"},
    ]


def test_reloading_has_the_monotonic_time(manager: tuple[socket.socket, str]) -> None:
    """RELOADING=1 carries the monotonic time in microseconds, which notify-reload units need."""
    receiver, address = manager
    before = time.monotonic_ns() // 1000
    Notifier({"NOTIFY_SOCKET": address}).reloading()
    sent = _received(receiver)
    assert sent["RELOADING"] == "1"
    assert before <= int(sent["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_status_cannot_smuggle_a_second_line(manager: tuple[socket.socket, str]) -> None:
    """A status of several lines is sent as one, so it cannot set another variable."""
    receiver, address = manager
    Notifier({"NOTIFY_SOCKET": address}).status("bad\nMAINPID=1")
    assert _received(receiver) == {"STATUS": "bad MAINPID=1"}


def test_full_receiver_is_not_waited_for(tmp_path: Path) -> None:
    """A service manager that does not read costs a message, never time."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        taken = [notifier.watchdog() for _ in range(10_000)]
    assert taken[0]
    assert not taken[-1]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    """Without a service manager, or with one that is gone, every call says False."""
    notifier = Notifier(environ)
    assert not notifier.ready("x")
    notifier.close()
    assert not notifier.watchdog()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_watchdog_is_fed_twice_in_its_time(environ: dict[str, str], seconds: float | None) -> None:
    """The watchdog's interval is half of what systemd allows, and only of this process."""
    assert watchdog_interval(environ) == seconds
