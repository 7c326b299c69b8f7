"""The kinds of values that keys have, with what makes each valid, in words for operators."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from drumd.config.quantities import ByteSize, Seconds
from drumd.wire.address import TcpAddress, parse_address

MAX_WORKERS = 256
"""Workers of one pool; far above what one machine serves with, and a typing error is caught."""

POOL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""Names appear in metrics, paths, environment variables and `POOL/SLOT`."""

_IDENTIFIER = r"[^\W\d]\w*"
_IN_MODULE = re.compile(rf"{_IDENTIFIER}(\.{_IDENTIFIER})*:{_IDENTIFIER}(\.{_IDENTIFIER})*")
_RANGE = re.compile(r"([0-9]+) ?- ?([0-9]+)")
_RANGE_TABLE = frozenset({"min", "max"})
_PROBE = re.compile(r"/[!-\"$-~]*")
"""What may stand in the first line of a request (RFC 9112, §3.2.1): visible ASCII, no fragment."""


@dataclass(frozen=True, slots=True)
class WorkerRange:
    """From `least` to `most` workers, by the load; raise `ValueError` for what is no range."""

    least: int
    most: int

    def __post_init__(self) -> None:
        """Check both ends."""
        if not 1 <= self.least <= MAX_WORKERS or not 1 <= self.most <= MAX_WORKERS:
            raise ValueError(f"must have a min and a max from 1 to {MAX_WORKERS}")
        if self.most < self.least:
            raise ValueError(f"must have a max of at least its min, which is {self.least}")

    def __str__(self) -> str:
        return f"{self.least}-{self.most}"

    def clamp(self, size: int) -> int:
        """Return the size in the range that is nearest to `size`."""
        return max(self.least, min(size, self.most))


def _worker_count(value: object) -> object:
    if isinstance(value, WorkerRange):
        return value
    if isinstance(value, Mapping):
        return _range_of_table(value)
    if isinstance(value, str):
        value = value.strip().lower()
        ends = _RANGE.fullmatch(value)
        if value == "auto":
            return value
        if ends:
            return WorkerRange(int(ends[1]), int(ends[2]))
    count = _whole(value)
    if count is None or not 1 <= count <= MAX_WORKERS:
        raise ValueError(
            f'must be a whole number from 1 to {MAX_WORKERS}, or "auto", or a range such as "2-8"'
        )
    return count


def _range_of_table(table: Mapping[object, object]) -> WorkerRange:
    if table.keys() != _RANGE_TABLE:
        raise ValueError("must have a min and a max and nothing else; write { min = 2, max = 8 }")
    least, most = _whole(table["min"]), _whole(table["max"])
    if least is None or most is None:
        raise ValueError("must have whole numbers as min and max")
    return WorkerRange(least, most)


def _whole(value: object) -> int | None:
    """Return the whole number that a number or a text is, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        return int(value)
    except ValueError:
        return None


def _whole_number(value: object) -> object:
    """Refuse what pydantic would turn into a whole number: `true`, and 2.0."""
    if isinstance(value, (bool, float)):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic collects ValueError
    return value


def _number(value: object) -> object:
    """Refuse what pydantic would turn into a number: `true`."""
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic collects ValueError
    return value


def _app(text: str) -> str:
    if _IN_MODULE.fullmatch(text):
        return text
    raise ValueError(f"must name the app as module:attribute{_app_advice(text)}")


def _app_advice(text: str) -> str:
    module, colon, attribute = text.partition(":")
    if attribute.endswith(")"):
        return "; leave the parentheses away: a factory that takes no arguments is called"
    if "/" in module or module.endswith(".py"):
        directory, _, name = module.rpartition("/")
        directory_hint = f', with app_dir = "{directory}"' if directory else ""
        return f", such as {name.removesuffix('.py')}:{attribute or 'app'}{directory_hint}"
    if not colon and module:
        return f", such as {module}:app"
    return ", such as main:app"


def _hook(text: str) -> str:
    if _IN_MODULE.fullmatch(text):
        return text
    module, _, function = text.removesuffix("()").rpartition("." if ":" not in text else ":")
    meant = f"{module}:{function}"
    advice = f"; write {meant}" if _IN_MODULE.fullmatch(meant) else ", such as main:close_pool"
    raise ValueError(f"must name a function as module:function{advice}")


def _probe_path(text: str) -> str:
    if _PROBE.fullmatch(text):
        return text
    if not text.startswith("/"):
        raise ValueError('must be a path that begins with "/"; write e.g. /healthz')
    raise ValueError("must be a path as a request has it; write spaces, # and the like as %20, %23")


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _address(text: str) -> str:
    """Return the address in the one form that compares."""
    return str(parse_address(text))


def _tcp_address(text: str) -> str:
    if not isinstance(parse_address(text), TcpAddress):
        raise ValueError(  # noqa: TRY004 - pydantic collects ValueError
            "must be host:port; who may use a path is said by admin_socket"
        )
    return text


def _socket_path(path: str) -> str:
    """Refuse what the kernel takes for no socket's path."""
    parse_address(f"unix:{path}")
    return path


def _variables(environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"cannot set a variable {name!r}; names have no =, and nothing a NUL")
        if name.startswith("DRUMD_"):
            raise ValueError(f"cannot set {name}; drumd tells its workers by this name")
    return environment


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _pool_name(name: str) -> str:
    if not POOL_NAME.fullmatch(name):
        raise ValueError(
            "cannot be a pool's name; write small letters, digits, - and _, first a letter"
        )
    return name


Duration = Annotated[float, Seconds()]
Size = Annotated[int, ByteSize()]
Count = Annotated[int, BeforeValidator(_whole_number)]
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_number)]
Workers = Annotated[int | Literal["auto"] | WorkerRange, BeforeValidator(_worker_count)]
App = Annotated[str, AfterValidator(_app)]
Hook = Annotated[str, AfterValidator(_hook)]
"""A function of the app's, called by name."""
ProbePath = Annotated[str, AfterValidator(_probe_path)]
Address = Annotated[str, AfterValidator(_address)]
Addresses = Annotated[tuple[Address, ...], BeforeValidator(_one_or_many)]
TcpBind = Annotated[Address, AfterValidator(_tcp_address)]
SocketPath = Annotated[str, Field(min_length=1), AfterValidator(_socket_path)]
Variables = Annotated[dict[str, str], AfterValidator(_variables)]
PoolName = Annotated[str, AfterValidator(_pool_name)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
