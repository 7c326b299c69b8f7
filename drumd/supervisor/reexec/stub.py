"""The stub: where a program that takes over begins, with the standard library alone.

What it imports further down may be of a release that does not fit the state, or is broken. Until
the new program runs, nothing has been read from, written to or closed of what was kept: so the old
program can be executed again, on the same state, by whatever error.
"""

import json
import os
import sys
import traceback
from typing import NoReturn

_MAX_FAILURE = 2000
"""Characters of the reason that the old program is told."""
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))  # noqa: PTH120 - no pathlib here


def main() -> int:
    """Be the old program again: `python stub.py ARGUMENTS`, with an order in the environment."""
    sys.path.insert(0, _PACKAGE)
    return enter()


def enter() -> int:
    """Do what the order in the environment says; return the daemon's exit code."""
    from drumd.supervisor.reexec.order import take_order  # noqa: PLC0415 - see above

    order = take_order(os.environ)
    if order is None:
        raise SystemExit("drumd: cannot resume: there is no order in the environment")
    if order.task == "check":
        return _check(order.state, order.answer)
    try:
        from drumd.supervisor.running import resume_daemon  # noqa: PLC0415 - see above

        run = resume_daemon(order.state, order.failure)
    except BaseException as error:
        # What was built so far stays referred to by the traceback: nothing is closed before this.
        if order.task == "return":
            raise
        _return(order.state, error)
    return run()


def _check(state: int, answer: int) -> NoReturn:
    """Do all that a resumption does up to the point of no return, and say that it could."""
    from drumd import __version__  # noqa: PLC0415 - see above
    from drumd.supervisor.reexec.errors import ReexecError  # noqa: PLC0415 - see above
    from drumd.supervisor.running import resume_daemon  # noqa: PLC0415 - see above

    try:
        resume_daemon(state, "")
    except ReexecError as error:
        sys.exit(str(error))
    os.write(answer, json.dumps({"version": __version__}).encode() + b"\n")
    # At once: what was built here would remove files at its end that are another's.
    os._exit(0)


def _return(state: int, error: BaseException) -> NoReturn:
    """Execute the old program; raise `error` when even that cannot be."""
    from drumd.supervisor.reexec.order import VARIABLE, Order, read_state  # noqa: PLC0415

    traceback.print_exception(error)
    document = json.loads(read_state(state))
    program = document["program"]
    said = f"{type(error).__name__}: {error}"[:_MAX_FAILURE]
    order = Order(task="return", state=state, failure=said)
    for fd in (state, *document["fds"]):
        os.set_inheritable(fd, True)
    stub = os.path.join(program["package"], "drumd", "supervisor", "reexec", "stub.py")  # noqa: PTH118
    arguments = [program["interpreter"], "-P", stub, *program["arguments"]]
    os.environ[VARIABLE] = order.encode()
    os.execv(program["interpreter"], arguments)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    sys.exit(main())
