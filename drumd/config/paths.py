"""Paths in the config: relative ones are taken from where they were said."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from drumd.config.layers import Layer, pool_tables
from drumd.config.settings import Settings
from drumd.wire.address import AddressError, UnixAddress, parse_address


def with_absolute_paths(layer: Layer) -> Layer:
    """Return the layer with its paths made absolute: from the file's directory, or the current one.

    Symlinks stay, so that a `current` that points to a release is followed anew at each rollout.
    """
    data = {**layer.data}
    supervisor = data.get("supervisor")
    if isinstance(supervisor, dict) and "admin_socket" in supervisor:
        path = _absolute(supervisor["admin_socket"], layer.directory)
        data["supervisor"] = {**supervisor, "admin_socket": path}
    pools = {name: _pool(pool, layer.directory) for name, pool in pool_tables(data)}
    if pools:
        data["pools"] = {**data["pools"], **pools}
    return replace(layer, data=data)


def with_default_directories(
    settings: Settings, layers: Sequence[Layer], otherwise: Path
) -> Settings:
    """Let an app without `app_dir` be imported from the directory of the file that names it.

    Where nobody names the app, which is a problem of its own, it is `otherwise`.
    """
    pools = dict(settings.pools)
    for name, pool in pools.items():
        saying = [
            (layer.directory, said)
            for layer in layers
            for pool_name, said in pool_tables(layer.data)
            if pool_name == name
        ]
        if not any("app_dir" in said for _, said in saying):
            directories = [directory for directory, said in saying if "app" in said]
            directory = next(iter(directories), otherwise)
            pools[name] = pool.model_copy(update={"app_dir": str(directory)})
    return settings.model_copy(update={"pools": pools})


def _pool(pool: dict[str, Any], directory: Path) -> dict[str, Any]:
    changed = {**pool}
    if "app_dir" in pool:
        changed["app_dir"] = _absolute(pool["app_dir"], directory)
    bind = pool.get("bind")
    if isinstance(bind, (list, tuple)):
        changed["bind"] = [_absolute_bind(item, directory) for item in bind]
    elif bind is not None:
        changed["bind"] = _absolute_bind(bind, directory)
    return changed


def _absolute(path: object, directory: Path) -> object:
    """Return the path made absolute; what is none is left for validation to refuse."""
    if not isinstance(path, str) or not path:
        return path
    try:
        return str(directory / Path(path).expanduser())
    except RuntimeError:  # ~somebody, and nobody knows that somebody
        return path


def _absolute_bind(bind: object, directory: Path) -> object:
    try:
        address = parse_address(bind) if isinstance(bind, str) else None
    except AddressError:
        return bind  # validation says what is wrong with it
    return (
        f"unix:{_absolute(address.path, directory)}" if isinstance(address, UnixAddress) else bind
    )
