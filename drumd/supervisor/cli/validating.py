"""`drumd validate`: try a model out, and say what to fix."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from drumd.supervisor.cli.arguments import Parser
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
from drumd.supervisor.cli.terminal import DIM, GREEN, RED, YELLOW, Terminal

if TYPE_CHECKING:
    from drumd.modelserver.validation.steps import Step

DESCRIPTION = """\
Try a model out before it serves: read its settings, compare its packages, load it, let it answer a
sample, look at the answers, and say what to fix. Without --input, the sample is numbers in the
columns that the model says it wants.

Exit code: 0 valid, if with warnings; 1 something has to be fixed; 2 a wrong flag; 3 the model
cannot be loaded; 78 its settings are invalid."""
EXAMPLE = """\
drumd validate --code-dir model
drumd validate --code-dir model --input patients.csv --json"""

_SIGNS = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "-"}
_WORDS = {"ok": "ok", "warning": "warning", "failed": "FAILED", "skipped": "skipped"}
_COLOURS = {"ok": GREEN, "warning": YELLOW, "failed": RED, "skipped": DIM}


def arguments(parser: Parser) -> None:
    """Add the flags of `drumd validate`."""
    add = parser.add_argument
    add("--input", metavar="FILE", help="data to try; of a table, its first 100 rows")
    add("--columns", metavar="FILE", help="names of the columns of a .mtx file, one a line")
    add("--json", action="store_true", help="one JSON document")
    add_model_flags(parser, or_here=True)


def run(given: argparse.Namespace) -> int:
    """Validate; return the exit code."""
    from drumd.errors import PlainError  # noqa: PLC0415 - as in drumd.py

    try:
        # What the model's code prints is no result.
        with interruptible(), results_alone() as standard:
            out = open(standard.fileno(), "w", encoding=sys.stdout.encoding, closefd=False)  # noqa: SIM115 - a file descriptor, which results_alone closes
            return _validate(given, out)
    except Interrupted as interruption:
        print(f"drumd: interrupted by {interruption.signal.name}", file=sys.stderr)
        return 128 + interruption.signal
    except PlainError as error:
        return tell(error)
    except ModuleNotFoundError as error:
        return told_missing(error)


def _validate(given: argparse.Namespace, out: TextIO) -> int:
    from drumd.modelserver.batch.chunks import Input  # noqa: PLC0415 - as in drumd.py

    source = None
    if given.input is not None:
        source = Input(absolute(given.input), absolute(given.columns))
        source.check()
    reading = read_model(given)
    if not reading.problems:  # one may be that there is no such directory
        enter(reading.settings)
    from drumd.modelserver.validation.validating import Validation  # noqa: PLC0415 - needs pandas

    validation = Validation(reading, source)
    terminal = Terminal(out, os.environ)
    steps = []
    for step in validation.steps():
        steps.append(step)
        if not given.json:
            _show(step, terminal)
    if given.json:
        document = {
            "code_dir": str(reading.settings.code_dir),
            "exit_code": int(validation.exit),
            "steps": [asdict(step) for step in steps],
        }
        terminal.line(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        terminal.line(_verdict(steps))
    return validation.exit


def _show(step: "Step", terminal: Terminal) -> None:
    fancy = terminal.interactive and terminal.unicode
    sign = _SIGNS[step.state] if fancy else f"{_WORDS[step.state]:<7}"
    terminal.line(f"{terminal.paint(sign, _COLOURS[step.state])} {step.name}: {step.text}")
    indent = " " * (2 if fancy else 8)
    for advice in step.advice:
        terminal.line(f"{indent}{'→' if fancy else '->'} {advice}")
    for line in step.traceback.splitlines():
        terminal.line(f"{indent}  {line}")


def _verdict(steps: "list[Step]") -> str:
    wrong = sum(step.state == "failed" for step in steps)
    warnings = sum(step.state == "warning" for step in steps)
    noted = f", with {_counted(warnings, 'warning')}" if warnings else ""
    if wrong:
        return f"{_counted(wrong, 'thing')} to fix{noted}"
    return f"valid{noted}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
