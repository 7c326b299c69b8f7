"""The admin socket: claimed, refused, replaced, removed."""

import grp
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from drumd.supervisor.admin.socket import (
    AdminSocket,
    AdminSocketError,
    SocketTakenError,
    claim,
)

HOLDER = """
import sys
from pathlib import Path
from drumd.supervisor.admin.socket import AdminSocket
held = AdminSocket.claim(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def _holder(path: Path) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_others_cannot_connect(tmp_path: Path) -> None:
    """The socket has mode 0660 whatever the umask, and its lock file is its owner's alone."""
    before = os.umask(0)
    try:
        admin = AdminSocket.claim(tmp_path / "admin.sock")
    finally:
        os.umask(before)
    assert admin.path.stat().st_mode & 0o777 == 0o660
    assert (tmp_path / "admin.sock.lock").stat().st_mode & 0o777 == 0o600
    admin.close()
    assert list(tmp_path.iterdir()) == []


def test_strict_umask_leaves_the_group_in(tmp_path: Path) -> None:
    """A umask of 077 does not lock the socket's group out."""
    before = os.umask(0o077)
    try:
        admin = AdminSocket.claim(tmp_path / "admin.sock")
    finally:
        os.umask(before)
    assert admin.path.stat().st_mode & 0o777 == 0o660
    admin.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file to a group: sudo pytest")
def test_the_configured_group_owns_the_socket(tmp_path: Path) -> None:
    """The socket belongs to the group whose members may operate the daemon."""
    group = grp.getgrgid(65534).gr_name
    admin = AdminSocket.claim(tmp_path / "admin.sock", group)
    assert admin.path.stat().st_gid == 65534
    admin.close()


def test_unknown_group_is_refused_by_name(tmp_path: Path) -> None:
    """A group that does not exist is named in the refusal."""
    with pytest.raises(AdminSocketError, match="no group 'no-such-group'"):
        AdminSocket.claim(tmp_path / "admin.sock", "no-such-group")


def test_a_live_socket_is_refused_by_name(tmp_path: Path) -> None:
    """A second daemon on a socket is refused; the message names the pid and what to do."""
    path = tmp_path / "admin.sock"
    holder = _holder(path)
    try:
        with pytest.raises(SocketTakenError) as caught:
            AdminSocket.claim(path)
    finally:
        holder.communicate(timeout=30)
    said = str(caught.value)
    assert said.startswith(f"cannot use admin socket {path}: drumd pid {holder.pid} answers there")
    assert "--admin-socket" in said


def test_a_killed_daemons_socket_is_replaced(tmp_path: Path) -> None:
    """After a kill -9 the socket is still there, and the next daemon replaces it."""
    path = tmp_path / "admin.sock"
    holder = _holder(path)
    holder.kill()
    holder.communicate(timeout=30)
    assert path.exists()
    admin = AdminSocket.claim(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    admin.close()


def test_another_programs_socket_is_not_replaced(tmp_path: Path) -> None:
    """A live socket of a program that knows no lock file is refused too."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(SocketTakenError, match=f"pid {os.getpid()} answers"):
            AdminSocket.claim(path)
    assert path.exists()


def test_a_plain_file_is_not_removed(tmp_path: Path) -> None:
    """Something that is no socket is left where it is."""
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(AdminSocketError, match="no socket is there"):
        AdminSocket.claim(path)
    assert path.read_text() == "precious"


def test_only_our_own_socket_is_removed(tmp_path: Path) -> None:
    """A socket that somebody put in place of ours stays when we close."""
    path = tmp_path / "admin.sock"
    admin = AdminSocket.claim(path)
    path.unlink()
    path.write_text("not ours")
    admin.close()
    assert path.read_text() == "not ours"


def test_closing_twice_leaves_the_next_daemon_alone(tmp_path: Path) -> None:
    """A second close does not touch the socket of the daemon that came after."""
    path = tmp_path / "admin.sock"
    first = AdminSocket.claim(path)
    first.close()
    second = AdminSocket.claim(path)
    first.close()
    assert {entry.name for entry in tmp_path.iterdir()} == {"admin.sock", "admin.sock.lock"}
    with pytest.raises(SocketTakenError):
        AdminSocket.claim(path)
    second.close()


def test_of_many_starts_at_once_one_wins(tmp_path: Path) -> None:
    """Processes that start at the same moment do not take the socket from each other."""
    path = tmp_path / "admin.sock"
    code = HOLDER.replace("held = ", "try:\n    held = ", 1).replace(
        'print("held"', 'except Exception:\n    held = None\nprint("held" if held else "refused"', 1
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    said = [racer.stdout.readline().strip() for racer in racers if racer.stdout]
    for racer in racers:
        racer.communicate(timeout=30)
    assert sorted(said) == ["held", *["refused"] * 5]


def test_a_path_that_is_too_long_is_refused_with_the_limit(tmp_path: Path) -> None:
    """A path that the kernel does not take is refused with its limit, before anything is made."""
    with pytest.raises(AdminSocketError, match="more than 107 bytes"):
        AdminSocket.claim(tmp_path / ("x" * 108))


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """An explicit socket in a directory that does not exist is an error that says so."""
    path = tmp_path / "none" / "admin.sock"
    with pytest.raises(AdminSocketError, match=f"cannot use admin socket {path}: No such file"):
        claim(str(path))


def test_the_second_daemon_of_a_user_takes_the_next_name(tmp_path: Path) -> None:
    """Without an explicit path a second daemon gets a socket of its own in the same place."""
    environ = {"RUNTIME_DIRECTORY": str(tmp_path)}
    first = claim(None, environ=environ)
    second = claim(None, environ=environ)
    assert [first.path.name, second.path.name] == ["admin.sock", "admin-2.sock"]
    first.close()
    third = claim(None, environ=environ)
    assert third.path.name == "admin.sock"
    second.close()
    third.close()


def test_the_environment_names_the_socket(tmp_path: Path) -> None:
    """DRUMD_SOCKET is as good as an explicit path, which wins over it."""
    environ = {"DRUMD_SOCKET": str(tmp_path / "named.sock")}
    named = claim(None, environ=environ)
    explicit = claim(str(tmp_path / "explicit.sock"), environ=environ)
    assert [named.path.name, explicit.path.name] == ["named.sock", "explicit.sock"]
    named.close()
    explicit.close()


NOWHERE = """
import os
from drumd.supervisor.admin import paths
from drumd.supervisor.admin.socket import NoPlaceError, claim
os.setgroups([]); os.setgid(65534); os.setuid(65534)
paths.SYSTEM_DIRECTORY = paths.Path("/proc/drumd")
try:
    claim(None, environ={"XDG_RUNTIME_DIR": "/proc", "TMPDIR": "/sys"})
except NoPlaceError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount: sudo pytest")
def test_without_a_writable_place_there_is_none() -> None:
    """Where nothing can be written (a read-only root, no HOME) each place and its why are told."""
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind /tmp /tmp && mount -o remount,ro,bind /tmp && exec "$@"',
            "sh",
            sys.executable,
            "-c",
            NOWHERE,
        ],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("cannot keep an admin socket anywhere: ")
    assert "/tmp/drumd-65534: Read-only file system" in done.stdout
    assert done.stderr == ""
