"""The state document: what it carries, and what it refuses to read."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drumd.config.loading import Loaded, load
from drumd.supervisor.admin.desk import Desk
from drumd.supervisor.announcer import KeptAnnouncer
from drumd.supervisor.core.facts import Fact, Happened
from drumd.supervisor.core.model import (
    Operation,
    OperationKind,
    Policy,
    Pool,
    Rollout,
    Rung,
    Scaling,
    Slot,
    SlotState,
    Worker,
    WorkerState,
)
from drumd.supervisor.fds import Fd, fds_in
from drumd.supervisor.holdings import KeptHoldings
from drumd.supervisor.observe.journal import Journal
from drumd.supervisor.observe.logging import KeptLogs
from drumd.supervisor.observe.metricfiles import KeptMetricFiles
from drumd.supervisor.observe.sink import KeptSink
from drumd.supervisor.reexec.document import (
    MAJOR,
    Errand,
    KeptConfig,
    KeptDaemon,
    decode,
    encode,
    from_memory,
    to_memory,
)
from drumd.supervisor.reexec.errors import ReexecError
from drumd.supervisor.reexec.program import Program
from drumd.supervisor.signals import KeptSignals

PROGRAM = Program(
    command=("/opt/current/bin/drumd", "run"),
    arguments=("run",),
    version="1.0",
    interpreter="/opt/1/bin/python",
    package="/opt/1/lib",
)

POOL = Pool(
    name="web",
    policy=Policy(scaling=Scaling(least=1, most=4)),
    size=2,
    up=True,
    slots=(Slot(number=0, state=SlotState.BACKOFF, retry_at=7.5, crashes=(1.0, 2.0)),),
    workers={
        12: Worker(
            attempt=12,
            slot=0,
            generation=3,
            state=WorkerState.STOPPING,
            since=5.25,
            spawned_at=1.0,
            deadline=None,
            reason="it is time",
            ladder=(Rung.TERMINATE, Rung.KILL),
        )
    },
    rollout=Rollout(generation=4, preload=True, operation="web-9"),
    operations=(Operation(id="web-9", kind=OperationKind.RELOAD, old=frozenset({3, 12})),),
)


def loaded(tmp_path: Path) -> Loaded:
    flags: dict[str, object] = {
        "pools.web.app": "app:app",
        "pools.web.bind": ["127.0.0.1:0"],
        "pools.web.app_dir": str(tmp_path),
        "pools.web.grace_period": "7s",
    }
    (tmp_path / "drumd.toml").write_text('[pools.web.environment]\nTOKEN = "very secret"\n')
    return load(flags, {}, tmp_path / "drumd.toml")


def state(config: KeptConfig) -> KeptDaemon:
    journal = Journal(10)
    journal.record(Fact(event=Happened.DAEMON_NOTICE, reason="odd name \udc80"))
    return KeptDaemon(
        errand=Errand(operation="drumd-1", began=time.monotonic()),
        config=config,
        holdings=KeptHoldings(
            instance="1-abc",
            started_at=1.5,
            admin_socket=None,
            public=(Fd(31), Fd(30)),
            listeners={},
            board=Fd(7),
            files=KeptMetricFiles(None, None),
        ),
        pools={"web": POOL},
        hands={},
        leases=frozenset({0, 5}),
        journal=journal.keep(),
        desk=Desk().keep(),
        announcer=KeptAnnouncer(status="fine", ready_told=True),
        signals=KeptSignals(had_terminal=False, hung_up=False),
        logs=KeptLogs(KeptSink(), 0),
    )


@pytest.fixture
def kept(tmp_path: Path) -> KeptDaemon:
    return state(KeptConfig.of(loaded(tmp_path)))


def changed(kept: KeptDaemon, change: Any) -> bytes:
    document = json.loads(encode(kept, PROGRAM))
    change(document)
    return json.dumps(document).encode()


def test_everything_is_read_as_it_was(kept: KeptDaemon) -> None:
    """Pools, numbers, sets and instants come back equal, and so do the fds."""
    document = decode(encode(kept, PROGRAM))
    assert document.program == PROGRAM
    assert document.state.pools == {"web": POOL}
    assert document.state.holdings == kept.holdings
    assert document.state.errand == kept.errand
    assert document.state.leases == {0, 5}
    assert document.fds == (7, 30, 31)
    assert sorted(fds_in(document.state)) == [7, 30, 31]


def test_a_name_that_is_no_text_is_no_obstacle(kept: KeptDaemon) -> None:
    """A lone surrogate, which no UTF-8 can carry, costs one character and nothing else."""
    entry = decode(encode(kept, PROGRAM)).state.journal.entries[0]
    assert entry.reason == "odd name ?"


def test_an_event_of_another_version_is_told_as_a_notice(kept: KeptDaemon) -> None:
    """The journal goes on with its numbers, whatever another version's events are called."""

    def change(document: Any) -> None:
        document["state"]["journal"]["entries"][0]["event"] = "moon.landed"

    journal = Journal(10)
    journal.resume(decode(changed(kept, change)).state.journal)
    (entry,) = journal.tail(10).entries
    assert (entry.seq, entry.fact.event) == (1, Happened.DAEMON_NOTICE)
    assert entry.fact.reason.startswith("moon.landed: odd name")


def test_the_config_in_force_comes_back(tmp_path: Path) -> None:
    """The settings are the same, secrets included, without reading any file again."""
    config = loaded(tmp_path)
    kept = state(KeptConfig.of(config))
    (tmp_path / "drumd.toml").write_text("[nonsense]")
    assert decode(encode(kept, PROGRAM)).state.config.load().settings == config.settings


def test_unknown_keys_are_left_out_and_missing_ones_have_defaults(kept: KeptDaemon) -> None:
    """A field that only the writer has is no obstacle, nor is one that only the reader has."""

    def change(document: Any) -> None:
        pool = document["state"]["pools"]["web"]
        pool["of_the_future"] = {"a": 1}
        pool["policy"]["more"] = 2
        document["state"]["more"] = 3
        del pool["load"], pool["rollout"]

    pool = decode(changed(kept, change)).state.pools["web"]
    assert pool.rollout is None
    assert pool.policy == POOL.policy


def test_another_format_is_refused(kept: KeptDaemon) -> None:
    """A document of another major version is refused, with both versions and the way out."""
    content = changed(kept, lambda document: document.update(format=MAJOR + 1))
    with pytest.raises(ReexecError, match=rf"format {MAJOR + 1}.* reads {MAJOR}; restart"):
        decode(content)


def test_what_cannot_be_read_is_named_without_its_value(kept: KeptDaemon) -> None:
    """A state of a meaning that this version lacks is refused by its key; no value is shown."""

    def change(document: Any) -> None:
        document["state"]["pools"]["web"]["workers"]["12"]["state"] = "very secret"

    with pytest.raises(ReexecError, match=r"pools\.web\.workers\.12\.state") as refusal:
        decode(changed(kept, change))
    assert "very secret" not in str(refusal.value)


def test_a_setting_that_this_version_lacks_is_refused(tmp_path: Path) -> None:
    """What an operator asked for is not forgotten in silence; the key is named, not the value."""
    config = KeptConfig.of(loaded(tmp_path))
    pools = {"web": {**config.settings["pools"]["web"], "magic": "very secret"}}
    with pytest.raises(ReexecError, match=r"config in force: pools\.web\.magic") as refusal:
        replace(config, settings={"pools": pools}).load()
    assert "very secret" not in str(refusal.value)


def test_the_memory_is_sealed(kept: KeptDaemon) -> None:
    """The document lies in memory that nobody can change, and can be read twice."""
    fd = to_memory(encode(kept, PROGRAM))
    try:
        assert from_memory(fd) == from_memory(fd)
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_garbage_is_refused() -> None:
    """What is no such document at all is refused in words."""
    for content in (b"", b"[]", b"{}", b"\xff"):
        with pytest.raises(ReexecError, match="cannot read the state"):
            decode(content)
