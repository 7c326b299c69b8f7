import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from drumd import forking
from drumd.wire.spec import WorkerFds, WorkerSpec, instance_of, mark
from drumd.workers import hooks
from drumd.workers.runtime import AppError

REWRITE = """
import json, sys
from drumd.workers import shown
area, old, new, filler = json.load(sys.stdin)
done = shown.rewrite(getattr(shown, area), old, new, filler=filler)
files = {name: open(f"/proc/self/{name}").read().split("\\0") for name in ("environ", "cmdline")}
value = next(v for v in files["environ"] if v.startswith("DRUMD_TEST="))
print(json.dumps([done, value, files["cmdline"][3:-1]]))
"""


@pytest.fixture(autouse=True)
def none_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "_before", [])
    monkeypatch.setattr(forking, "_after", [])


def test_functions_stay_what_they_are_and_keep_their_order() -> None:
    """A registered function is returned as it is; the last goes first before, last after."""
    functions: list[forking.Hook] = [lambda: 1, lambda: 2]
    for function in functions:
        assert forking.before_fork(function) is function
        assert forking.after_fork(function) is function
    assert [hook() for hook in forking.hooks_before()] == [2, 1]
    assert [hook() for hook in forking.hooks_after()] == [1, 2]


def test_registering_loads_nothing_of_drumds() -> None:
    """An app that registers its functions imports that one module of drumd."""
    script = "import sys, drumd.forking; print([m for m in sys.modules if m.startswith('drumd.')])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['drumd.forking']"


def test_a_function_is_called_by_its_own_name() -> None:
    """Messages name a function as the config would, whatever kind of object it is."""
    assert hooks.name_of(os.getpid) == "posix:getpid"
    assert hooks.name_of(forking.hooks_before) == "drumd.forking:hooks_before"
    assert "partial" in hooks.name_of(functools.partial(print))


def test_an_async_function_is_refused() -> None:
    """A coroutine that nobody would run is an error, not silence."""

    async def connect() -> None: ...

    with pytest.raises(AppError, match="it is async, and no loop runs there"):
        hooks.run(connect)


def test_marks_have_room_for_any_attempt() -> None:
    """A mark with room can be overwritten by that of any other attempt of the pool."""
    for attempt in (1, 41, 10**15):
        assert len(mark("me", "web", attempt, room=True)) == len(mark("me", "web", 7, room=True))
    assert mark("me", "web", 41) == "me/web/41"
    assert mark("me", "web", 41, room=True).rstrip("/") == "me/web/41"
    for room in (False, True):
        assert instance_of(mark("me", "web", 41, room=room)) == "me"


def test_titles_tell_a_template_from_a_worker() -> None:
    """What ps shows of a worker fits into what it shows of its template, up to slot 999."""
    fields: dict[str, Any] = {
        "pool": "web", "slot": 999, "generation": 3, "attempt": 41, "lease": 0,
        "supervisor_pid": 1, "app": "m:app", "app_dir": "/", "runtime": "auto", "threads": 1,
        "backlog": 100, "keepalive": 75.0, "grace_period": 5.0, "linger": 1.0,
        "fds": WorkerFds(control=3, scoreboard=4, stacks=5),
    }  # fmt: skip
    worker = WorkerSpec(**fields)
    template = WorkerSpec(role="template", **fields)
    assert worker.title == ("pool=web", "slot=999", "gen=3")
    assert template.title == ("pool=web", "template", "gen=3")
    assert len("".join(worker.title)) == len("".join(template.title))
    assert WorkerSpec.decode(template.encode()) == template


def rewrite(area: str, old: str, new: str, filler: str) -> tuple[bool, str, list[str]]:
    """Rewrite in a new process; return whether that worked, and what /proc shows of it then."""
    run = subprocess.run(
        [sys.executable, "-c", REWRITE, "pool=web", "template", "gen=3"],
        env={**os.environ, "DRUMD_TEST": "abcdef"},
        input=json.dumps([area, old, new, filler]),
        capture_output=True,
        text=True,
        check=True,
    )
    done, value, arguments = json.loads(run.stdout)
    return done, value, arguments


def test_the_environment_is_rewritten_in_place() -> None:
    """What /proc/PID/environ shows is the new value, filled up to the old one's length."""
    done, value, _ = rewrite("ENVIRONMENT", "DRUMD_TEST=abcdef", "DRUMD_TEST=xyz", "/")
    assert done
    assert value == "DRUMD_TEST=xyz///"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("DRUMD_TEST=abcdef", "DRUMD_TEST=xyz4567"),
        ("DRUMD_TEST=abc", "DRUMD_TEST=xyz"),
        ("RUMD_TEST=abcdef", "RUMD_TEST=xyz"),
    ],
)
def test_what_does_not_fit_is_left_alone(old: str, new: str) -> None:
    """A longer value, or one that is not there as a whole, changes nothing."""
    done, value, _ = rewrite("ENVIRONMENT", old, new, "/")
    assert not done
    assert value == "DRUMD_TEST=abcdef"


def test_the_command_line_is_rewritten_in_place() -> None:
    """Several arguments are replaced at once."""
    done, _, arguments = rewrite(
        "ARGUMENTS", "pool=web\0template\0gen=3", "pool=web\0slot=2\0gen=3", " "
    )
    assert done
    assert arguments == ["pool=web", "slot=2", "gen=3  "]
