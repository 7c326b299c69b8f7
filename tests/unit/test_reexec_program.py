"""The program of a re-exec: which command was typed."""

import sys
from pathlib import Path

import pytest

from drumd.supervisor.reexec.errors import ReexecError
from drumd.supervisor.reexec.program import Program, typed_command


def script(path: Path, head: str, *, mode: int = 0o755) -> str:
    path.write_text(f"{head}\nimport drumd\n")
    path.chmod(mode)
    return str(path)


def program(*command: str) -> Program:
    return Program(
        command=command, arguments=(), version="1", interpreter="/x/python", package="/x"
    )


def test_a_script_is_executed_itself(tmp_path: Path) -> None:
    """A script that names the interpreter was typed without it; the next may name another."""
    path = script(tmp_path / "drumd", "#!/opt/1/bin/python")
    assert typed_command(["/opt/1/bin/python", path, "run"]) == (path, "run")


def test_a_long_path_stands_in_the_second_line(tmp_path: Path) -> None:
    """Where the path is too long for a first line, installers write it below one for the shell."""
    path = script(
        tmp_path / "drumd", "#!/bin/sh\n'''exec' \"/opt/1/bin/python\" \"$0\" \"$@\"\n' '''"
    )
    assert typed_command(["/opt/1/bin/python", path, "run"]) == (path, "run")


@pytest.mark.parametrize("arguments", [["-m", "drumd", "run"], ["-c", "import drumd"], []])
def test_an_interpreter_that_was_typed_stays(arguments: list[str]) -> None:
    """`python -m drumd` is executed as that, whatever `python` is by then."""
    assert typed_command(["python", *arguments]) == ("python", *arguments)


def test_a_file_that_is_no_script_of_it_is_given_to_it(tmp_path: Path) -> None:
    """`python drumd` with another interpreter than the script names is executed with that one."""
    other = script(tmp_path / "other", "#!/usr/bin/python3")
    plain = script(tmp_path / "plain", "#!/opt/1/bin/python", mode=0o644)
    for path in (other, plain, str(tmp_path / "gone")):
        command = ("/opt/1/bin/python", path)
        assert typed_command(list(command)) == command


def test_what_is_executed_is_looked_for_at_that_time(tmp_path: Path) -> None:
    """A link that was moved meanwhile leads to the new place; one that is gone is told of."""
    link = tmp_path / "current"
    link.symlink_to(sys.executable)
    assert program(str(link)).resolve() == str(link)
    link.unlink()
    with pytest.raises(ReexecError, match=f"cannot re-exec: {link} is not there"):
        program(str(link)).resolve()
    assert Path(program("sh").resolve()).is_absolute()
