"""`drumctl`: ask the daemon how it is, and have it do things.

The standard library alone, and little of it: `drumctl status` is run by hand and by scripts, often.
"""

import os
import sys
from collections.abc import Sequence

from drumd import __version__
from drumd.exitcodes import ControlExit
from drumd.supervisor.cli.arguments import Parser, UsageError, meant
from drumd.supervisor.cli.call import Call
from drumd.supervisor.cli.client import ControlError, find
from drumd.supervisor.cli.commands import COMMANDS
from drumd.supervisor.cli.outcome import INTERRUPTED
from drumd.supervisor.cli.terminal import Terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Run `drumctl`; return its exit code (`drumd.exitcodes.ControlExit`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except UsageError as error:
        print(f"drumctl: {error}", file=sys.stderr)
        return ControlExit.USAGE
    except ControlError as error:
        print(f"drumctl: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        # Whoever read has read enough (`| head`). What is left in the buffer must not be tried
        # again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ControlExit.OK
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _run(arguments: list[str]) -> int:
    options, words = _split(arguments)
    common = _top_parser().read(options)
    if not words:
        raise UsageError("cannot read the command line: no command; see `drumctl --help`")
    name, *rest = words
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(
            f"cannot read the command line: unknown command {name!r}{meant(name, COMMANDS)}; "
            f"there are {', '.join(COMMANDS)}"
        )
    parser = Parser(f"drumctl {name}", command.description, command.example)
    command.arguments(parser)
    _add_common(parser)
    given = parser.read(rest)
    given.socket = given.socket or common.socket
    given.json = given.json or common.json
    call = Call(
        find(given.socket, os.environ),
        given,
        Terminal(sys.stdout, os.environ),
        Terminal(sys.stderr, os.environ),
    )
    return command.run(call)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split what stands before the command from the command and what follows."""
    index = 0
    while index < len(arguments) and arguments[index].startswith("-"):
        index += 2 if arguments[index] == "--socket" else 1
    return arguments[:index], arguments[index:]


def _top_parser() -> Parser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {cmd.summary}" for name, cmd in COMMANDS.items())
    parser = Parser(
        "drumctl",
        f"Operate drumd.\n\ncommands:\n{listed}\n\n"
        "`drumctl COMMAND --help` tells more. Exit codes: 0 done, or all ready; 1 degraded, or\n"
        "the operation failed; 2 wrong command line or name; 3 no daemon; 4 it cannot be told.",
        "drumctl status\ndrumctl restart web/0",
        usage="drumctl [--socket PATH] [--json] COMMAND ...",
    )
    _add_common(parser)
    parser.add_argument("--version", action="version", version=f"drumctl {__version__}")
    return parser


def _add_common(parser: Parser) -> None:
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help="the daemon's admin socket (default: DRUMD_SOCKET, else the only daemon found)",
    )
    parser.add_argument("--json", action="store_true", help="print documents for programs")


if __name__ == "__main__":
    sys.exit(main())
