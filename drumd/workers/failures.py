"""Why a worker cannot go on, for people: one line, and the traceback of their own code."""

import contextlib
import os
from types import TracebackType

from drumd.errors import PlainError
from drumd.wire.messages import Failed
from drumd.wire.scoreboard import ScoreboardError
from drumd.wire.spec import SpecError
from drumd.workers.process import ProcessError

_OURS = os.path.dirname(__file__)  # noqa: PTH120 - pathlib costs start time here
_IMPORT_MACHINERY = "<frozen importlib"


def failed(doing: str, error: BaseException) -> Failed:
    """Describe `error`, met while `doing` (such as `import shop:app`)."""
    if isinstance(error, PlainError):
        return Failed(error=str(error), traceback=error.traceback, final=error.final)
    if isinstance(error, ProcessError | ScoreboardError | SpecError):
        return Failed(error=str(error))
    frames = own_frames(error.__traceback__)
    return Failed(
        error=f"cannot {doing}: {_what_happened(error)}{_where(error, frames)}",
        traceback=format_traceback(error, frames),
    )


def complain(error: str, traceback: str = "") -> None:
    """Write what is wrong to stderr, if the app has left it open."""
    if traceback and not traceback.endswith("\n"):
        traceback += "\n"
    with contextlib.suppress(OSError):
        os.write(2, f"{traceback}drumd: {error}\n".encode(errors="backslashreplace"))


def own_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Cut the frames that lead from drumd into the app; all stay if the last one is drumd's own.

    None where only the import machinery is left: the app's file itself cannot be read as Python.
    """
    rest = frame = traceback
    while frame is not None:
        if frame.tb_frame.f_code.co_filename.startswith(_OURS):
            rest = frame.tb_next
        frame = frame.tb_next
    if rest is None:
        return traceback
    while rest is not None and _is_importlib(rest):
        rest = rest.tb_next
    return rest


def format_traceback(error: BaseException, frames: TracebackType | None) -> str:
    """Return what Python would print for `error`, with `frames` only."""
    import traceback  # noqa: PLC0415 - only a worker that fails pays for it

    return "".join(traceback.format_exception(type(error), error, frames))


def _what_happened(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        return f"it called sys.exit({code})"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _where(error: BaseException, frames: TracebackType | None) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return ""  # its message names file and line already
    if frames is None:
        return ""
    while frames.tb_next is not None:
        frames = frames.tb_next
    name = os.path.basename(frames.tb_frame.f_code.co_filename)  # noqa: PTH119 - see above
    return f" ({name}, line {frames.tb_lineno})"


def _is_importlib(frame: TracebackType) -> bool:
    name = frame.tb_frame.f_code.co_filename
    return name.startswith(_IMPORT_MACHINERY) or name.endswith("importlib/__init__.py")
