"""Open file descriptors that are to survive an exec: told from other numbers by their type."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


class Fd(int):
    """The number of an open fd, in a value that says what is kept over a re-exec."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, handler: "GetCoreSchemaHandler"
    ) -> "CoreSchema":
        from pydantic_core import core_schema  # noqa: PLC0415 - only who reads and writes state

        return core_schema.no_info_after_validator_function(cls, handler(int))


def fds_in(value: object) -> Iterator[Fd]:
    """Yield every fd in a value that is made of dataclasses, mappings, tuples and sets."""
    if isinstance(value, Fd):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from fds_in(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from fds_in(item)
    elif isinstance(value, (tuple, list, set, frozenset)):
        for item in value:
            yield from fds_in(item)
