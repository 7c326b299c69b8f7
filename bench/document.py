"""Results in a document: each in a part of its own between two marks, what is around it stays."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.report import Result
from bench.servers import BenchError


def update(path: Path, results: Sequence[Result], facts: Mapping[str, str], command: str) -> None:
    """Put the results in the place of older ones of the same name; new ones go to the end.

    Each says what it was measured with, since they need not be of the same run.
    """
    text = path.read_text() if path.exists() else "# Benchmarks\n"
    for result in results:
        begin, end = (f"<!-- bench: {result.name}{mark} -->" for mark in ("", ", end"))
        part = f"{begin}\n{_part(result, facts, command)}\n{end}"
        before, found, rest = text.partition(begin)
        if found:
            _, closed, after = rest.partition(end)
            if not closed:
                raise BenchError(f"cannot update {path}: {begin} is without {end}; delete it")
            text = before + part + after
        else:
            text = f"{text.rstrip()}\n\n{part}\n"
    path.write_text(text)


def _part(result: Result, facts: Mapping[str, str], command: str) -> str:
    told = "; ".join(f"{name} {fact}" for name, fact in facts.items())
    return f"{result.as_text()}\n\nMeasured by `{command}`: {told}.\n"
