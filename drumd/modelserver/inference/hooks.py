"""The functions of a model directory's custom.py: finding them, and how they are called."""

import difflib
import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from drumd.modelserver.errors import LoadError
from drumd.modelserver.inference.blame import advice, described, user_traceback
from drumd.modelserver.inference.interruptions import is_the_users_own

_log = logging.getLogger("drumd.modelserver")

HOOKS: Mapping[str, tuple[str, ...]] = {
    "init": ("code_dir",),
    "load_model": ("code_dir",),
    "read_input_data": ("input_binary_data",),
    "transform": ("data", "model"),
    "score": ("data", "model"),
    "post_process": ("predictions", "model"),
    "score_unstructured": ("model", "data"),
    "chat": ("completion_create_params", "model"),
    "get_supported_llm_models": ("model",),
}
"""Each hook's parameters, in the order in which it gets them."""

OFFERED: Mapping[str, tuple[str, ...]] = {
    "score": ("positive_class_label", "negative_class_label", "class_labels", "headers"),
    "score_unstructured": ("query", "mimetype", "charset", "headers"),
    "chat": ("headers",),
}
"""What a hook gets by name besides, if it takes it."""

_NEAR = 0.8
"""Likeness from which a name is taken for a misspelt hook: `load_models`, `post_proces`."""
_MEANT = {"predict": "score", "predict_unstructured": "score_unstructured"}
_SHOWN_NAME = "custom.py"


@dataclass(frozen=True, slots=True)
class Hook:
    """One function of custom.py, and what it can be given.

    It is called with its parameters by position, or by name if that is how it takes them
    (`def init(**kwargs)`). Of what is `OFFERED` besides it gets what it takes.
    """

    name: str
    function: Callable[..., Any]
    by_name: bool
    takes: frozenset[str] | None
    """Names of further parameters; None takes all."""

    def __call__(self, *arguments: Any, **offered: Any) -> Any:
        """Call the function with its parameters, and with what it takes of `offered`."""
        named = offered
        if self.takes is not None:
            named = {name: value for name, value in offered.items() if name in self.takes}
        if self.by_name:
            return self.function(**dict(zip(HOOKS[self.name], arguments, strict=True)), **named)
        return self.function(*arguments, **named)


def find_hooks(code_dir: Path) -> dict[str, Hook]:
    """Import custom.py, if there is one, and return its hooks by name; raise `LoadError`."""
    path = code_dir / "custom.py"
    if not path.is_file():
        return {}
    module = import_file(path, code_dir)
    hooks = {
        name: checked_hook(name, getattr(module, name)) for name in HOOKS if hasattr(module, name)
    }
    for name, meant in misspelt(module, hooks).items():
        _log.warning(
            "%s has a function %s that is never called: did you mean %s?", _SHOWN_NAME, name, meant
        )
    return hooks


def import_file(path: Path, code_dir: Path) -> ModuleType:
    """Import a file of the model directory, which its own modules can import then, too.

    It is known by its own name (`custom`), so that a pickle that names it there can be read; if
    another module has that name, it gets one that hides nothing. Raises `LoadError`.
    """
    if str(code_dir) not in sys.path:
        sys.path.insert(0, str(code_dir))
    name = _free_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"cannot import {path}: it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if not is_the_users_own(error):
            raise
        raise LoadError(
            f"cannot load the model: {path.name} raised {described(error)}{advice(error)}",
            user_traceback(error, code_dir),
        ) from error
    return module


def checked_hook(name: str, function: Any) -> Hook:
    """Return the hook, if it can be called as it will be; raise `LoadError` otherwise."""
    if not callable(function):
        raise LoadError(
            f"cannot load the model: {name} in {_SHOWN_NAME} is not a function but "
            f"{type(function).__name__}; define it as def {name}({', '.join(HOOKS[name])})"
        )
    if _is_async(function):
        raise LoadError(
            f"cannot load the model: {name} in {_SHOWN_NAME} is async; hooks run in threads, "
            f"so write def {name}, and asyncio.run(…) inside it for what must be awaited"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # C code that does not say
        return Hook(name, function, by_name=False, takes=frozenset())
    for by_name in (False, True):
        takes = _further(signature, 0 if by_name else len(HOOKS[name]))
        positional = () if by_name else HOOKS[name]
        offered = [each for each in OFFERED.get(name, ()) if takes is None or each in takes]
        if _fits(signature, positional, [*(HOOKS[name] if by_name else ()), *offered]):
            return Hook(name, function, by_name, takes)
    named = "".join(f", {each}=…" for each in OFFERED.get(name, ()))
    raise LoadError(
        f"cannot load the model: {name} in {_SHOWN_NAME} takes {signature}, "
        f"but is called with ({', '.join(HOOKS[name])}{named})"
    )


def misspelt(module: ModuleType, found: Mapping[str, Hook]) -> dict[str, str]:
    """Return functions of `module` that are nearly named as a hook that it does not have."""
    missing = [name for name in HOOKS if name not in found]
    near: dict[str, str] = {}
    for name, value in vars(module).items():
        if name in HOOKS or not inspect.isfunction(value) or value.__module__ != module.__name__:
            continue
        lowered = name.lower()
        meant = [_MEANT[lowered]] if _MEANT.get(lowered) in missing else None
        for hook in meant or difflib.get_close_matches(lowered, missing, 1, _NEAR):
            near[name] = hook
    return near


def _fits(signature: inspect.Signature, positional: Iterable[str], named: Iterable[str]) -> bool:
    try:
        signature.bind(*positional, **dict.fromkeys(named))
    except TypeError:
        return False
    return True


def _further(signature: inspect.Signature, positional: int) -> frozenset[str] | None:
    """Return which parameters can be given by name, beside the first `positional` ones."""
    parameters = list(signature.parameters.values())
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return frozenset(
        each.name
        for index, each in enumerate(parameters)
        if each.kind is each.KEYWORD_ONLY
        or (each.kind is each.POSITIONAL_OR_KEYWORD and index >= positional)
    )


def _is_async(function: Any) -> bool:
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (function, getattr(function, "__call__", None))  # noqa: B004 - the attribute itself is looked at
    )


def _free_name(path: Path) -> str:
    """Return a module's name for `path` under which no other module is, or would be, found."""
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None:
        other = getattr(loaded, "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        other = str(path) if spec is None else spec.origin
    if other is not None and Path(other).resolve() == path.resolve():
        return name
    return f"_drumd_{name}_{abs(hash(str(path))):x}"
