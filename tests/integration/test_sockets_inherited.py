import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drumd.supervisor.sockets.binding import Listeners
from drumd.supervisor.sockets.errors import ListenError
from drumd.supervisor.sockets.inherited import Inherited
from drumd.wire.address import InheritedAddress

# What systemd does: fds from 3 on, the variables, exec.
PARENT = """
import json, os, socket, sys
plan = json.loads(sys.argv[1])
socks = [socket.create_server(("127.0.0.1", 0)) for _ in plan["names"]]
for n, s in enumerate(socks):
    os.dup2(s.fileno(), 100 + n)
for n in range(len(socks)):
    os.dup2(100 + n, 3 + n, inheritable=True)
    os.close(100 + n)
environ = dict(os.environ, LISTEN_FDS=str(len(socks)), LISTEN_FDNAMES=":".join(plan["names"]),
               LISTEN_PID=str(os.getpid() + plan["pid_offset"]))
os.execve(sys.executable, [sys.executable, "-c", plan["child"], *plan["binds"]], environ)
"""

CHILD = """
import asyncio, json, os, socket, sys
from drumd.supervisor.sockets.binding import Listeners
from drumd.supervisor.sockets.errors import ListenError
from drumd.supervisor.sockets.inherited import Inherited
from drumd.wire.address import parse_address

async def main():
    inherited = Inherited.from_environment(os.environ)
    host, port = socket.socket(fileno=os.dup(3)).getsockname()
    binds = [f"{host}:{port}" if b == "SAME" else b for b in sys.argv[1:]]
    out = {"variables": [v for v in os.environ if v.startswith("LISTEN_")]}
    try:
        listeners = Listeners.open(asyncio.get_running_loop(), [parse_address(b) for b in binds],
                                   backlog=64, inherited=inherited)
        listeners.set_balance("per-slot", 2)
        out["addresses"], out["notes"] = listeners.addresses, listeners.notes
        out["fds"] = listeners.fds(listeners.ids_for(0))
        out["inheritable"] = [os.get_inheritable(fd) for fd in out["fds"]]
        got = []
        host, port = listeners.addresses[0].split(":")
        for slot in (0, 1):
            listeners.steer({slot})
            client = socket.create_connection((host, int(port)))
            got.append(listeners.depth(listeners.ids_for(slot)[0]))
        out["got"] = got
        out["unused"] = inherited.close()
    except ListenError as error:
        out["error"] = str(error)
    print(json.dumps(out))

asyncio.run(main())
"""


def run_as_if_by_systemd(
    names: list[str], binds: list[str], *, pid_offset: int = 0
) -> dict[str, Any]:
    plan = {"names": names, "binds": binds, "pid_offset": pid_offset, "child": CHILD}
    done = subprocess.run(
        [sys.executable, "-c", PARENT, json.dumps(plan)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2])),
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("bind", ["fd://web", "fd://3", "SAME"])
def test_a_passed_socket_is_adopted(bind: str) -> None:
    """A socket passed by systemd is listened on, by name, number or address, and per slot too."""
    result = run_as_if_by_systemd(["web", "other"], [bind])
    assert result["fds"] == [3]
    assert result["inheritable"] == [False]
    assert result["variables"] == []
    assert result["got"] == [1, 1]
    assert result["notes"] == []
    assert result["unused"] == ["other"]


def test_all_sockets_of_one_name_are_adopted() -> None:
    """A unit with several ListenStream lines of one name gives the pool all of them."""
    result = run_as_if_by_systemd(["web", "web"], ["fd://web"])
    assert len(result["addresses"]) == 2


def test_a_wrong_name_says_what_names_there_are() -> None:
    """A bind to a socket that was not passed names those that were."""
    result = run_as_if_by_systemd(["web"], ["fd://wbe"])
    assert "cannot listen on fd://wbe" in result["error"]
    assert "fd://web" in result["error"]


def test_sockets_for_another_process_are_not_taken() -> None:
    """LISTEN_PID of another process means that the sockets are not ours."""
    result = run_as_if_by_systemd(["web"], ["fd://web"], pid_offset=1)
    assert "none was passed" in result["error"]


async def test_an_fd_that_is_no_socket_is_refused() -> None:
    """fd://N of something else than a stream socket is an error, and the fd is left alone."""
    read, write = os.pipe()
    with pytest.raises(ListenError, match="no stream socket"):
        Listeners.open(asyncio.get_running_loop(), [InheritedAddress(str(read))], backlog=10)
    os.close(read)
    os.close(write)
    with socket.socket(type=socket.SOCK_DGRAM) as datagram:
        with pytest.raises(ListenError, match="no stream socket"):
            Inherited.none().take(InheritedAddress(str(datagram.fileno())))
        os.fstat(datagram.fileno())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a socket to another user")
async def test_another_users_socket_stays_shared() -> None:
    """A passed socket that refuses siblings is shared by all slots, and the log gets to know."""
    passed = socket.create_server(("127.0.0.1", 0))
    os.fchown(passed.fileno(), 65534, -1)
    number = passed.detach()
    listeners = Listeners.open(
        asyncio.get_running_loop(), [InheritedAddress(str(number))], backlog=10
    )
    listeners.set_balance("per-slot", 3)
    assert listeners.shared_ids() == (0,)
    assert listeners.ids_for(1) == ()
    assert "cannot give each slot a socket of its own" in listeners.notes[0]
    listeners.steer({1})
    listeners.close()


OWN = """
import asyncio, os, socket
from drumd.supervisor.sockets.binding import Listeners
from drumd.supervisor.sockets.errors import ListenError
from drumd.supervisor.sockets.inherited import Inherited
from drumd.wire.address import parse_address

async def main():
    inherited = Inherited.from_environment(os.environ)
    own = socket.create_server(("127.0.0.1", 0))
    try:
        bind = parse_address(f"fd://{own.fileno()}")
        Listeners.open(asyncio.get_running_loop(), [bind], backlog=1, inherited=inherited)
    except ListenError as error:
        print(error)

asyncio.run(main())
"""


def test_a_socket_of_our_own_is_not_taken_for_a_passed_one() -> None:
    """`fd://N` means an fd that drumd was started with, not one that it opened since."""
    done = subprocess.run(
        [sys.executable, "-c", OWN], capture_output=True, text=True, timeout=60, check=False
    )
    assert "is no stream socket of this process; pass one" in done.stdout, done.stderr
