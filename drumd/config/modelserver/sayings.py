"""What flags and environment say to a model server, and which of them said it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Sayings:
    """The environment, with flags above it: each flag has a variable that says the same."""

    environ: Mapping[str, str] = field(repr=False)
    flags: Mapping[str, str] = field(default_factory=dict)
    """By the name of the variable."""

    def get(self, variable: str) -> tuple[str, str] | None:
        """Return what is said and where; None for nothing, and for an empty variable."""
        if self.flags.get(variable):
            return self.flags[variable], f"flag {flag_of(variable)}"
        said = self.environ.get(variable)
        return (said, f"environment {variable}") if said else None

    def one_of(self, *variables: str) -> tuple["Saying", ...]:
        """Return what is said of several variables that exclude each other; flags over others."""
        flagged = tuple(each for each in variables if each in self.flags)
        found = [(each, self.get(each)) for each in flagged or variables]
        return tuple(Saying(each, *said) for each, said in found if said is not None)


@dataclass(frozen=True, slots=True)
class Saying:
    """One thing that was said."""

    variable: str
    text: str
    origin: str


def flag_of(variable: str) -> str:
    """Return the flag that says the same as a variable."""
    return "--" + variable.lower().replace("_", "-")
