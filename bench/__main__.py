"""`python -m bench`: measure, and print the tables."""

import argparse
import importlib
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import document, machine
from bench.effort import FULL, QUICK, Effort
from bench.load import wrk_is_there
from bench.report import Result
from bench.servers import UVICORN_WORKER, BenchError

MEASURES = (
    "throughput",
    "spread",
    "queueing",
    "replacement",
    "idle",
    "instruments",
    "status",
    "reloads",
    "broken_release",
    "crash",
    "memory",
    "models",
)
_NEED_WRK = {"throughput", "models"}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for; return 1 when something could not be measured."""
    arguments = _arguments(argv)
    # Else the servers would outlive a bench that is told to end.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    effort = QUICK if arguments.quick else FULL
    facts = machine.describe()
    if not arguments.json:
        print("\n".join(f"* {name}: {fact}" for name, fact in facts.items()), flush=True)
    if UVICORN_WORKER.missing:
        _complain(
            f"cannot find uvicorn-worker: {UVICORN_WORKER.name} is left out; "
            "run: pip install uvicorn-worker"
        )
    results: list[Result] = []
    failed = False
    for name in arguments.only or MEASURES:
        try:
            result = _measure(name, effort)
        except BenchError as error:
            _complain(f"{name}: {error}")
            failed = True
            continue
        results.append(result)
        if not arguments.json:
            print(f"\n{result.as_text()}", flush=True)
    if arguments.write:
        document.update(arguments.write, results, facts, _command(arguments))
    if arguments.json:
        written = {"machine": facts, "results": [result.as_document() for result in results]}
        print(json.dumps(written, indent=2))
    return int(failed)


def _measure(name: str, effort: Effort) -> Result:
    if name in _NEED_WRK and not wrk_is_there():
        raise BenchError("cannot find wrk, which makes the load; run: sudo apt-get install wrk")
    # Each is imported only now: one that cannot be imported leaves the others alone.
    measure: Callable[[Effort], Result] = importlib.import_module(f"bench.measures.{name}").measure
    return measure(effort)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare drumd with the servers it runs, each under its own master, in one "
        "run, on loopback ports. Figures of different runs don't compare.",
    )
    parser.add_argument("--quick", action="store_true", help="about a minute, and rough")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="put the tables into a document, such as docs/benchmarks.md, in place of older ones",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=MEASURES,
        metavar="NAME",
        help=f"only this one, may be repeated: {', '.join(MEASURES)}",
    )
    return parser.parse_args(argv)


def _command(arguments: argparse.Namespace) -> str:
    """Return the command that measures the same again."""
    only = [f"--only {name}" for name in arguments.only or ()]
    return " ".join(["python -m bench", *["--quick"] * arguments.quick, *only])


def _complain(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
