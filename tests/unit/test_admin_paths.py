"""Where admin sockets may be."""

import os
import socket
from pathlib import Path

import pytest

from drumd.supervisor.admin.paths import Place, PlaceError, discover, look_at, places, prepare


def test_places_are_tried_in_order() -> None:
    """systemd's directory comes first, then /run/drumd, the session's, one in /tmp."""
    found = places({"RUNTIME_DIRECTORY": "/run/unit:/run/other", "XDG_RUNTIME_DIR": "/run/user/7"})
    assert [str(place.directory) for place in found] == [
        "/run/unit",
        "/run/drumd",
        "/run/user/7/drumd",
        f"/tmp/drumd-{os.getuid()}",
    ]
    assert [place.private for place in found] == [False, False, True, True]


def test_tmpdir_comes_before_tmp() -> None:
    """A TMPDIR of the environment is tried before /tmp, where drumctl looks in any case."""
    found = [str(place.directory) for place in places({"TMPDIR": "/scratch"})]
    assert found[1:] == [f"/scratch/drumd-{os.getuid()}", f"/tmp/drumd-{os.getuid()}"]
    assert len(places({"TMPDIR": "/tmp"})) == 2


def test_private_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    """A private directory is made with mode 0700, and accepted as such the next time."""
    place = Place(tmp_path / "drumd-1", private=True)
    prepare(place)
    prepare(place)
    assert place.directory.stat().st_mode & 0o777 == 0o700


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    """A symbolic link that somebody put there is not followed."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "drumd-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PlaceError, match="no directory"):
        prepare(Place(tmp_path / "drumd-1", private=True))


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    """A private directory that is open to others is refused, with the command that closes it."""
    (tmp_path / "drumd-1").mkdir()
    (tmp_path / "drumd-1").chmod(0o755)
    with pytest.raises(PlaceError, match="chmod 0700"):
        prepare(Place(tmp_path / "drumd-1", private=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a directory away: sudo pytest")
def test_somebody_elses_directory_is_refused(tmp_path: Path) -> None:
    """A directory of that name that belongs to another user is refused."""
    (tmp_path / "drumd-1").mkdir(mode=0o700)
    os.chown(tmp_path / "drumd-1", 65534, 65534)
    with pytest.raises(PlaceError, match="belongs to uid 65534"):
        prepare(Place(tmp_path / "drumd-1", private=True))


def test_a_missing_directory_is_not_made_for_everybody(tmp_path: Path) -> None:
    """A shared directory that is not there is refused, and not created."""
    with pytest.raises(PlaceError, match="No such file"):
        prepare(Place(tmp_path / "none", private=False))
    assert not (tmp_path / "none").exists()


def test_discovery_tells_live_from_stale(tmp_path: Path) -> None:
    """Of the sockets in a place, the live ones come with their pid, the stale ones as such."""
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as stale:
        live.bind(str(tmp_path / "admin.sock"))
        live.listen()
        stale.bind(str(tmp_path / "admin-2.sock"))
        (tmp_path / "plain.sock").touch()
        found = {
            item.path.name: item
            for item in discover({"RUNTIME_DIRECTORY": str(tmp_path)})
            if item.path.parent == tmp_path
        }
    assert set(found) == {"admin.sock", "admin-2.sock"}
    assert (found["admin.sock"].answer, found["admin.sock"].pid) == ("live", os.getpid())
    assert found["admin-2.sock"].answer == "stale"


def test_a_socket_that_does_not_accept_is_live(tmp_path: Path) -> None:
    """A daemon whose queue is full is there, however busy it is."""
    path = tmp_path / "admin.sock"
    clients = []
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            clients.append(client)
            client.connect_ex(str(path))
        assert look_at(path).answer == "live"
    for client in clients:
        client.close()
