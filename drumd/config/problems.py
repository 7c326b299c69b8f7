"""What is wrong with a config, said so that the reader can put it right."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_NO_VALUE = object()

ABSENT: Any = _NO_VALUE
"""Stands for the value of a problem that has none, such as a missing key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong. The value holds no secret: it was redacted when this was made."""

    key: str
    """The dotted key, such as `pools.web.workers`, or the file when that is what is wrong."""
    value: Any = ABSENT
    message: str
    suggestion: str = ""
    """What to do; empty when the message says it all."""
    origin: str = ""
    """Where the value was said: `drumd.toml:12`, `environment DRUMD_…`, `flag --workers`."""

    def __str__(self) -> str:
        value = "" if self.value is ABSENT else f" = {self.value!r}"
        origin = f" ({self.origin})" if self.origin not in ("", self.key) else ""
        suggestion = f"; {self.suggestion}" if self.suggestion else ""
        return f"{self.key}{value}{origin}: {self.message}{suggestion}"


class ConfigInvalid(Exception):  # noqa: N818 - named after the fact, as exit code 78 is
    """cannot use the config."""

    def __init__(self, problems: Iterable[Problem], hints: Iterable[Problem] = ()) -> None:
        self.problems = list(problems)
        self.hints = list(hints)
        """What is allowed, and may be why something is missing: names that look misspelt."""
        super().__init__("cannot use the config: " + " | ".join(map(str, self.problems)))


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """Return the known word that `word` was probably meant to be; a likeness of 1 is equality."""
    known = list(known)
    plain = {candidate.replace("-", "_").lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(word.replace("-", "_").lower(), plain, n=1, cutoff=likeness)
    return plain[matches[0]] if matches else None
