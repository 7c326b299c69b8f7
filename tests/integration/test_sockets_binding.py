import asyncio
import errno
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from drumd.supervisor.sockets.binding import Listeners
from drumd.supervisor.sockets.errors import AddressInUseError, ListenError
from drumd.wire.address import TcpAddress, UnixAddress, parse_address
from tests.waiting import until, wait_until

ANY_PORT = TcpAddress("127.0.0.1", 0)

OTHER_PROGRAM = """
import socket, sys
reuse = sys.argv[2] == "reuseport"
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if reuse: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
try:
    s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen()
except OSError as error:
    sys.exit(str(error))
print("listening", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def open_listeners(stack: ExitStack, *addresses: TcpAddress | UnixAddress) -> Listeners:
    listeners = Listeners.open(asyncio.get_running_loop(), addresses, backlog=100)
    stack.callback(listeners.close)
    return listeners


def port_of(listeners: Listeners, at: int = 0) -> int:
    return int(listeners.addresses[at].rpartition(":")[2])


def connect(stack: ExitStack, where: tuple[str, int], count: int) -> None:
    for _ in range(count):
        client = socket.create_connection(where, timeout=10)
        stack.callback(client.close)


def refusal(port: int, how: str) -> str:
    """Run another program that wants the port; return what it complains of."""
    command = [sys.executable, "-c", OTHER_PROGRAM, str(port), how]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stderr


def other_listener(stack: ExitStack, port: int) -> int:
    """Let another program listen on the port; return its pid."""
    command = [sys.executable, "-c", OTHER_PROGRAM, str(port), "reuseport"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stack.callback(other.wait)
    stack.callback(other.kill)
    assert other.stdout
    assert other.stdout.readline() == b"listening\n"
    return other.pid


def waiting(listeners: Listeners) -> dict[int, int]:
    """Accept all that waits, and count it by listener id."""
    counts: dict[int, int] = {}
    for id_ in listeners.ids():
        while True:
            try:
                listeners.socket(id_).accept()[0].close()
            except BlockingIOError:
                break
            counts[id_] = counts.get(id_, 0) + 1
    return counts


async def test_every_address_is_listened_on(cleanup: ExitStack, tmp_path: Path) -> None:
    """A pool listens on IPv4, IPv6 and a Unix path at once, and says which port it got."""
    path = tmp_path / "app.sock"
    listeners = open_listeners(cleanup, ANY_PORT, TcpAddress("::1", 0), UnixAddress(str(path)))
    v4, v6, unix = listeners.addresses
    assert v4.startswith("127.0.0.1:")
    assert v6.startswith("[::1]:")
    assert unix == f"unix:{path}"
    for address in (v4, v6):
        host, _, port = address.rpartition(":")
        connect(cleanup, (host.strip("[]"), int(port)), 1)
    assert listeners.depth(listeners.shared_ids()[0]) == 1
    assert listeners.depth(listeners.shared_ids()[2]) is None
    assert path.stat().st_mode & 0o777 == 0o660


async def test_a_name_binds_all_its_addresses_on_one_port(cleanup: ExitStack) -> None:
    """Port 0 on a host name is the same port on each of its addresses."""
    listeners = open_listeners(cleanup, TcpAddress("localhost", 0))
    assert len({address.rpartition(":")[2] for address in listeners.addresses}) == 1


@pytest.mark.parametrize("how", ["plain", "reuseport"])
async def test_a_second_program_is_refused(cleanup: ExitStack, how: str) -> None:
    """Nobody else can listen on a pool's port while its slots share it."""
    listeners = open_listeners(cleanup, ANY_PORT)
    assert "Address already in use" in refusal(port_of(listeners), how)


async def test_a_second_program_is_refused_while_slots_have_their_own(cleanup: ExitStack) -> None:
    """Another drumd or a plain server can't take the port of a per-slot group either."""
    listeners = open_listeners(cleanup, ANY_PORT)
    listeners.set_balance("per-slot", 3)
    port = port_of(listeners)
    assert "Address already in use" in refusal(port, "plain")
    with pytest.raises(
        AddressInUseError, match=rf"127\.0\.0\.1:{port}: in use by pid {os.getpid()}"
    ):
        open_listeners(cleanup, TcpAddress("127.0.0.1", port))


async def test_the_holder_of_a_port_is_named(cleanup: ExitStack) -> None:
    """The error for an address in use names the pid and the command of who listens there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pid = other_listener(cleanup, port)
    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(AddressInUseError) as caught:
            open_listeners(cleanup, TcpAddress(host, port))
        text = str(caught.value)
        assert text.startswith(f"cannot listen on {host}:{port}: in use by pid {pid} (")
        assert "choose another address" in text


async def test_of_several_addresses_all_or_none_are_bound(cleanup: ExitStack) -> None:
    """When one address can't be had, those bound before it are let go."""
    taken = open_listeners(cleanup, ANY_PORT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        other = free.getsockname()[1]
    with pytest.raises(AddressInUseError):
        open_listeners(
            cleanup, TcpAddress("127.0.0.1", other), TcpAddress("127.0.0.1", port_of(taken))
        )
    assert port_of(open_listeners(cleanup, TcpAddress("127.0.0.1", other))) == other


@pytest.mark.parametrize(
    ("bind", "hint"),
    [
        ("192.0.2.1:0", "no interface of this machine"),
        ("no-such-host.invalid:80", "write an IP address"),
        ("unix:/nonexistent/app.sock", "there is no directory /nonexistent"),
        ("unix:/dev/null/app.sock", "is no directory"),
        ("unix:/dev/null", "no socket is there"),
        ("unix:/proc/app.sock", "cannot listen on unix:/proc/app.sock"),
    ],
)
async def test_an_impossible_address_says_why(cleanup: ExitStack, bind: str, hint: str) -> None:
    """An address that can't be bound gives an error with the next step."""
    address = parse_address(bind)
    assert isinstance(address, TcpAddress | UnixAddress)
    with pytest.raises(ListenError) as caught:
        open_listeners(cleanup, address)
    assert str(caught.value).startswith(f"cannot listen on {bind}: ")
    assert hint in str(caught.value)


async def test_a_stale_unix_socket_is_replaced(cleanup: ExitStack, tmp_path: Path) -> None:
    """A socket file on which nobody listens any more is in nobody's way."""
    path = str(tmp_path / "app.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    listeners = open_listeners(cleanup, UnixAddress(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    listeners.close()
    with pytest.raises(FileNotFoundError):
        os.lstat(path)


async def test_a_live_unix_socket_is_refused_and_stays(cleanup: ExitStack, tmp_path: Path) -> None:
    """A Unix socket on which someone listens is left alone, and its holder is named."""
    path = str(tmp_path / "app.sock")
    first = open_listeners(cleanup, UnixAddress(path))
    with pytest.raises(AddressInUseError, match=f"in use by pid {os.getpid()}"):
        open_listeners(cleanup, UnixAddress(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    assert waiting(first) == {0: 2}, "the one that looked whether someone listens, and the client"


async def test_only_its_own_unix_socket_is_removed(cleanup: ExitStack, tmp_path: Path) -> None:
    """A pool that closes leaves a socket file alone that someone put in the place of its own."""
    path = tmp_path / "app.sock"
    first = open_listeners(cleanup, UnixAddress(str(path)))
    path.rename(tmp_path / "moved.sock")
    open_listeners(cleanup, UnixAddress(str(path)))
    first.close()
    assert path.exists()


async def test_slots_get_their_own_listeners_later(cleanup: ExitStack, tmp_path: Path) -> None:
    """Per-slot balance keeps the first socket for slot 0 and the Unix socket for all."""
    unix = UnixAddress(str(tmp_path / "app.sock"))
    listeners = open_listeners(cleanup, ANY_PORT, TcpAddress("::1", 0), unix)
    assert listeners.shared_ids() == (0, 1, 2)
    assert listeners.ids_for(0) == ()
    before = listeners.addresses
    listeners.set_balance("per-slot", 3)
    assert listeners.addresses == before
    assert listeners.shared_ids() == (2,)
    assert listeners.ids_for(0) == (0, 1)
    assert len(listeners.ids_for(1)) == len(listeners.ids_for(2)) == 2
    assert len(set(listeners.ids())) == 7
    assert listeners.fds((0, 2)) == [listeners.socket(0).fileno(), listeners.socket(2).fileno()]
    assert listeners.ids_for(3) == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_new_connections_go_where_they_are_steered(cleanup: ExitStack, host: str) -> None:
    """Only the listeners of the steered-to slots get connections; of all when there are none."""
    listeners = open_listeners(cleanup, TcpAddress(host, 0))
    port = port_of(listeners)
    listeners.set_balance("per-slot", 4)
    ids = [listeners.ids_for(slot)[0] for slot in range(4)]
    connect(cleanup, (host, port), 8)
    assert waiting(listeners) == {ids[0]: 8}, "before the first steering slot 0 gets all"
    for slot in range(4):
        listeners.steer({slot})
        connect(cleanup, (host, port), 4)
        assert waiting(listeners) == {ids[slot]: 4}
    listeners.steer({1, 3, 17})
    connect(cleanup, (host, port), 64)
    assert set(waiting(listeners)) == {ids[1], ids[3]}
    listeners.steer(set())
    connect(cleanup, (host, port), 64)
    assert set(waiting(listeners)) == set(ids)


async def test_the_order_is_kept_when_a_middle_listener_goes(cleanup: ExitStack) -> None:
    """After slots went and came, each slot still gets exactly what is steered to it."""
    listeners = open_listeners(cleanup, ANY_PORT)
    where = ("127.0.0.1", port_of(listeners))
    listeners.set_balance("per-slot", 5)
    held = socket.socket(fileno=os.dup(listeners.fds(listeners.ids_for(1))[0]))
    cleanup.callback(held.close)  # as a worker that has not let go of it yet
    for gone in (1, 3):
        listeners.retire(gone)
        listeners.drop(gone)
    for slots in ((0, 2, 4), (0, 1, 2, 3, 4)):
        if len(slots) == 5:
            listeners.ensure_slots(5)
        for slot in slots:
            listeners.steer({slot})
            connect(cleanup, where, 3)
            assert waiting(listeners) == {listeners.ids_for(slot)[0]: 3}


async def test_connections_spread_evenly() -> None:
    """The busiest of 4 slots gets at most 1.35 times its share of 64 connections, in the median."""
    shares = []
    for _ in range(21):
        with ExitStack() as stack:
            listeners = open_listeners(stack, ANY_PORT)
            listeners.set_balance("per-slot", 4)
            listeners.steer(range(4))
            connect(stack, ("127.0.0.1", port_of(listeners)), 64)
            counts = waiting(listeners)
            assert sum(counts.values()) == 64
            shares.append(max(counts.values()) / 16)
    assert statistics.median(shares) <= 1.35


async def test_a_retired_slot_is_quiet_once_its_queue_was_emptied(cleanup: ExitStack) -> None:
    """A retiring listener gets nothing new, and is told of as quiet only when nobody waits."""
    quiet: list[int] = []
    listeners = Listeners.open(
        asyncio.get_running_loop(), [ANY_PORT], backlog=100, on_quiet=quiet.append
    )
    cleanup.callback(listeners.close)
    where = ("127.0.0.1", port_of(listeners))
    listeners.set_balance("per-slot", 3)
    listeners.steer({1})
    connect(cleanup, where, 2)
    connect_to = listeners.ids_for(1)[0]
    listeners.retire(1)
    listeners.retire(2)
    await until(lambda: 2 in quiet)
    assert quiet == [2], "two clients still wait at slot 1"
    assert listeners.retiring == {1, 2}
    connect(cleanup, where, 2)
    assert waiting(listeners) == {connect_to: 2, listeners.ids_for(0)[0]: 2}
    await until(lambda: 1 in quiet)
    listeners.drop(1)
    listeners.drop(2)
    assert listeners.retiring == frozenset()
    assert listeners.ids() == (0,)


async def test_a_slot_that_returns_keeps_its_listener(cleanup: ExitStack) -> None:
    """Scaling up again while a listener retires takes it back into service."""
    listeners = open_listeners(cleanup, ANY_PORT)
    listeners.set_balance("per-slot", 2)
    before = listeners.ids_for(1)
    listeners.retire(1)
    listeners.ensure_slots(2)
    assert listeners.retiring == frozenset()
    assert listeners.ids_for(1) == before
    listeners.steer({1})
    connect(cleanup, ("127.0.0.1", port_of(listeners)), 3)
    assert waiting(listeners) == {before[0]: 3}


async def test_slots_can_share_again(cleanup: ExitStack) -> None:
    """Back to shared balance, the first socket is everyone's and the others retire."""
    listeners = open_listeners(cleanup, ANY_PORT)
    listeners.set_balance("per-slot", 3)
    listeners.steer({2})
    retiring = [*listeners.ids_for(1), *listeners.ids_for(2)]
    listeners.set_balance("shared", 3)
    assert listeners.shared_ids() == (0,)
    assert listeners.retiring == {1, 2}
    assert [*listeners.ids_for(1), *listeners.ids_for(2)] == retiring, "siblings empty their queues"
    connect(cleanup, ("127.0.0.1", port_of(listeners)), 5)
    assert waiting(listeners) == {0: 5}
    listeners.drop(1)
    listeners.drop(2)
    assert listeners.ids() == (0,)


async def test_closing_frees_the_port_at_once(cleanup: ExitStack) -> None:
    """After close the same port can be bound again, past connections or not."""
    listeners = open_listeners(cleanup, ANY_PORT)
    port = port_of(listeners)
    connect(cleanup, ("127.0.0.1", port), 3)
    waiting(listeners)
    listeners.close()
    again = wait_until(lambda: open_listeners(cleanup, TcpAddress("127.0.0.1", port)))
    again.set_balance("per-slot", 2)
    assert len(again.ids()) == 2


async def test_a_removed_address_is_emptied_before_it_closes(
    cleanup: ExitStack, tmp_path: Path
) -> None:
    """Another bind opens first, what waits at the removed one is still served, the rest stays."""
    path = UnixAddress(str(tmp_path / "app.sock"))
    listeners = open_listeners(cleanup, ANY_PORT, path)
    listeners.set_balance("per-slot", slots=2)
    stays, goes = listeners.addresses[1], port_of(listeners)
    kept = {id_ for id_, label in listeners.labels().items() if label == stays}
    first = socket.create_connection(("127.0.0.1", goes), timeout=10)
    cleanup.callback(first.close)
    other = TcpAddress("127.0.0.2", 0)
    listeners.rebind((path, other), backlog=100)
    assert listeners.addresses[0] == stays
    connect(cleanup, ("127.0.0.2", port_of(listeners, 1)), 1)
    # The client that waited at the old one is found by those that accept, and not lost.
    accepted = [*listeners.ids_for(0), *listeners.ids_for(1), *listeners.shared_ids()]
    assert set(accepted) == set(listeners.ids())
    assert kept <= set(accepted)
    assert sum(waiting(listeners).values()) == 2
    await until(lambda: listeners.removable, what="nobody waits at the removed address")
    accepted = [*listeners.ids_for(0), *listeners.ids_for(1), *listeners.shared_ids()]
    assert len(accepted) == 3  # two slots of the new address, and the path
    listeners.drop_removed()
    assert not listeners.removable
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", goes), timeout=10)


async def test_a_removed_address_hears_no_new_client(cleanup: ExitStack) -> None:
    """A client that comes while the removed address is emptied is refused, never half served."""
    listeners = open_listeners(cleanup, ANY_PORT)
    port = port_of(listeners)
    listeners.rebind((TcpAddress("127.0.0.2", 0),), backlog=100)
    late = socket.socket()
    cleanup.callback(late.close)
    late.setblocking(False)
    assert late.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
    await until(lambda: listeners.removable, what="nobody waits at the removed address")
    assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    listeners.drop_removed()
    await until(
        lambda: late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED,
        what="its next try is refused",
    )


async def test_a_bind_that_fails_changes_nothing(cleanup: ExitStack) -> None:
    """When a new address cannot be had, the old ones go on and none of the new ones is open."""
    listeners = open_listeners(cleanup, ANY_PORT)
    before = listeners.addresses
    other = open_listeners(cleanup, TcpAddress("127.0.0.2", 0))
    taken = TcpAddress("127.0.0.2", port_of(other))
    free = TcpAddress("127.0.0.3", port_of(other))
    with pytest.raises(ListenError, match=str(taken)):
        listeners.rebind((free, taken), backlog=100)
    assert listeners.addresses == before
    connect(cleanup, ("127.0.0.1", port_of(listeners)), 1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((free.host, free.port), timeout=10)


async def test_a_bind_can_be_taken_back(cleanup: ExitStack, tmp_path: Path) -> None:
    """An address that comes back while it is emptied serves new clients again, all of them."""
    path = UnixAddress(str(tmp_path / "app.sock"))
    other = TcpAddress("127.0.0.2", 0)
    listeners = open_listeners(cleanup, ANY_PORT, path)
    listeners.set_balance("per-slot", slots=2)
    before = listeners.addresses
    listeners.rebind((other,), backlog=100)
    listeners.rebind((ANY_PORT, path), backlog=100)
    assert listeners.addresses == before
    connect(cleanup, ("127.0.0.1", port_of(listeners)), 4)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path.path)
        assert sum(waiting(listeners).values()) == 5
    await until(lambda: listeners.removable, what="nobody waits at what went")
    # From the end too: released by all, but not closed yet.
    listeners.rebind((path,), backlog=100)
    await until(lambda: len(listeners.ids()) == 1, what="nobody waits there")
    listeners.rebind((ANY_PORT, path), backlog=100)
    listeners.drop_removed()
    connect(cleanup, ("127.0.0.1", port_of(listeners)), 1)
    assert sum(waiting(listeners).values()) == 1
    assert listeners.addresses == before
