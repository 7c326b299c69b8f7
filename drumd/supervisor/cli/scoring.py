"""`drumd score`: a file through a model."""

import argparse
import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from drumd.exitcodes import BatchExit
from drumd.supervisor.cli.arguments import Parser
from drumd.supervisor.cli.bars import share
from drumd.supervisor.cli.interruption import Interrupted, interruptible
from drumd.supervisor.cli.modeldirectory import (
    absolute,
    enter,
    read_model,
    results_alone,
    tell,
    told_missing,
)
from drumd.supervisor.cli.modelflags import add_model_flags
from drumd.supervisor.cli.terminal import Terminal

if TYPE_CHECKING:
    from drumd.modelserver.batch.scoring import Progress

DESCRIPTION = """\
Score a file with a model, without a server. The input is read and scored in chunks, in order; the
output is there as a whole at the end, or not at all.

formats, by suffix:
  input   .csv, .jsonl, .json, .arrow, .feather, .mtx (columns: .colnames)
  output  .csv, .jsonl, .json; of a transform .csv, .arrow or .mtx
  -       CSV from standard input, or to standard output

Exit code: 0 scored, 1 rows that cannot be scored or files that cannot be read or written, 2 a wrong
flag, 3 the model cannot be loaded, 78 its settings are invalid, 130 or 143 interrupted."""
EXAMPLE = """\
drumd score --code-dir model --input patients.csv --output scores.csv
zcat patients.csv.gz | drumd score --code-dir model --input - > scores.csv"""

_REDRAW = 0.1
"""Seconds between two drawings of the bar, at least: more is not seen, and costs the terminal."""


def arguments(parser: Parser) -> None:
    """Add the flags of `drumd score`."""
    add = parser.add_argument
    add("--input", metavar="FILE", required=True, help="what to score; - is standard input")
    add("--output", metavar="FILE", default="-", help="where to (default: -, standard output)")
    add("--columns", metavar="FILE", help="names of the columns of a .mtx file, one a line")
    add(
        "--chunk-rows",
        metavar="N",
        type=_rows,
        help="rows that are read and scored at once (default: 10000; all of them where "
        "custom.py has read_input_data)",
    )
    add("-v", "--verbose", action="store_true", help="a line for each chunk, not a bar")
    add_model_flags(parser, or_here=True)


def run(given: argparse.Namespace) -> int:
    """Score; return the exit code."""
    from drumd.errors import PlainError  # noqa: PLC0415 - as in drumd.py

    # A line that is written over cannot be, among results on the same terminal.
    alone = absolute(given.output) is not None or not sys.stdout.isatty()
    shown = _Shown(Terminal(sys.stderr, os.environ), each_chunk=given.verbose, bar=alone)
    try:
        with interruptible():
            _score(given, shown)
    except Interrupted as interruption:
        shown.clear()
        name = interruption.signal.name
        print(f"drumd: interrupted by {name}: {_left(given.output)}", file=sys.stderr)
        return 128 + interruption.signal
    except PlainError as error:
        shown.clear()
        return tell(error)
    except ModuleNotFoundError as error:
        shown.clear()
        return told_missing(error)
    return BatchExit.DONE


def _score(given: argparse.Namespace, shown: "_Shown") -> None:
    # Imported when needed: `--help` and a typing error are to be answered at once.
    from drumd.config.modelserver.invalid import ModelSettingsInvalid  # noqa: PLC0415
    from drumd.config.modelserver.misspelt import misspelt_parameters  # noqa: PLC0415
    from drumd.modelserver.batch.chunks import Input  # noqa: PLC0415
    from drumd.modelserver.batch.resultfile import ResultFile  # noqa: PLC0415

    source = Input(absolute(given.input), absolute(given.columns))
    source.check()
    output = absolute(given.output)
    with ExitStack() as stack:
        standard = stack.enter_context(results_alone()) if output is None else None
        result = stack.enter_context(ResultFile(output, standard))
        reading = read_model(given)
        for problem in misspelt_parameters(reading.parameters):
            shown.warn(str(problem))
        if reading.problems:
            raise ModelSettingsInvalid(reading.problems)
        enter(reading.settings)
        shown.doing("loading the model")
        from drumd.modelserver.batch.scoring import Scoring  # noqa: PLC0415 - needs pandas
        from drumd.modelserver.inference.model import Model  # noqa: PLC0415

        scoring = Scoring(Model.load(reading.settings), source, result.suffix, given.chunk_rows)
        for progress in scoring.run(result):
            shown.progress(progress)
    # Only now are the results where they belong.
    shown.done(source.name)


class _Shown:
    """Progress on a terminal: a line that is written over. Elsewhere lines, if they are wanted."""

    def __init__(self, terminal: Terminal, *, each_chunk: bool, bar: bool) -> None:
        self._terminal = terminal
        self._bar = bar and terminal.interactive
        self._each_chunk = each_chunk
        self._drawn = -_REDRAW
        self._began = time.monotonic()
        self._rows = 0

    def doing(self, what: str) -> None:
        """Say what is done while there is nothing to count."""
        if self._each_chunk or self._bar:
            self._terminal.show([f"{what} ..."])

    def progress(self, progress: "Progress") -> None:
        """Show how far it is."""
        self._rows = progress.rows
        if self._each_chunk:
            self._terminal.line(_words(progress))
        elif self._bar and time.monotonic() - self._drawn >= _REDRAW:
            bar = "" if progress.share is None else share(progress.share, self._terminal)
            self._terminal.show([f"{bar}{_words(progress)}"])
            self._drawn = time.monotonic()

    def done(self, name: str) -> None:
        """Say what was done; this stays."""
        what = f"{self._rows} rows" if self._rows else name
        self._terminal.line(f"scored {what} in {time.monotonic() - self._began:.1f} s")

    def warn(self, text: str) -> None:
        """Say what is probably not meant; this stays."""
        self._terminal.line(f"drumd: warning: {text}")

    def clear(self) -> None:
        """Take away what would stand in the way of a message."""
        self._terminal.clear()


def _words(progress: "Progress") -> str:
    part = "" if progress.share is None else f"{progress.share:4.0%} "
    rate = progress.rows / progress.seconds if progress.seconds else 0.0
    return f"{part}{progress.rows} rows, {rate:.0f} rows/s"


def _left(output: str) -> str:
    if output == "-":
        return "what was written is not all"
    return f"{output} is as it was before"


def _rows(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows; write 1 or more")
    return int(text)
