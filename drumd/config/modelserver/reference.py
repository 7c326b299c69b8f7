"""The table in docs/runtime-parameters.md, made from the parameters that drumd knows.

`python -m drumd.config.modelserver.reference docs/runtime-parameters.md` writes it anew.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from drumd.config.modelserver.definitions import range_in_words
from drumd.config.modelserver.known import Known
from drumd.config.modelserver.table import TABLE

BEGIN = "<!-- table: written by `python -m drumd.config.modelserver.reference`, not by hand -->"
END = "<!-- end of table -->"

_COLUMNS = ("parameter", "type", "range", "default", "key of the pool", "meaning")


def markdown() -> str:
    """Return all known parameters as a Markdown table."""
    rows = [_line(_COLUMNS), "|" + "---|" * len(_COLUMNS), *map(_row, TABLE)]
    return "\n".join(rows) + "\n"


def with_reference(document: str) -> str:
    """Return the document with the table between its two marks made anew."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{markdown()}\n{END}{after}"


def _row(known: Known) -> str:
    default = known.default if known.default == "not set" else f"`{known.default}`"
    keys = ", ".join(f"`{key}`" for key in known.keys) or "none"
    cells = (f"`{known.name}`", str(known.type), _range(known), default, keys, known.meaning)
    return _line(cells)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _range(known: Known) -> str:
    if known.choices:
        return ", ".join(f"`{choice}`" for choice in known.choices)
    if known.most is None:
        return "any"
    words = range_in_words(known.least, known.most)
    return f"{words}, whole" if known.whole else words


def main() -> None:
    """Write the table anew into the document that the command line names."""
    document = Path(sys.argv[1])
    document.write_text(with_reference(document.read_text()))


if __name__ == "__main__":
    main()
