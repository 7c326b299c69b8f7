"""The table of all keys in docs/configuration.md, made from the settings themselves.

`python -m drumd.config.reference docs/configuration.md` writes it anew.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from drumd.config.effects import effect_of
from drumd.config.kinds import WorkerRange
from drumd.config.layers import is_section, is_table_of_pools
from drumd.config.quantities import ByteSize, Seconds, is_quantity
from drumd.config.settings import PoolSettings, Settings
from drumd.config.writing import to_toml, written

BEGIN = "<!-- keys: written by `python -m drumd.config.reference`, not by hand -->"
END = "<!-- end of keys -->"


def markdown() -> str:
    """Return all keys as Markdown, a table for each TOML table."""
    return "\n\n".join(_tables(Settings, ())) + "\n"


def with_reference(document: str) -> str:
    """Return the document with the tables between its two marks made anew."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{markdown()}\n{END}{after}"


def _tables(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[str]:
    rows = []
    below: list[tuple[tuple[str, ...], Any, str]] = []
    for name, known in model.model_fields.items():
        annotation, description = known.annotation, known.description or ""
        if is_section(annotation):
            below.append(((*path, name), annotation, description))
        elif is_table_of_pools(annotation):
            below.append(((*path, name, "NAME"), PoolSettings, description))
        elif get_origin(annotation) is dict:
            below.append(
                ((*path, name), None, f"{description}. Effect of a change: {effect_of(known)}")
            )
        else:
            rows.append(_row(name, known))
    if rows:
        head = "| key | kind | default | effect | meaning |\n|---|---|---|---|---|\n"
        yield head + "\n".join(rows)
    for inner_path, inner, description in below:
        yield f"### `[{'.'.join(inner_path)}]`\n\n{description[:1].upper()}{description[1:]}."
        if inner is not None:
            yield from _tables(inner, inner_path)


def _row(name: str, known: FieldInfo) -> str:
    default = known.get_default(call_default_factory=False)
    if known.is_required():
        shown = "required"
    elif default is None:
        shown = "not set"
    else:
        shown = f"`{to_toml(written(default, known))}`"
    return f"| `{name}` | {_kind(known)} | {shown} | {effect_of(known)} | {known.description} |"


def _kind(known: FieldInfo) -> str:
    if is_quantity(known, Seconds):
        return "duration"
    if is_quantity(known, ByteSize):
        return "size"
    return _kind_of(known.annotation)


def _kind_of(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind_of(get_args(annotation)[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if origin is tuple:
        return "list of strings"
    if origin is not None:  # a union
        kinds = [_kind_of(part) for part in get_args(annotation) if part is not type(None)]
        return " or ".join(kinds)
    return _PLAIN_KINDS[annotation]


_PLAIN_KINDS: dict[Any, str] = {
    str: "string",
    int: "whole number",
    float: "number",
    bool: "`true`, `false`",
    WorkerRange: "range",
}


def main() -> None:
    """Write the tables anew into the document that the command line names."""
    document = Path(sys.argv[1])
    document.write_text(with_reference(document.read_text()))


if __name__ == "__main__":
    main()
