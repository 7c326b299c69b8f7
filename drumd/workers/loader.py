"""Finding the app that `module:attribute` names, and telling ASGI from WSGI."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from drumd.wire.messages import Interface
from drumd.workers.runtime import App, AppError

_ASGI2_PARAMETERS = 1
_WSGI_PARAMETERS = 2


def load(name: str, *, factory: bool = False, interface: Interface | None = None) -> App:
    """Import the app that `name` (`module:attribute`) names, and look at what it speaks.

    `factory`: the attribute must be called to get the app; without it, one that can be called
    without arguments is taken for a factory, too. `interface`: what it speaks, if that is known.
    Raises `AppError`, or whatever the app's own code raises.
    """
    module_name, attribute = split_name(name)
    found = find(module_name, attribute)
    if not callable(found):
        raise AppError(
            f"cannot serve {name}: it is {_a(type(found).__name__)}, which cannot be called; "
            f"name an ASGI or WSGI app{_hint(_apps_in(sys.modules[module_name]))}"
        )
    if factory or takes_nothing(found):
        found = _call(found, name)
    return App(call=found, interface=interface or interface_of(found))


def find(module_name: str, attribute: str) -> Any:
    """Import a module and return its attribute, which may be dotted; raise `AppError`."""
    return _attribute(_module(module_name), attribute, module_name)


def split_name(name: str) -> tuple[str, str]:
    """Split `module:attribute`; raise `AppError` that says what to write instead."""
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        example = (module_name or "main").removesuffix(".py").replace("/", ".")
        raise AppError(
            f"cannot read the app's name {name!r}: write module:attribute, such as {example}:app"
        )
    if attribute.endswith(")"):
        raise AppError(
            f"cannot read the app's name {name!r}: leave the parentheses away; "
            "a factory that takes no arguments is called"
        )
    if module_name.endswith(".py") or "/" in module_name:
        example = module_name.removesuffix(".py").strip("/").replace("/", ".")
        raise AppError(
            f"cannot read the app's name {name!r}: it begins with a module, not a file; "
            f"write {example}:{attribute}"
        )
    return module_name, attribute


def interface_of(app: Any) -> Interface:
    """Tell ASGI from WSGI: as uvicorn's `interface="auto"` does, then by the parameters.

    A coroutine function, or an object with one as its `__call__`, is ASGI; so is a class with
    `__await__`. What is left takes (environ, start_response) as WSGI, (scope, receive, send) as
    an ASGI app behind a plain decorator, or (scope) as an ASGI 2 app.
    """
    if inspect.isclass(app):
        if hasattr(app, "__await__"):
            return "asgi"
    elif _is_coroutine_function(app) or _is_coroutine_function(getattr(app, "__call__", None)):  # noqa: B004 - the attribute itself is looked at
        return "asgi"
    count = _required_parameters(app)
    return "wsgi" if count is None or count == _WSGI_PARAMETERS else "asgi"


def is_double_callable(app: Any) -> bool:
    """Return whether an ASGI app is one of ASGI 2: called with the scope, then with the rest."""
    if inspect.isclass(app) and hasattr(app, "__await__"):
        return False
    return _required_parameters(app) == _ASGI2_PARAMETERS


def takes_nothing(app: Any) -> bool:
    """Return whether `app` can be called without arguments, so that it is a factory of the app."""
    try:
        inspect.signature(app).bind()
    except (TypeError, ValueError):  # it needs arguments; or it is C code that does not say
        return False
    # (*args, **kwargs) can be called with nothing as well, but that is a decorator, not a factory.
    return not _has_open_parameters(app)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only the app's own module is told of here; one that it imports is the app's own mistake.
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise AppError(
            f"cannot import {name}: there is no module {error.name!r} in {os.getcwd()} "  # noqa: PTH109 - pathlib costs start time
            f"or the Python path{_hint(_close(error.name, _modules_here()))}; "
            "check the name and app-dir"
        ) from None


def _attribute(module: Any, attribute: str, module_name: str) -> Any:
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = _close(part, [each for each in dir(found) if not each.startswith("_")])
            raise AppError(
                f"cannot find {attribute!r} in {module_name} "
                f"({getattr(module, '__file__', None) or 'built in'})"
                f"{_hint(near or _apps_in(module))}"
            )
        found = getattr(found, part)
    return found


def _call(factory: Callable[[], Any], name: str) -> Any:
    app = factory()
    if not callable(app):
        raise AppError(
            f"cannot serve {name}: that factory returned {_a(type(app).__name__)}; "
            "it must return an ASGI or WSGI app"
        )
    return app


def _is_coroutine_function(call: Any) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(call)) if callable(call) else False


def _required_parameters(call: Any) -> int | None:
    """Return how many positional arguments `call` needs; None if its signature does not say."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return None
    needed = [
        each
        for each in parameters
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        and each.default is each.empty
    ]
    return None if not needed and _has_open_parameters(call) else len(needed)


def _has_open_parameters(call: Any) -> bool:
    kinds = {each.kind for each in inspect.signature(call).parameters.values()}
    return inspect.Parameter.VAR_POSITIONAL in kinds


def _apps_in(module: Any) -> list[str]:
    """Return the names in `module` that could be meant: objects of its own with a `__call__`."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and not inspect.isclass(value)
        and (not inspect.isroutine(value) or value.__module__ == module.__name__)
    ]


def _modules_here() -> list[str]:
    return [
        name.removesuffix(".py")
        for name in os.listdir()  # noqa: PTH208 - as above
        if name.endswith(".py") or os.path.isfile(os.path.join(name, "__init__.py"))  # noqa: PTH113, PTH118 - as above
    ]


def _close(name: str, names: list[str]) -> list[str]:
    import difflib  # noqa: PLC0415 - only a worker that fails pays for it

    return difflib.get_close_matches(name, names)


def _hint(names: list[str]) -> str:
    return f"; did you mean {' or '.join(names[:3])}?" if names else ""


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
