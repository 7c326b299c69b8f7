"""What a model directory adds to the app that serves it: `init_app(app)`."""

import inspect
from pathlib import Path
from typing import Any

from drumd.errors import PlainError
from drumd.modelserver.errors import LoadError
from drumd.modelserver.inference.blame import described, user_traceback
from drumd.modelserver.inference.hooks import import_file
from drumd.modelserver.inference.interruptions import is_the_users_own

_FUNCTION = "init_app"


def extend(app: Any, file_name: str, code_dir: Path) -> None:
    """Have `file_name` of a model directory, if it is there, add to the app what it likes.

    Raises `LoadError` when the file has no `init_app`, or when that, or its import, raises.
    """
    path = code_dir / file_name
    if not path.is_file():
        return
    function = getattr(import_file(path, code_dir), _FUNCTION, None)
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise LoadError(
            f"cannot use {file_name}: it has no plain function {_FUNCTION}; "
            f"define def {_FUNCTION}(app), or remove the file"
        )
    try:
        function(app)
    except PlainError:
        raise
    except BaseException as error:
        if not is_the_users_own(error):
            raise
        raise LoadError(
            f"cannot extend the app: {_FUNCTION} in {file_name} raised {described(error)}",
            user_traceback(error, code_dir),
        ) from error
