"""Read what a worker of the model server needs to know, from environment and files."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from drumd.config.modelserver import known
from drumd.config.modelserver.invalid import ModelSettingsInvalid
from drumd.config.modelserver.lookup import remember
from drumd.config.modelserver.metadata import CODE_DIR, read_metadata
from drumd.config.modelserver.parameters import Parameters, read_parameters
from drumd.config.modelserver.sayings import Sayings
from drumd.config.modelserver.settings import Backend, ModelSettings
from drumd.config.modelserver.targets import read_target
from drumd.config.problems import Problem

URL_PREFIX = "URL_PREFIX"

_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Everything that was read. What is wrong is a problem, and left at its default."""

    settings: ModelSettings
    parameters: Parameters
    problems: tuple[Problem, ...]


def read_settings(
    environ: Mapping[str, str] = os.environ, code_dir: Path | None = None
) -> ModelSettings:
    """Return what environment, `model-metadata.yaml` and the runtime parameters' file say.

    `code_dir` is the model directory; without it, `CODE_DIR`, or the current one. From then on
    `RuntimeParameters` has the parameters that were read. Raise `ModelSettingsInvalid` with all
    problems at once.
    """
    directory = code_dir if code_dir is not None else Path(environ.get(CODE_DIR) or ".")
    reading = read_all(Sayings(environ=environ), directory, Path.cwd())
    if reading.problems:
        raise ModelSettingsInvalid(reading.problems)
    remember(reading.parameters)
    return reading.settings


def read_all(sayings: Sayings, code_dir: Path, here: Path) -> Reading:
    """Read what a model server is told; relative paths that are said are taken from `here`."""
    code_dir = (here / code_dir.expanduser()).resolve()
    metadata = read_metadata(code_dir)
    parameters = read_parameters(sayings, metadata, here)
    target, wrong_target = read_target(sayings, metadata, here)
    prefix, wrong_prefix = _url_prefix(sayings)
    backend, wrong_backend = _backend(parameters)
    defaults = ModelSettings(code_dir=code_dir, target=target)
    settings = replace(
        defaults,
        url_prefix=prefix,
        max_body=parameters.get(known.MAX_BODY, defaults.max_body),
        threads=parameters.get(known.THREADS, defaults.threads),
        queue=parameters.get(known.QUEUE, defaults.queue),
        request_timeout=parameters.get(known.REQUEST_TIMEOUT, defaults.request_timeout),
        backend=backend,
    )
    problems = (*metadata.problems, *wrong_target, *parameters.problems)
    return Reading(
        settings=settings,
        parameters=parameters,
        problems=(*problems, *wrong_prefix, *wrong_backend),
    )


def _url_prefix(sayings: Sayings) -> tuple[str, list[Problem]]:
    said = sayings.get(URL_PREFIX)
    if said is None:
        return "", []
    text, origin = said
    prefix = "/" + text.strip("/") if text.strip("/") else ""
    if _PREFIX.fullmatch(prefix):
        return prefix, []
    problem = Problem(
        key=URL_PREFIX,
        value=text,
        message="must be a path of letters, digits, and . _ ~ - between slashes",
        suggestion="write e.g. /models/diabetes",
        origin=origin,
    )
    return "", [problem]


def _backend(parameters: Parameters) -> tuple[Backend | None, list[Problem]]:
    host, port = parameters.get(known.BACKEND_HOST), parameters.get(known.BACKEND_PORT)
    wrong = {problem.key for problem in parameters.problems}
    if host is None and port is None:
        return None, []
    if host is None or port is None:
        missing, there = (
            (known.BACKEND_HOST, known.BACKEND_PORT)
            if host is None
            else (known.BACKEND_PORT, known.BACKEND_HOST)
        )
        if missing in wrong:
            return None, []
        origin = parameters.by_name[there].origin
        message = f"is missing, and {there} is set"
        return None, [Problem(key=missing, message=message, origin=origin)]
    if not _HOST.fullmatch(host):
        problem = Problem(
            key=known.BACKEND_HOST,
            value=host,
            message="must be a host's name or address, without scheme, port and path",
            origin=parameters.by_name[known.BACKEND_HOST].origin,
        )
        return None, [problem]
    return Backend(host=host, port=port), []
