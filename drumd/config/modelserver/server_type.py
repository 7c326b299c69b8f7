"""Which server serves the model: what the runtime parameter says, else an extension file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from drumd.config.modelserver.known import SERVER_TYPE
from drumd.config.modelserver.parameters import Parameters, origin_of
from drumd.config.problems import Problem

if TYPE_CHECKING:
    from drumd.config.settings import PoolSettings

Runtime = Literal["flask", "gunicorn", "uvicorn"]

FLASK_APP = "drumd.modelserver.flask_app:make_app"
FASTAPI_APP = "drumd.modelserver.fastapi_app:make_app"

EXTENSIONS = {"flask": "custom_flask.py", "fastapi": "custom_fastapi.py"}
"""Files of the model that add to an app, by the framework that it is made with."""


@dataclass(frozen=True, slots=True)
class Server:
    """One way to serve a model."""

    name: str
    """As messages have it: `uvicorn` is but another name for `fastapi`."""
    runtime: Runtime
    app: str
    framework: Literal["flask", "fastapi"]

    @property
    def extension(self) -> str:
        """The model's own file that this server calls."""
        return EXTENSIONS[self.framework]


FLASK = Server("flask", "flask", FLASK_APP, "flask")
GUNICORN = Server("gunicorn", "gunicorn", FLASK_APP, "flask")
FASTAPI = Server("fastapi", "uvicorn", FASTAPI_APP, "fastapi")

_BY_TYPE = {"flask": FLASK, "gunicorn": GUNICORN, "fastapi": FASTAPI, "uvicorn": FASTAPI}


def is_one_process(pool: "PoolSettings") -> bool:
    """Return whether a pool is of the server type that has one worker."""
    return (pool.app, pool.runtime) == (FLASK.app, FLASK.runtime)


@dataclass(frozen=True, slots=True)
class Choice:
    """The server that was chosen, and by what."""

    server: Server
    origin: str
    warnings: tuple[Problem, ...] = ()


def choose(parameters: Parameters, code_dir: Path) -> Choice:
    """Return the server for a model directory.

    Where nobody names one, a lone `custom_fastapi.py` does: nobody has such a file by accident.
    """
    there = [name for name in EXTENSIONS.values() if (code_dir / name).is_file()]
    said = parameters.by_name.get(SERVER_TYPE)
    if said is not None and said.value is not None:  # it may be defined, and empty
        server = _BY_TYPE[said.value]
        origin = origin_of(said)
    elif there == [FASTAPI.extension]:
        server, origin = FASTAPI, FASTAPI.extension
    else:
        server, origin = FLASK, "drumd server's default"
    unused = [name for name in there if name != server.extension]
    return Choice(server, origin, tuple(_unused(name, server) for name in unused))


def _unused(name: str, server: Server) -> Problem:
    types = [each for each, other in _BY_TYPE.items() if other.extension == name]
    return Problem(
        key=name,
        message=f"is not used: the server type is {server.name}",
        suggestion=f"set {SERVER_TYPE} to {' or '.join(types)}, or remove the file",
    )
