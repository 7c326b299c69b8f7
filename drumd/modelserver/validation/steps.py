"""What came of each thing that was tried."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a step ended."""

    OK = "ok"
    WARNING = "warning"
    """It serves, but somebody should look at it."""
    FAILED = "failed"
    """It has to be fixed."""
    SKIPPED = "skipped"
    """It could not be tried."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried."""

    name: str
    state: State
    text: str
    advice: tuple[str, ...] = ()
    """What to do about it."""
    traceback: str = ""
    """That of the model's own code, where it raised."""


def ok(name: str, text: str) -> Step:
    """Return a step that went well."""
    return Step(name, State.OK, text)


def warning(name: str, text: str, *advice: str) -> Step:
    """Return a step that somebody should look at."""
    return Step(name, State.WARNING, text, advice)


def failed(name: str, text: str, *advice: str, traceback: str = "") -> Step:
    """Return a step whose cause has to be fixed."""
    return Step(name, State.FAILED, text, advice, traceback)


def skipped(name: str, text: str, *advice: str) -> Step:
    """Return a step that could not be tried."""
    return Step(name, State.SKIPPED, text, advice)
