"""The tables `[pools.x.uvicorn]` and `[pools.x.gunicorn]`, checked by those servers themselves.

The servers are imported only when their table says something. What would fight the supervisor is
refused with the key to use in its place. Written against uvicorn 0.54 and gunicorn 27.0.
"""

import importlib.util
import inspect
import json
import logging
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from drumd.config.explain import SIMPLE_TYPES, explain_type, must_be_one_of
from drumd.config.layers import KeyPath
from drumd.config.problems import nearest
from drumd.config.refusals import (
    MASTERS_HOOK,
    REFUSED_BY_GUNICORN,
    REFUSED_BY_UVICORN,
    WORKERS_HOOKS,
)
from drumd.config.rules import Finding
from drumd.config.secrets import redact
from drumd.config.settings import PoolSettings

WORKER_CLASSES = ("sync", "gthread", "gevent", "asgi")
"""gunicorn's worker classes that drumd can run."""

Options = dict[str, Any]

_HOOK = re.compile(r"\w+(\.\w+)+")

_TLS_FILES = frozenset(
    {"ssl_certfile", "ssl_keyfile", "ssl_ca_certs", "certfile", "keyfile", "ca_certs"}
)


def check_options(pool_name: str, pool: PoolSettings) -> tuple[dict[str, Options], list[Finding]]:
    """Return both tables as their servers read them, and what is wrong in them."""
    options: dict[str, Options] = {}
    findings: list[Finding] = []
    for server, table, refused, check in (
        ("uvicorn", pool.uvicorn, REFUSED_BY_UVICORN, _check_uvicorn),
        ("gunicorn", pool.gunicorn, REFUSED_BY_GUNICORN, _check_gunicorn),
    ):
        path = ("pools", pool_name, server)
        good, bad = _checked_by(check, path, table, refused) if table else ({}, [])
        options[server] = good
        findings += [*bad, *_missing_files(path, good, pool.app_dir)]
    return options, findings


_Check = Callable[[KeyPath, Options], tuple[Options, list[Finding]]]


def _checked_by(
    check: _Check, path: KeyPath, table: Options, refused: Mapping[str, str]
) -> tuple[Options, list[Finding]]:
    findings = []
    rest = {}
    for key, value in table.items():
        if key in refused:
            message, suggestion = f"cannot be passed to {path[-1]}", refused[key]
        elif not _is_json(value):
            message, suggestion = "cannot travel to a worker", "write strings, numbers or lists"
        else:
            rest[key] = value
            continue
        findings.append(
            Finding(path=(*path, key), value=value, message=message, suggestion=suggestion)
        )
    good, bad = check(path, rest)
    return good, [*findings, *bad]


def _missing_files(path: KeyPath, table: Options, app_dir: str) -> Iterator[Finding]:
    """Yield TLS files that are not there; workers would only find out when they start."""
    for key in sorted(_TLS_FILES & set(table)):
        file = Path(app_dir, str(table[key]))
        if table[key] is not None and not file.is_file():
            yield Finding(
                path=(*path, key),
                value=table[key],
                message="there is no such file",
                suggestion=f"relative paths are taken from app_dir, {app_dir}",
            )


def _is_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _unknown(path: KeyPath, key: str, value: object, known: set[str], server: str) -> Finding:
    meant = nearest(key, known)
    return Finding(
        path=(*path, key),
        value=value,
        message=f"is no option of {server}",
        suggestion=f"did you mean {meant}?" if meant else "",
    )


def _check_uvicorn(path: KeyPath, table: Options) -> tuple[Options, list[Finding]]:
    from uvicorn import Config  # noqa: PLC0415 - half a second that most configs don't need

    types = typing.get_type_hints(Config.__init__)
    parameters = inspect.signature(Config).parameters
    known = set(parameters)
    good: Options = {}
    findings = []
    for key, value in table.items():
        if key not in known:
            passable = known - set(REFUSED_BY_UVICORN)
            findings.append(_unknown(path, key, value, passable, "uvicorn"))
            continue
        message, suggestion = _refuse_name(key, value)
        if message:
            findings.append(
                Finding(path=(*path, key), value=value, message=message, suggestion=suggestion)
            )
            continue
        try:
            adapter = TypeAdapter[Any](types[key], config=ConfigDict(arbitrary_types_allowed=True))
            read = adapter.validate_python(value)
            with _logging_left_alone():
                Config("unknown:app", log_config=None, workers=1, **{key: read})
        except ValidationError as error:
            message, suggestion = _explain_mismatch(error, str(parameters[key].annotation))
        except Exception as error:  # noqa: BLE001 - whatever uvicorn says about its own option
            message, suggestion = _refusal("uvicorn", (*path, key), value, error), ""
        else:
            good[key] = json.loads(json.dumps(read))
            continue
        findings.append(
            Finding(path=(*path, key), value=value, message=message, suggestion=suggestion)
        )
    return good, findings


def _explain_mismatch(error: ValidationError, annotation: str) -> tuple[str, str]:
    """Return what a value must be: in words when there is one way to be right, else as a type."""
    found = error.errors(include_url=False)
    kinds = {detail["type"] for detail in found}
    if len(found) == 1 and not found[0]["loc"] and kinds <= SIMPLE_TYPES:
        return explain_type(found[0])
    return f"must be {annotation} (Python's notation)", ""


def _refuse_name(key: str, value: object) -> tuple[str, str]:
    """Refuse a name that uvicorn would only miss when it serves, or by a bare KeyError."""
    from uvicorn import config  # noqa: PLC0415 - see above

    by_key: dict[str, Collection[str]] = {
        "http": config.HTTP_PROTOCOLS,
        "ws": config.WS_PROTOCOLS,
        "loop": config.LOOP_FACTORIES,
        "log_level": config.LOG_LEVELS,
    }
    names = by_key.get(key)
    if names is None or not isinstance(value, str) or value.lower() in names:
        return "", ""
    if ":" in value and key != "log_level":  # an implementation, as module:attribute
        return "", ""
    return must_be_one_of(value, names)


def _refusal(server: str, path: KeyPath, value: object, error: Exception) -> str:
    """Return what the server says, unless it may repeat a secret."""
    if redact(path, value) != value:
        return f"{server} refuses it"
    return f"{server} refuses it: {error}"


@contextmanager
def _logging_left_alone() -> Iterator[None]:
    """Undo what `uvicorn.Config` does to the loggers, even with `log_config=None`."""
    loggers = [logging.getLogger(f"uvicorn.{name}") for name in ("error", "access", "asgi")]
    before = [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers]
    try:
        yield
    finally:
        for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.handlers = handlers
            logger.propagate = propagate


def _check_gunicorn(path: KeyPath, table: Options) -> tuple[Options, list[Finding]]:
    from gunicorn.config import Config  # noqa: PLC0415 - most configs don't need it

    config = Config()
    hooks = {name for name, setting in config.settings.items() if callable(setting.default)}
    known = set(config.settings)
    good: Options = {}
    findings = []
    for key, value in table.items():
        message, suggestion = "", ""
        if key not in known:
            passable = known - (hooks - WORKERS_HOOKS) - set(REFUSED_BY_GUNICORN)
            findings.append(_unknown(path, key, value, passable, "gunicorn"))
            continue
        if key in WORKERS_HOOKS:
            # Only its form is looked at: gunicorn would import it, and with it the user's code.
            if not isinstance(value, str) or not _HOOK.fullmatch(value):
                message, suggestion = "must be a string, module.function", ""
        elif key in hooks or key.startswith("dirty_"):
            message, suggestion = "cannot be passed to gunicorn", MASTERS_HOOK
        elif key == "worker_class":
            message, suggestion = _refuse_worker_class(value)
        else:
            try:
                config.set(key, value)
            except Exception as error:  # noqa: BLE001 - whatever gunicorn says about its own
                message = _refusal("gunicorn", (*path, key), value, error)
        if message:
            findings.append(
                Finding(path=(*path, key), value=value, message=message, suggestion=suggestion)
            )
        else:
            good[key] = value
    try:
        config.validate()
    except Exception as error:  # noqa: BLE001 - the same
        findings.append(Finding(path=path, message=_refusal("gunicorn", path, None, error)))
    return good, findings


def _refuse_worker_class(name: object) -> tuple[str, str]:
    """Return what is wrong with a worker class, and what to do; empty when it is fine."""
    if name not in WORKER_CLASSES:
        if isinstance(name, str) and "uvicorn" in name.lower():
            return "is a runtime of its own", 'set runtime = "uvicorn" of the pool'
        return must_be_one_of(name, WORKER_CLASSES)
    if name == "gevent" and importlib.util.find_spec("gevent") is None:
        return "needs gevent, which is not installed", "pip install 'drumd[gevent]'"
    return "", ""
