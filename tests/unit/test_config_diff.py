import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from drumd.config.changes import document, render, steps
from drumd.config.diff import Change, Changes, Fate, PoolChange, diff
from drumd.config.effects import Effect, effect_of
from drumd.config.kinds import WorkerRange
from drumd.config.sections import Section
from drumd.config.settings import PoolSettings, Settings, SupervisorSettings
from tests.unit.config_values import EFFECTS, POOL, SUPERVISOR, all_keys, settings_of, values


def config(
    supervisor: dict[str, Any] | None = None, **pools: dict[str, Any] | PoolSettings
) -> Settings:
    return Settings.model_construct(
        supervisor=SupervisorSettings.model_validate(supervisor or {}),
        pools={name: PoolSettings.model_validate(pool) for name, pool in pools.items()},
    )


def web(**keys: Any) -> Settings:
    return config(web={"app": "main:app", **keys})


def pool_change(before: Settings, after: Settings) -> PoolChange:
    (change,) = diff(before, after).pools
    return change


CONFIGS = st.builds(
    lambda supervisor, pools: (supervisor, pools),
    values(SUPERVISOR),
    st.dictionaries(st.sampled_from(["web", "api", "old"]), values(POOL), min_size=1),
)


def made(drawn: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> Settings:
    supervisor, pools = drawn
    return config(settings_of(supervisor), **{n: settings_of(pool) for n, pool in pools.items()})


def test_every_key_declares_what_a_change_takes() -> None:
    """No key can be added to the settings without saying what a change of it takes."""

    def declared(model: type[Section]) -> set[str]:
        found = set()
        for name, known in model.model_fields.items():
            if isinstance(known.annotation, type) and issubclass(known.annotation, Section):
                found |= {f"{name}.{key}" for key in declared(known.annotation)}
            else:
                assert effect_of(known) in Effect
                found.add(name)
        return found

    for model in (PoolSettings, SupervisorSettings):
        assert declared(model) == set(all_keys(model))


def test_a_key_without_a_declaration_is_an_error() -> None:
    """The effect of a change is never guessed."""
    with pytest.raises(LookupError, match="cannot tell the effect"):
        effect_of(Settings.model_fields["supervisor"])


@pytest.mark.parametrize(
    "key", [*(f"supervisor.{key}" for key in SUPERVISOR), *(f"pools.web.{key}" for key in POOL)]
)
def test_each_key_shows_with_its_effect(key: str) -> None:
    """A change of any one key is that key alone, with the effect that it declares, both ways."""
    supervisor = {name: pair[0] for name, pair in SUPERVISOR.items()}
    pool = {name: pair[0] for name, pair in POOL.items()}
    before = made((supervisor, {"web": pool}))
    if key.startswith("supervisor."):
        name = key.removeprefix("supervisor.")
        after = made((supervisor | {name: SUPERVISOR[name][1]}, {"web": pool}))
    else:
        name = key.removeprefix("pools.web.")
        after = made((supervisor, {"web": pool | {name: POOL[name][1]}}))
    expected = next((e for e, keys in EFFECTS.items() if key in keys), Effect.LIVE)
    for one, other in ((before, after), (after, before)):
        (change,) = diff(one, other).keys
        assert (change.key, change.effect) == (key, expected)
        text = render(diff(one, other), color=False)
        assert str(expected) in text
        assert name.split(".")[-1] in text


@given(CONFIGS)
@hypothesis_settings(deadline=None, max_examples=30)
def test_nothing_differs_from_itself(drawn: Any) -> None:
    """The same config, read twice, has no difference."""
    changes = diff(made(drawn), made(drawn))
    assert not changes
    assert changes == Changes()
    assert render(changes, color=True) == "nothing has changed\n"
    assert document(changes) == {"changed": False, "restart": [], "supervisor": [], "pools": []}


@given(CONFIGS, CONFIGS)
@hypothesis_settings(deadline=None, max_examples=50)
def test_exactly_what_differs_is_told(before: Any, after: Any) -> None:
    """Of any two configs, each key that differs and no other is told, and no secret is."""
    changes = diff(made(before), made(after))
    expected = {f"supervisor.{key}" for key in SUPERVISOR if before[0][key] != after[0][key]}
    for name in before[1].keys() & after[1].keys():
        one, other = before[1][name], after[1][name]
        expected |= {f"pools.{name}.{key}" for key in POOL if one[key] != other[key]}
    assert {change.key for change in changes.keys} == expected
    fates = {pool.name: pool.fate for pool in changes.pools}
    assert {name for name in fates if fates[name] is Fate.ADDED} == after[1].keys() - before[1]
    assert {name for name in fates if fates[name] is Fate.REMOVED} == before[1].keys() - after[1]
    shown = render(changes, color=False)
    assert "hunter" not in shown
    assert "hunter" not in json.dumps(document(changes))
    assert "hunter" not in repr(changes)
    assert all(f"{change.effect}" in shown for change in changes.keys)


def test_a_rollout_is_for_what_workers_hold() -> None:
    """What a worker was started with takes a rollout; limits and the size do not."""
    rolled = pool_change(web(), web(threads=8))
    assert (rolled.rollout, rolled.live, rolled.sockets, rolled.workers) == (
        True,
        False,
        False,
        None,
    )
    live = pool_change(web(), web(health={"stall_after": 2}, linger=1))
    assert (live.rollout, live.live, live.sockets, live.workers) == (False, True, False, None)
    assert steps(live) == ()


@pytest.mark.parametrize(
    ("before", "after", "wanted", "sizes"),
    [
        (2, 5, 5, {2: 5, 5: None, 9: 5}),
        (2, 2, None, {2: None, 7: None}),
        (2, "4-8", WorkerRange(4, 8), {2: 4, 5: None, 9: 8}),
        ("1-8", "4-8", WorkerRange(4, 8), {2: 4, 6: None, 8: None}),
        ("1-8", 3, 3, {5: 3, 3: None}),
        ("1-8", {"min": 1, "max": 8}, None, {5: None}),
    ],
)
def test_a_size_follows_the_config_only_where_that_changed(
    before: Any, after: Any, wanted: int | WorkerRange | None, sizes: dict[int, int | None]
) -> None:
    """A changed number or range of workers counts; else the size that an operator gave it stays."""
    change = pool_change(web(workers=before), web(workers=after, linger=1))
    assert change.workers == wanted
    assert {size: change.resized(size) for size in sizes} == sizes
    assert not change.rollout


def test_automatic_sizes_follow_the_keys_that_they_rest_on() -> None:
    """With `workers = "auto"` another key can change the size."""
    change = pool_change(web(workers="auto"), web(workers="auto", worker_memory="1000TB"))
    assert change.workers in (1, None)  # None where there is one CPU
    flask = pool_change(
        web(workers="auto", runtime="gunicorn", gunicorn={"worker_class": "sync"}),
        web(workers="auto", runtime="flask"),
    )
    assert flask.workers == 1


def test_addresses_are_opened_and_closed_one_by_one() -> None:
    """Of a changed list, only what is new is opened, and only what is gone is closed."""
    change = pool_change(web(bind=[":1", ":2"]), web(bind=[":3", ":2"]))
    assert change.sockets
    assert not change.rollout
    assert (change.opened, change.closed) == (("0.0.0.0:3",), ("0.0.0.0:1",))
    assert steps(change) == ("opens 0.0.0.0:3", "closes 0.0.0.0:1")


def test_an_address_in_another_place_is_no_socket() -> None:
    """The order of the addresses is a change of the key, and touches no socket."""
    change = pool_change(web(bind=[":1", ":2"]), web(bind=[":2", ":1"]))
    assert (change.opened, change.closed) == ((), ())


def test_pools_come_and_go() -> None:
    """Removed pools come before added ones, which may take over their addresses."""
    before = config(old={"app": "old:app", "bind": ":1"}, web={"app": "m:a"})
    after = config(web={"app": "m:a"}, new={"app": "new:app", "bind": ":1", "workers": 2})
    gone, come = diff(before, after).pools
    assert (gone.name, gone.fate, gone.before) == ("old", Fate.REMOVED, before.pools["old"])
    assert (come.name, come.fate, come.after) == ("new", Fate.ADDED, after.pools["new"])
    assert (gone.closed, come.opened) == (("0.0.0.0:1",), ("0.0.0.0:1",))
    assert (gone.resized(4), come.resized(0)) == (None, 2)
    assert steps(gone) == ("removed: its workers drain and end", "closes 0.0.0.0:1")
    assert steps(come) == ("added: new:app, 2 workers", "opens 0.0.0.0:1")


def test_secrets_show_only_that_they_changed() -> None:
    """A secret's change is told without either value; a URL's password is hidden, too."""
    before = web(environment={"API_TOKEN": "hunter2", "DB": "db://me:hunter2@a/x"})
    after = web(environment={"API_TOKEN": "hunter3", "DB": "db://me:hunter3@b/x"})
    assert diff(before, after).keys == (
        Change(
            path=("pools", "web", "environment", "API_TOKEN"),
            before="***",
            after="***",
            effect=Effect.NEW_WORKERS,
        ),
        Change(
            path=("pools", "web", "environment", "DB"),
            before="db://me:***@a/x",
            after="db://me:***@b/x",
            effect=Effect.NEW_WORKERS,
        ),
    )


def test_options_are_compared_as_json() -> None:
    """`true` is not 1, as it would be for Python; the order of a table's keys does not count."""
    assert diff(web(uvicorn={"x": 1}), web(uvicorn={"x": True})).keys
    one, other = {"A": "1", "B": "2"}, {"B": "2", "A": "1"}
    assert not diff(web(gunicorn={"headers": one}), web(gunicorn={"headers": other}))


BEFORE = config(
    {"log_level": "info"},
    web={"app": "main:app", "workers": 4, "environment": {"A KEY": "s3cret"}},
    old={"app": "old:app", "bind": ":1"},
)
AFTER = config(
    {"log_level": "debug", "journal_size": 50},
    web={
        "app": "main:app",
        "workers": "2-8",
        "threads": 8,
        "bind": ["127.0.0.1:8000", "unix:/run/web.sock"],
        "health": {"stall_after": "250ms", "startup_probe": "/healthz"},
    },
    new={"app": "new:app", "workers": 1, "bind": ":1"},
)


def test_changes_are_shown_as_a_table() -> None:
    """A block for each table says what happens; each key has both values and its effect."""
    assert render(diff(BEFORE, AFTER), color=False) == (
        "[supervisor]\n"
        'log_level = "info" -> "debug"  # live\n'
        "journal_size = 1000 -> 50      # restart of drumd\n"
        "\n"
        "[pools.old]  # removed: its workers drain and end; closes 0.0.0.0:1\n"
        "\n"
        "[pools.web]  # a rollout to new workers; scaled to 2-8 workers; opens unix:/run/web.sock\n"
        "workers = 4 -> { min = 2, max = 8 }           # live\n"
        "threads = 4 -> 8                              # new workers\n"
        'bind = ["127.0.0.1:8000"] -> ["127.0.0.1:8000", "unix:/run/web.sock"]  # sockets\n'
        'health.stall_after = "1s" -> "250ms"          # live\n'
        'health.startup_probe = not set -> "/healthz"  # live\n'
        'environment."A KEY" = "***" -> not set        # new workers\n'
        "\n"
        "[pools.new]  # added: new:app, 1 worker; opens 0.0.0.0:1\n"
        "\n"
        "# to be changed by a restart of drumd only, not by a reload: supervisor.journal_size\n"
    )


def test_what_is_not_at_once_stands_out_in_color() -> None:
    """In colour, what takes a rollout or a restart differs from what is live."""
    lines = render(diff(BEFORE, AFTER), color=True).splitlines()
    plain = render(diff(BEFORE, AFTER), color=False)
    (live,) = (line for line in lines if "log_level" in line)
    (rolled,) = (line for line in lines if "threads" in line)
    assert "\x1b" not in live + plain
    assert rolled.startswith("\x1b[")


def test_changes_are_a_document() -> None:
    """Programs get the same as JSON: values as in the file, null for what is not set."""
    shown = json.loads(json.dumps(document(diff(BEFORE, AFTER))))
    assert shown["changed"] is True
    assert shown["restart"] == ["supervisor.journal_size"]
    assert shown["supervisor"][0] == {
        "key": "supervisor.log_level",
        "before": "info",
        "after": "debug",
        "effect": "live",
    }
    old, same, new = shown["pools"]
    assert (old["fate"], same["fate"], new["fate"]) == ("removed", "changed", "added")
    assert (old["workers"], same["workers"], new["workers"]) == (None, {"min": 2, "max": 8}, 1)
    assert (same["rollout"], same["opens"], same["closes"]) == (True, ["unix:/run/web.sock"], [])
    assert {
        "key": "pools.web.health.startup_probe",
        "before": None,
        "after": "/healthz",
        "effect": "live",
    } in same["changes"]
    assert same["steps"][0] == "a rollout to new workers"


def test_the_documents_example_is_what_is_shown() -> None:
    """docs/configuration.md shows what the changes that it speaks of look like."""
    before = config({"log_level": "info"}, web={"app": "m:a", "workers": 4})
    after = config({"log_level": "debug"}, web={"app": "m:a", "workers": "2-8", "threads": 8})
    page = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    assert f"$ drumctl config diff\n{render(diff(before, after), color=False)}```" in page


def test_the_document_tells_of_every_effect() -> None:
    """docs/configuration.md says what each effect in its tables means."""
    page = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    assert all(f"\n| {effect} | " in page for effect in Effect)
