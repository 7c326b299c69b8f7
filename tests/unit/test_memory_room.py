"""How many further workers fit: from the kernel's figures to an answer in words."""

import os
from pathlib import Path

import pytest

from drumd.supervisor.core.model import Room
from drumd.supervisor.pool.memory import Reading, room_of
from drumd.supervisor.processes.memory_room import (
    Free,
    anonymous_memory,
    cgroup_leaves,
    free_memory,
    in_words,
    private_memory,
)

MB = 10**6
FREE = Free(1000 * MB, "the machine")


def cgroup(directory: Path, **files: str) -> Path:
    for name, content in files.items():
        (directory / name.replace("_", ".", 1)).write_text(content)
    return directory


def test_a_worker_takes_what_the_largest_one_takes() -> None:
    """Room is free memory divided by the private memory of the largest worker there is."""
    reading = Reading(ready=[100 * MB, 300 * MB], free=FREE)
    assert room_of(reading, template=False) == Room(
        workers=3, why="1.0 GB left by the machine, a worker takes 300 MB"
    )


def test_a_template_takes_its_share_first() -> None:
    """Where a new template comes first, it takes as much as the one that is there."""
    reading = Reading(ready=[100 * MB], templates=[650 * MB], free=FREE)
    room = room_of(reading, template=True)
    assert room is not None
    assert room.workers == 3
    assert "a template takes 650 MB" in room.why
    room = room_of(Reading(ready=[600 * MB], free=FREE), template=True)
    assert room is not None
    assert room.workers == 0


def test_what_starts_will_grow() -> None:
    """A worker that starts will take as much as the others, and what it has not yet is not free."""
    reading = Reading(ready=[300 * MB], starting=[100 * MB, 300 * MB], free=FREE)
    room = room_of(reading, template=False)
    assert room is not None
    assert room.workers == 2
    assert "200 MB of it for those that start" in room.why


@pytest.mark.parametrize("reading", [Reading(free=FREE), Reading(ready=[100 * MB])])
def test_without_figures_nothing_is_said(reading: Reading) -> None:
    """Without a worker to go by, or any known limit, there is no room to tell of."""
    assert room_of(reading, template=False) is None


def test_a_cgroup_leaves_its_limit_less_what_is_used(tmp_path: Path) -> None:
    """File pages that nobody has touched lately do not count as used."""
    cgroup(
        tmp_path,
        memory_max=f"{500 * MB}\n",
        memory_current=f"{400 * MB}\n",
        memory_stat=f"anon {300 * MB}\ninactive_file {50 * MB}\nactive_file 7\n",
    )
    left = cgroup_leaves(tmp_path)
    assert left is not None
    assert left.amount == 150 * MB
    assert "limit 500 MB" in left.bound


def test_a_cgroup_without_a_limit_bounds_nothing(tmp_path: Path) -> None:
    """`max` is no limit, and neither is a cgroup that cannot be read."""
    assert cgroup_leaves(tmp_path) is None
    cgroup(tmp_path, memory_max="max\n", memory_current="1\n", memory_stat="")
    assert cgroup_leaves(tmp_path) is None


def test_an_exceeded_limit_leaves_nothing(tmp_path: Path) -> None:
    """Use above the limit, as right after the limit was lowered, leaves 0 and not less."""
    cgroup(tmp_path, memory_max="10\n", memory_current="20\n", memory_stat="inactive_file 3\n")
    left = cgroup_leaves(tmp_path)
    assert left is not None
    assert left.amount == 0


def test_this_process_has_private_memory() -> None:
    """A process's own pages count as private, and what it has taken as anonymous."""
    before = private_memory(os.getpid())
    kept = bytearray(b"x" * (30 * MB))
    after = private_memory(os.getpid())
    anonymous = anonymous_memory(os.getpid())
    assert before is not None
    assert after is not None
    assert anonymous is not None
    assert after - before > 20 * MB
    assert anonymous > len(kept)
    assert private_memory(1 << 22) is None


def test_the_machine_bounds_what_is_free() -> None:
    """Free memory never exceeds what the kernel calls available."""
    free = free_memory()
    assert free is not None
    assert 0 < free.amount < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("amount", "words"), [(0, "0 MB"), (120 * MB, "120 MB"), (1500 * MB, "1.5 GB")]
)
def test_amounts_are_said_for_people(amount: int, words: str) -> None:
    """Bytes are said in MB, from 1 GB on in GB."""
    assert in_words(amount) == words
