"""Addresses that cannot be had: who has them, and what to do."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drumd.exitcodes import DaemonExit
from tests.e2e.daemon import APPS, Daemon, free_port
from tests.e2e.served import Served, wait_gone

Start = Callable[..., Daemon]
Serve = Callable[..., Served]


def refused(daemon: Start, *binds: str) -> str:
    """Start drumd on addresses that it cannot have; return its one line about it."""
    started = daemon("serve", "unruly:asgi", f"--app-dir={APPS}", *(f"--bind={b}" for b in binds))
    assert started.wait() == DaemonExit.START_FAILED
    assert started.log() == [], "nothing is started before all addresses are had"
    (line,) = started.text().splitlines()
    return line


@contextlib.contextmanager
def other_program(port: int, *, reuse_port: bool = False) -> Iterator[int]:
    """Have another program listen on a port of 127.0.0.1; yield its pid."""
    script = (
        "import socket, sys, time\n"
        "s = socket.socket()\n"
        f"{'s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)' if reuse_port else ''}\n"
        f"s.bind(('127.0.0.1', {port})); s.listen()\n"
        "print('listens', flush=True); time.sleep(3600)\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listens\n"
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize("reuse_port", [False, True])
def test_another_programs_port_is_refused_by_name(daemon: Start, *, reuse_port: bool) -> None:
    """A port that another program has is refused with its pid and command, shared or not."""
    port = free_port()
    with other_program(port, reuse_port=reuse_port) as pid:
        line = refused(daemon, f"127.0.0.1:{port}")
    assert line.startswith(f"drumd: cannot listen on 127.0.0.1:{port}: in use by pid {pid} (")
    assert "python" in line
    assert line.endswith("stop it or choose another address")


def test_another_drumds_port_is_refused_by_name(serve: Serve, daemon: Start) -> None:
    """A second drumd of the same user is refused by the first one's pid, which serves on."""
    served = serve(web={"workers": 2, "runtime": "uvicorn"})
    served.ready()
    line = refused(daemon, f"127.0.0.1:{served.web.port}")
    assert f"in use by pid {served.daemon.pid} (" in line
    assert "-m drumd run" in line
    line = refused(daemon, f"0.0.0.0:{served.web.port}")
    assert f"in use by pid {served.daemon.pid} (" in line
    assert served.web.answers()


def test_another_drumds_unix_socket_is_refused_by_name(
    serve: Serve, daemon: Start, tmp_path: Path
) -> None:
    """A Unix socket that a live drumd has is refused by its pid; one left behind is replaced."""
    path = tmp_path / "web.sock"
    pool = {"bind": [f"unix:{path}"], "runtime": "uvicorn"}
    first = serve(web=pool)
    first.ready()
    first.daemon.end()
    assert path.exists()
    second = serve(web=pool)
    second.ready()
    assert f"in use by pid {second.daemon.pid} (" in refused(daemon, f"unix:{path}")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_port_is_free_again_at_once(serve: Serve) -> None:
    """After a stop, and after kill -9, with connections open, the next drumd has the port."""
    port = free_port()
    for end in (lambda s: s.daemon.drumctl("stop", "--all"), lambda s: os.kill(s.daemon.pid, 9)):
        served = serve(web={"bind": [f"127.0.0.1:{port}"], "runtime": "uvicorn"})
        (pid,) = served.ready()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(9) == b"HTTP/1.1 "
            end(served)
            served.wait_exit()
            wait_gone([pid])


@pytest.mark.parametrize(
    ("bind", "said"),
    [
        ("192.0.2.1:8000", "no interface of this machine has that address"),
        ("unix:/nonexistent/web.sock", "there is no directory /nonexistent"),
        ("unix:/proc/web.sock", "/proc"),
        ("fd://77", "fd 77 is no stream socket of this process"),
        ("fd://web", "no socket of that name was passed"),
        ("no-such-host.invalid:8000", "no-such-host.invalid"),
    ],
)
def test_what_the_system_refuses_is_said_with_the_why(daemon: Start, bind: str, said: str) -> None:
    """An address that the system refuses is one line with the address and the why, and exit 3."""
    line = refused(daemon, f"127.0.0.1:{free_port()}", bind)
    assert line.startswith(f"drumd: cannot listen on {bind}: ")
    assert said in line


@pytest.mark.parametrize(
    ("bind", "said"),
    [
        ("8000", "write for example 0.0.0.0:8000"),
        ("127.0.0.1", "write for example 127.0.0.1:8080"),
        ("127.0.0.1:99999", "the port must be a number from 0 to 65535"),
        ("::1:8000", "[::1]:8000"),
        ("http://127.0.0.1:8000", "no such scheme"),
        ("unix:", "the path is missing"),
        (f"unix:/{'x' * 200}", "the kernel takes 107"),
        ("300.1.1.1:80", "is no IPv4 address"),
    ],
)
def test_what_is_no_address_is_invalid(daemon: Start, bind: str, said: str) -> None:
    """A bind that is no address is an invalid config (78), with what to write instead."""
    started = daemon("serve", "unruly:asgi", f"--app-dir={APPS}", f"--bind={bind}")
    assert started.wait() == DaemonExit.CONFIG
    assert "pools.web.bind" in started.text()
    assert said in started.text()


def test_admin_address_in_use_is_refused_by_name(serve: Serve, daemon: Start) -> None:
    """An admin address that is taken ends the start before any worker, and names the address."""
    served = serve(web={"runtime": "uvicorn"})
    served.ready()
    started = daemon(
        "serve",
        "unruly:asgi",
        f"--bind=127.0.0.1:{free_port()}",
        f"--admin-bind=127.0.0.1:{served.web.port}",
    )
    assert started.wait() == DaemonExit.START_FAILED
    (line,) = started.text().splitlines()
    assert f"127.0.0.1:{served.web.port}" in line
    assert f"pid {served.daemon.pid} (" in line
    assert "--admin-bind" in line
