"""The config in force, as a document for programs: each value and where it came from."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from drumd.config.check import render
from drumd.config.layers import KeyPath
from drumd.config.loading import Loaded
from drumd.config.modelserver import inforce as model_inforce
from drumd.config.secrets import redact
from drumd.config.writing import written


def document(loaded: Loaded, *, color: bool) -> dict[str, Any]:
    """Return the config as JSON has it; secrets are masked. `text` is as `drumd check` prints it.

    `color` is for `text` alone. Values are written as in the config file; null is not set.
    """
    source = loaded.sources.config
    return {
        "file": None if source is None else str(loaded.sources.directory / source),
        "keys": [
            {"key": ".".join(path), "value": value, "origin": loaded.origins[".".join(path)]}
            for path, value in _values((), loaded.settings)
        ],
        "model": None if loaded.model is None else model_inforce.document(loaded.model),
        "warnings": [str(warning) for warning in loaded.warnings],
        "text": render(loaded, color=color),
    }


def _values(path: KeyPath, section: BaseModel) -> Iterator[tuple[KeyPath, Any]]:
    for name, known in type(section).model_fields.items():
        value, inner = getattr(section, name), (*path, name)
        if isinstance(value, BaseModel):
            yield from _values(inner, value)
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, BaseModel):
                    yield from _values((*inner, key), item)
                else:
                    yield (*inner, key), redact((*inner, key), item)
        else:
            yield inner, redact(inner, written(value, known))
