"""Results, and how they are shown: Markdown that a terminal shows as well."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

Value = str | float | int | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result: the key of its values, its title, and how a number is written."""

    key: str
    title: str
    form: str = ""

    def show(self, value: Value) -> str:
        """Return the text for a cell."""
        if value is None:
            return "-"
        return value if isinstance(value, str) else format(value, self.form)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A promise of drumd's, beside what was measured."""

    what: str
    value: float
    limit: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Return whether it was kept in this run."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        side = "at most" if self.at_most else "at least"
        verdict = "met" if self.met else "NOT MET"
        return f"{self.what}: {self.value:.3g}, wanted {side} {self.limit:g}: {verdict}"


@dataclass(slots=True)
class Result:
    """The answer to one question."""

    name: str
    question: str
    columns: Sequence[Column]
    rows: list[dict[str, Value]]
    wanted: list[Wanted] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_text(self) -> str:
        """Return it as Markdown."""
        head = [column.title for column in self.columns]
        body = [[column.show(row.get(column.key)) for column in self.columns] for row in self.rows]
        widths = [max(map(len, cells)) for cells in zip(head, *body, strict=True)]
        lines = [f"## {self.name}", "", self.question, "", _line(head, widths)]
        lines.append(_line([("-" * width) for width in widths], widths))
        lines += [_line(cells, widths) for cells in body]
        if self.wanted:
            lines += ["", *(f"* {promise}" for promise in self.wanted)]
        if self.notes:
            lines += ["", *self.notes]
        return "\n".join(lines)

    def as_document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "name": self.name,
            "question": self.question,
            "rows": self.rows,
            "wanted": [{**asdict(promise), "met": promise.met} for promise in self.wanted],
            "notes": self.notes,
        }


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of ours to theirs, taken round by round.

    Other work on the machine slows a round as a whole, so a ratio within a round is worth more
    than one of two medians.
    """
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that is not exceeded by `part` (0 to 1) of all."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.ljust(width) if number == 0 else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join((first, *rest))} |"
