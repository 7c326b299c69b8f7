"""Command lines: argparse with messages that say what to write instead."""

import argparse
import itertools
from collections.abc import Iterable, Sequence
from typing import NoReturn


class UsageError(Exception):
    """cannot read the command line."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError`, and knows what an unknown flag was meant to be.

    `example` is shown at the end of the help.
    """

    def __init__(
        self, prog: str, description: str, example: str, *, usage: str | None = None
    ) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=f"example:\n{_indented(example)}",
            formatter_class=_Formatter,
            # An abbreviation that works today is ambiguous after the next flag is added.
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`; argparse would print its usage and exit."""
        raise UsageError(f"cannot read the command line: {message}; see `{self.prog} --help`")

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all of `arguments`; raise `UsageError` that names what is unknown."""
        known, unknown = self.parse_known_args(list(arguments))
        if unknown:
            word = unknown[0].partition("=")[0]
            flags = [flag for action in self._actions for flag in action.option_strings]
            what = "unknown flag" if word.startswith("-") else "unexpected argument"
            self.error(f"{what} {word!r}{meant(word, flags)}")
        return known


class _Formatter(argparse.HelpFormatter):
    """Wraps prose to the terminal, as options are; lists (indented) and their heads stay."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap  # noqa: PLC0415 - only help pays for it

        def fixed(line: str) -> bool:
            return not line or line.startswith(" ") or line.endswith(":")

        filled: list[str] = []
        for keep, group in itertools.groupby(text.splitlines(), fixed):
            lines = list(group)
            filled += lines if keep else textwrap.wrap(" ".join(lines), width)
        return "\n".join(f"{indent}{line}" for line in filled)


def meant(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean …?` when one of `known` is near to `word`, else nothing."""
    import difflib  # noqa: PLC0415 - only mistakes pay for it

    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
