import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumd.workers import loader
from drumd.workers.runtime import AppError

APPS = Path(__file__).parents[1] / "apps"


@pytest.fixture(autouse=True)
def in_app_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(APPS)
    monkeypatch.syspath_prepend(str(APPS))
    yield
    sys.modules.pop("choices", None)


@pytest.mark.parametrize(
    "name",
    [
        "asgi",
        "wrapped_asgi",
        "plain_asgi",
        "partial_asgi",
        "asgi_middleware",
        "asgi_method",
        "AsgiClass",
        "Asgi2",
        "fastapi_app",
        "starlette_app",
        "Nested.app",
    ],
)
def test_asgi_apps_are_recognised(name: str) -> None:
    """Functions, wrappers, partials, middleware, classes and frameworks' objects count as ASGI."""
    assert loader.load(f"choices:{name}").interface == "asgi"


@pytest.mark.parametrize(
    "name",
    [
        "wsgi",
        "wrapped_wsgi",
        "partial_wsgi",
        "wsgi_middleware",
        "wsgi_method",
        "WsgiClass",
        "flask_app",
        "make_flask",
    ],
)
def test_wsgi_apps_are_recognised(name: str) -> None:
    """The same kinds of things that take (environ, start_response) count as WSGI."""
    assert loader.load(f"choices:{name}").interface == "wsgi"


def test_only_asgi_2_is_called_twice() -> None:
    """An app that takes the scope alone is told from one of ASGI 3."""
    assert loader.is_double_callable(loader.load("choices:Asgi2").call)
    assert not loader.is_double_callable(loader.load("choices:AsgiClass").call)
    assert not loader.is_double_callable(loader.load("choices:asgi").call)


def test_a_factory_is_called() -> None:
    """What can be called without arguments is a factory, with or without the option."""
    for factory in (False, True):
        app = loader.load("choices:make_flask", factory=factory)
        assert type(app.call).__name__ == "Flask"


def test_a_known_interface_is_taken() -> None:
    """An interface that the options name is not guessed again."""
    assert loader.load("choices:wsgi", interface="asgi").interface == "asgi"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("choices", "write module:attribute, such as choices:app"),
        ("choices.py:asgi", "write choices:asgi"),
        ("web/choices.py:asgi", "write web.choices:asgi"),
        ("choices:make_flask()", "leave the parentheses away"),
        (":app", "write module:attribute"),
        ("choices:flask_ap", "did you mean flask_app"),
        ("choices:zzz", "did you mean asgi"),
        ("choices:MEMBER", "it is a str, which cannot be called"),
        ("choices:make_nothing", "that factory returned a NoneType"),
        ("choicez:app", "did you mean choices"),
        ("no.such.module:app", "there is no module 'no'"),
    ],
)
def test_a_wrong_name_is_met_with_the_right_one(name: str, told: str) -> None:
    """Errors begin with "cannot" and name what to write instead."""
    with pytest.raises(AppError) as caught:
        loader.load(name)
    assert str(caught.value).startswith("cannot ")
    assert told in str(caught.value)


def test_a_missing_import_of_the_app_is_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that the app's module does not find is not mistaken for the app itself."""
    monkeypatch.setitem(os.environ, "HOW", "missing")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        loader.load("broken:app")
