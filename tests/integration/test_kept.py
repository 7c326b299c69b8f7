"""What is kept over a re-exec, part by part: written, read, and gone on with.

The exec is stood in for by what it does to an object: its fds stay, with their numbers, and
everything else of it is gone.
"""

import asyncio
import json
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import TypeAdapter

from drumd.supervisor.admin.desk import Desk, KeptDesk
from drumd.supervisor.admin.operator import DaemonTask, Operation
from drumd.supervisor.admin.socket import AdminSocket, KeptAdminSocket, SocketTakenError
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import OperationState
from drumd.supervisor.fds import fds_in
from drumd.supervisor.observe.journal import Journal, KeptJournal
from drumd.supervisor.observe.logging import KeptLogs, Logs
from drumd.supervisor.observe.metricfiles import KeptMetricFiles, MetricFiles
from drumd.supervisor.pool.leases import Leases
from drumd.supervisor.pool.tally import KeptTally, Tally
from drumd.supervisor.processes.control import ControlEnd, KeptControl
from drumd.supervisor.processes.pipes import KeptPipe, Line, LinePipe
from drumd.supervisor.sockets.binding import KeptListeners, Listeners
from drumd.wire.address import TcpAddress, UnixAddress
from drumd.wire.messages import Accept, Drain, Ready, WorkerMessage, decode, encode
from drumd.wire.records import Record
from tests.waiting import until

Kept = TypeVar("Kept")


def carried(kind: type[Kept], kept: object, end: Callable[[], object] = lambda: None) -> Kept:
    """Return what another program reads of `kept`, its writer being gone (`end`)."""
    adapter: TypeAdapter[Kept] = TypeAdapter(kind)
    text = json.dumps(adapter.dump_python(kept, mode="json"))  # type: ignore[arg-type]
    copies = {fd: os.dup(fd) for fd in fds_in(kept)}
    end()
    for fd, copy in copies.items():
        os.dup2(copy, fd)
        os.close(copy)
    read = adapter.validate_python(json.loads(text))
    assert read == kept
    assert sorted(fds_in(read)) == sorted(copies)
    return read


def ask(stack: ExitStack, address: Any) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    client = stack.enter_context(socket.socket(family))
    client.settimeout(30)
    client.connect(address)
    return client


async def test_listeners_go_on_with_groups_and_steering() -> None:
    """Sockets, ids, slots and steering are as before: who connects gets to the steered slot."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        before = Listeners.open(loop, [TcpAddress("127.0.0.1", 0)], backlog=100)
        before.set_balance("per-slot", 3)
        before.steer({2})
        port = int(before.addresses[0].rpartition(":")[2])
        ask(stack, ("127.0.0.1", port))
        kept = carried(KeptListeners, before.keep(), before.close)
        after = Listeners.resume(loop, kept)
        stack.callback(after.close)

        assert after.addresses == (f"127.0.0.1:{port}",)
        assert after.balance == "per-slot"
        assert after.keep() == kept
        ask(stack, ("127.0.0.1", port))
        assert [after.depth(id_) for id_ in after.ids_for(2)] == [2]
        after.steer({0})
        ask(stack, ("127.0.0.1", port))
        assert [after.depth(id_) for id_ in after.ids_for(0)] == [1]
        after.ensure_slots(4)
        new_id = after.ids_for(3)[0]
        assert new_id not in {id_ for end in kept.endpoints for id_ in end.sockets}
        after.steer({3})
        ask(stack, ("127.0.0.1", port))
        assert after.depth(new_id) == 1


async def test_a_retiring_listener_goes_on_retiring() -> None:
    """A slot's listener that was on its way out is told to be quiet by the new program."""
    loop = asyncio.get_running_loop()
    quiet: list[int] = []
    before = Listeners.open(loop, [TcpAddress("127.0.0.1", 0)], backlog=100)
    before.set_balance("per-slot", 2)
    before.retire(1)
    kept = carried(KeptListeners, before.keep(), before.close)
    after = Listeners.resume(loop, kept, on_quiet=quiet.append)
    try:
        assert after.retiring == {1}
        await until(lambda: quiet, what="the quiet slot")
        after.drop(1)
        assert after.slots == {0}
    finally:
        after.close()


async def test_a_unix_socket_keeps_its_file(tmp_path: Path) -> None:
    """The file is the new program's: it serves there, and removes it at its end."""
    loop = asyncio.get_running_loop()
    path = tmp_path / "web.sock"
    before = Listeners.open(loop, [UnixAddress(str(path))], backlog=100)
    kept = before.keep()
    assert kept.endpoints[0].file is not None
    read = carried(KeptListeners, kept)
    for fd in fds_in(kept):
        os.set_inheritable(fd, False)
    after = Listeners.resume(loop, read)
    with ExitStack() as stack:
        ask(stack, str(path))
        assert after.addresses == (f"unix:{path}",)
    after.close()
    assert not path.exists()
    for id_ in before.ids():
        before.socket(id_).detach()  # the fd was one and the same


async def test_what_a_worker_has_not_read_is_sent_by_the_new_program() -> None:
    """Messages that wait for a stuck worker, and their fds, arrive once and in order."""
    loop = asyncio.get_running_loop()
    ours, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker.settimeout(30)
    said: list[WorkerMessage] = []
    before = ControlEnd(loop, ours, said.append, lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as listener, worker:
        filler = 0
        while not before.backlog:  # the worker reads nothing
            filler += 1
            before.send(Accept(epoch=filler, listeners=(1,)), [listener.fileno()])
        before.send(Drain(deadline=5.0, linger=1.0))
        worker.send(encode(Ready()))
        kept = before.keep()
        assert kept is not None
        assert len(kept.queue) == 2
        read = carried(KeptControl, kept, before.close)
        after = ControlEnd(loop, socket.socket(fileno=read.fd), said.append, lambda: None)
        after.resume(read.queue)
        got = []
        for _ in range(filler + 1):
            packet, fds, _, _ = await asyncio.to_thread(socket.recv_fds, worker, 65536, 250)
            got.append(decode(packet))
            for fd in fds:
                os.close(fd)
        assert got == [
            *(Accept(epoch=n, listeners=(1,)) for n in range(1, filler + 1)),
            Drain(deadline=5.0, linger=1.0),
        ]
        await until(lambda: said == [Ready()], what="what the worker said meanwhile")
        after.close()


async def test_a_line_that_was_begun_is_ended() -> None:
    """Half a line, bytes that are no text among it, is one line with what comes later."""
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    lines: list[Line] = []
    before = LinePipe(loop, reader, lines.extend)
    os.write(writer, b"whole\nhalf \xc3")
    await until(lambda: lines, what="the first line")
    kept = before.keep()
    assert kept is not None

    def forget() -> None:
        loop.remove_reader(reader)
        os.close(reader)

    read = carried(KeptPipe, kept, forget)
    os.write(writer, b"\xa4 and whole\n")
    after = LinePipe(loop, read.fd, lines.extend, rest=read.rest)
    await until(lambda: len(lines) == 2, what="the second line")
    assert [line.text for line in lines] == ["whole", "half ä and whole"]
    os.close(writer)
    await until(lambda: after.closed, what="the end")
    assert after.keep() is None


def test_the_journal_goes_on_with_its_numbers() -> None:
    """Entries, and the number of the next one, are as before; a smaller journal keeps the last."""
    before = Journal(10)
    for number in range(14):
        extra: dict[str, int | float | str | None] = {"whole": 1, "share": 0.5, "text": "1"}
        before.record(Fact(event=Happened.DAEMON_NOTICE, reason=f"no {number}", extra=extra))
    kept = carried(KeptJournal, before.keep())
    after = Journal(5)
    after.resume(kept)
    assert [entry.seq for entry in after.tail(10).entries] == [10, 11, 12, 13, 14]
    assert after.since(3).lost == 6
    assert after.record(Fact(event=Happened.DAEMON_NOTICE, reason="new")).seq == 15


def test_operations_can_still_be_asked_for() -> None:
    """Operations keep their ids, and the next id is a new one."""
    before = Desk()
    operation = Operation(
        id=before.new_id("drumd"),
        pool="",
        kind=DaemonTask.RE_EXEC,
        state=OperationState.RUNNING,
        reason="goes on",
    )
    before.put(operation)
    after = Desk()
    after.resume(carried(KeptDesk, before.keep()))
    assert after.get("drumd-1") == operation
    assert after.new_id("web") == "web-2"


def test_the_admin_socket_stays_held(tmp_path: Path) -> None:
    """The lock is held on, so that no second daemon gets the name; its end removes the file."""
    path = tmp_path / "admin.sock"
    before = AdminSocket.claim(path)
    kept = carried(KeptAdminSocket, before.keep())
    before.listener.detach()
    after = AdminSocket.resume(kept)
    with pytest.raises(SocketTakenError):
        AdminSocket.claim(path)
    with ExitStack() as stack:
        ask(stack, str(path))
    after.close()
    assert list(tmp_path.iterdir()) == []


def test_metric_files_stay_locked(tmp_path: Path) -> None:
    """The directory goes on; nobody takes it for one that was left behind."""
    before = MetricFiles.create({"TMPDIR": str(tmp_path)})
    after = MetricFiles.resume(carried(KeptMetricFiles, before.keep()))
    assert after.home == before.home
    assert after.home is not None
    assert after.directory("web", 1) == after.home / "web" / "1"
    after.remove()
    assert not after.home.exists()


def test_counters_go_on_by_name() -> None:
    """What a pool has counted goes on, even where another version orders it in another way."""
    before = Tally()
    before.fold(Record(started=7, finished=6, durations=(6,) + (0,) * 13))
    before.exits["crash"] += 2
    before.started(0.3)
    kept = carried(KeptTally, before.keep())
    after = Tally()
    after.resume(kept)
    assert (after.folded, after.exits) == (before.folded, before.exits)
    assert after.start_durations == before.start_durations
    assert kept.counters["started"] == 7


def test_leases_in_use_are_not_given_out() -> None:
    """A lease of a worker that lives on is free only after its end."""
    before = Leases(4)
    taken = [before.take() for _ in range(3)]
    before.give_back(taken[1])
    after = Leases(4)
    after.resume(before.taken)
    assert [after.take(), after.take()] == [1, 3]
    after.give_back(0)
    assert after.take() == 0


def test_log_lines_that_wait_are_written_by_the_new_program() -> None:
    """What a stuck receiver has not taken is written later, and what was lost is counted."""
    reader, writer = os.pipe()
    os.write(writer, b"x" * 65_536)  # it is full: the first line blocks the writer
    before = Logs(writer)
    before.write("info", "lost in the middle")
    assert not before.flush(0.05)
    before.write("info", "waits")
    kept = carried(KeptLogs, before.keep())
    assert kept.sink.dropped == 1
    other_reader, other_writer = os.pipe()
    after = Logs(other_writer)
    after.resume(kept)
    assert after.flush()
    assert os.read(other_reader, 100) == b"waits\n"
    assert after.dropped == 1
    os.read(reader, 65_536)
    for logs in (before, after):
        logs.close()
    for fd in (reader, writer, other_reader, other_writer):
        os.close(fd)
