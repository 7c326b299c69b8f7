"""What a runtime parameter that drumd itself reads is like, and the names of some."""

import math
from dataclasses import dataclass
from typing import Any

from drumd.config.modelserver.definitions import range_in_words
from drumd.config.modelserver.values import ParameterType, plain
from drumd.config.problems import nearest

MAX_WORKERS = 256
"""As in `drumd.config.kinds`, which is too much to import for a worker; a test compares."""

NUMERIC, STRING = ParameterType.NUMERIC, ParameterType.STRING

SERVER_TYPE = "DRUM_SERVER_TYPE"
SERVER_TYPES = ("fastapi", "flask", "gunicorn", "uvicorn")
WORKERS = "CUSTOM_MODEL_WORKERS"
THREADS = "CUSTOM_MODEL_THREADS"
QUEUE = "CUSTOM_MODEL_QUEUE"
REQUEST_TIMEOUT = "DRUM_CLIENT_REQUEST_TIMEOUT"
MAX_BODY = "DRUM_MAX_REQUEST_SIZE"
BACKEND_HOST = "OPENAI_HOST"
BACKEND_PORT = "OPENAI_PORT"
UVICORN_WORKER_CLASS = "DRUM_UVICORN_WORKER_CLASS"
UVICORN_CONNECTIONS = "DRUM_UVICORN_WORKER_CONNECTIONS"

PLAIN_VARIABLES = frozenset({BACKEND_HOST, BACKEND_PORT})
"""Parameters that are also taken from environment variables of that very name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A parameter that drumd reads."""

    name: str
    type: ParameterType
    meaning: str
    least: int | None = None
    most: int | None = None
    whole: bool = False
    choices: tuple[str, ...] = ()
    default: str = ""
    """As documents show it."""
    keys: tuple[str, ...] = ()
    """Keys of the pool in drumd.toml that it sets."""
    server: str = ""
    """The runtime that it counts for; all of them, where it is empty."""
    allow_empty: bool = False

    def check(self, value: Any) -> Any:
        """Return the value as drumd uses it; raise `ValueError` that says what is allowed."""
        if self.allow_empty and value in (None, ""):
            return None
        return self._choice(value) if self.type is STRING else self._number(value)

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        if self.choices:
            return ", ".join(self.choices)
        if self.type is STRING:
            return "string"
        noun = "whole number" if self.whole else "number"
        return f"{noun} {range_in_words(self.least, self.most)}"

    def _choice(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be {self._expected}")  # noqa: TRY004 - collected with others
        if not self.choices:
            return value
        # A class may be named with its module, as gunicorn's -k has it.
        named = value.lower().removeprefix("uvicorn.workers.").removeprefix("uvicorn_worker.")
        for choice in self.choices:
            if choice.lower() == (named if self.name == UVICORN_WORKER_CLASS else value.lower()):
                return choice
        if self.name == SERVER_TYPE:
            raise ValueError(
                f"ValueError: Invalid {SERVER_TYPE}: {value!r}. "
                f"Valid options are: {', '.join(SERVER_TYPES)}"
            )
        meant = nearest(value, self.choices)
        hint = f"; did you mean {meant}?" if meant else ""
        raise ValueError(f"must be {self._expected}{hint}")

    def _number(self, value: Any) -> float:
        # The type that the model gives it may be a string, since others read it as one.
        value = plain(value) if isinstance(value, str) else value
        number = value if type(value) in (int, float) else math.nan
        least, most = self.least or 0, self.most or 0  # every number has both
        if not least <= number <= most or (self.whole and number != int(number)):
            raise ValueError(f"must be {self._expected}")
        return int(number) if self.whole else float(number)

    @property
    def _expected(self) -> str:
        return f"one of {self.allowed}" if self.choices else f"a {self.allowed}"
