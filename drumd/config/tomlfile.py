"""The TOML file as a layer, with the line of each key."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drumd.config.layers import KeyPath, Layer, nearest_origin
from drumd.config.problems import ConfigInvalid, Problem


def file_layer(path: str | os.PathLike[str], directory: Path) -> Layer:
    """Read the config file; raise `ConfigInvalid` when it is not there, unreadable or no TOML.

    A relative path is taken from `directory`.
    """
    file = directory / Path(path).expanduser()
    shown = str(path)
    text = _read(file, shown)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(
            [
                Problem(
                    key=shown,
                    message=f"cannot read it as TOML: {error}",
                    suggestion="strings need quotes, tables are written [pools.NAME]",
                    origin=shown,
                )
            ]
        ) from None
    said_by = {key: f"{shown}:{line}" for key, line in key_lines(text)}
    return Layer(
        data=data,
        directory=file.parent,
        origin_of=lambda key: nearest_origin(said_by, key, otherwise=shown),
    )


def _read(file: Path, shown: str) -> str:
    try:
        # Some editors begin a file with a byte order mark and end lines with CR LF.
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        message = "cannot read the config: there is no such file"
        suggestion = "name it with --config, or serve one app without a file: drumd serve main:app"
    except IsADirectoryError:
        message = "cannot read the config: this is a directory"
        suggestion = f"name the file in it, such as {Path(shown) / 'drumd.toml'}"
    except PermissionError:
        message = f"cannot read the config: no permission for uid {os.geteuid()}"
        suggestion = f"see `namei -l {shown}`"
    except UnicodeDecodeError as error:
        message = f"cannot read the config: byte {error.start + 1} is not UTF-8"
        suggestion = "save the file as UTF-8, which TOML demands"
    except OSError as error:
        message = f"cannot read the config: {error.strerror}"
        suggestion = ""
    raise ConfigInvalid([Problem(key=shown, message=message, suggestion=suggestion, origin=shown)])


def key_lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Yield each table's and key's path with the line on which it begins.

    `text` is valid TOML, so its statements can be told apart exactly: a statement is the shortest
    run of lines that is valid TOML by itself. Only what stands inside an array of tables has no
    path, since no setting is one.
    """
    table: KeyPath = ()
    statement: list[str] = []
    begin = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not statement:
            begin = number
        statement.append(line)
        try:
            said = tomllib.loads("\n".join(statement))
        except tomllib.TOMLDecodeError:
            continue
        is_header = statement[0].lstrip().startswith("[")
        statement.clear()
        paths = list(_paths(said))
        if is_header:
            table = paths[-1] if paths else ()
            yield table, begin
        else:
            yield from (((*table, *path), begin) for path in paths)


def _paths(table: dict[str, Any]) -> Iterator[KeyPath]:
    """Yield the paths of a table's leaves; an empty table is a leaf."""
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from ((name, *path) for path in _paths(value))
        else:
            yield (name,)
