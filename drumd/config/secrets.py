"""Which values are secret, and what is shown in their place."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"

_SECRET_IN_VARIABLE = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|PWD|KEY|CREDENTIAL|AUTH|COOKIE|PRIVATE|DSN|DIGEST",
    re.IGNORECASE,
)
"""Environment variables belong to the app: what looks secret is hidden, at worst too much of it."""

_SECRET_IN_OPTION = re.compile(
    r"(^|_)(token|secret|password|passphrase|credentials?)(_|$)", re.IGNORECASE
)
"""Options of servers are known words: `ssl_keyfile` is a path and may be read."""

_USERINFO = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+(?=@)")

_WHOLLY_SECRET = frozenset({"raw_env", "headers"})
"""Options whose values hold environment variables or headers, in forms of their own."""


def redact(path: Sequence[str], value: Any) -> Any:
    """Return what may be shown of the value at `path` (`("pools", "web", "environment", "X")`)."""
    if "environment" in path[2:3]:
        return _redact_variables(path, value)
    if path and (_SECRET_IN_OPTION.search(path[-1]) or path[-1] in _WHOLLY_SECRET):
        return MASK
    if isinstance(value, Mapping):
        return {key: redact((*path, str(key)), inner) for key, inner in value.items()}
    return _without_passwords(value)


def _redact_variables(path: Sequence[str], value: Any) -> Any:
    if len(path) == len(("pools", "NAME", "environment")):
        if isinstance(value, Mapping):
            return {key: redact((*path, str(key)), inner) for key, inner in value.items()}
        return MASK
    secret = _SECRET_IN_VARIABLE.search(path[-1]) or _is_credential(path[-1], value)
    return MASK if secret else _without_passwords(value)


def _is_credential(variable: str, value: Any) -> bool:
    """Tell whether a variable is a runtime parameter that is a credential, by its text.

    It says so, or is a mapping without a type.
    """
    text = str(value).lower()
    is_mapping = text.lstrip().startswith(("{", "[{")) and '"payload"' not in text
    return variable.startswith("MLOPS_RUNTIME_PARAM_") and ("credential" in text or is_mapping)


def looks_secret(variable: str) -> bool:
    """Tell whether an environment variable of this name is to be hidden."""
    return _SECRET_IN_VARIABLE.search(variable) is not None


def _without_passwords(value: Any) -> Any:
    """Hide the password of a URL such as `postgres://user:password@host/name`."""
    return _USERINFO.sub(rf"\1:{MASK}", value) if isinstance(value, str) else value
