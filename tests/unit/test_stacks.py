"""Where a worker was, by the stacks that it wrote."""

import json
import os

from drumd.supervisor.pool.stacks import place

OTHER = f"""Thread 0x00007f0000000001 (most recent call first):
  File "{os.__file__.removesuffix("os.py")}threading.py", line 320 in wait
  File "/srv/app/pool.py", line 7 in work
"""


def stacks(*frames: tuple[str, int, str]) -> list[str]:
    lines = [f'  File "{file}", line {line} in {name}' for file, line, name in frames]
    head = "Current thread 0x00007f0000000002 (most recent call first):"
    return [*OTHER.splitlines(), "", head, *lines]


def test_the_apps_own_call_is_named() -> None:
    """Of the thread that was asked, the latest call that is not the standard library's counts."""
    library = ("/".join([*json.__file__.split("/")[:-1], "decoder.py"]), 340, "decode")
    written = stacks(
        library, ("/srv/app/model.py", 12, "load"), ("/srv/app/main.py", 3, "<module>")
    )
    assert place(written) == "load (model.py, line 12)"


def test_without_a_call_of_the_apps_the_latest_one_is_named() -> None:
    """A worker that hangs in a library alone is said to be there."""
    assert place(stacks((json.__file__, 1, "loads"))) == "loads (__init__.py, line 1)"


def test_what_is_no_stack_names_nothing() -> None:
    """Lines that are no stack say nothing of where it was."""
    assert place(["what is this", ""]) == ""
