"""Read what a worker of the model server needs to know, from environment and files."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from drumd.config.modelserver import known
from drumd.config.modelserver.invalid import ModelSettingsInvalid
from drumd.config.modelserver.metadata import read_metadata
from drumd.config.modelserver.parameters import Parameters, read_parameters
from drumd.config.modelserver.sayings import Sayings
from drumd.config.modelserver.settings import Backend, ModelSettings
from drumd.config.modelserver.targets import read_target
from drumd.config.problems import Problem

CODE_DIR = "CODE_DIR"
URL_PREFIX = "URL_PREFIX"

_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


def read_settings(
    environ: Mapping[str, str] = os.environ, code_dir: Path | None = None
) -> ModelSettings:
    """Return what environment, `model-metadata.yaml` and the runtime parameters' file say.

    `code_dir` is the model directory; without it, `CODE_DIR`, or the current one. Raise
    `ModelSettingsInvalid` with all problems at once.
    """
    directory = code_dir if code_dir is not None else Path(environ.get(CODE_DIR) or ".")
    settings, problems = settings_and_problems(Sayings(environ=environ), directory, Path.cwd())
    if problems:
        raise ModelSettingsInvalid(problems)
    return settings


def settings_and_problems(
    sayings: Sayings, code_dir: Path, here: Path
) -> tuple[ModelSettings, list[Problem]]:
    """Return the settings in any case, and all that is wrong: what is, is left at its default.

    Relative paths that flags and environment name are taken from `here`.
    """
    code_dir = (here / code_dir.expanduser()).resolve()
    metadata = read_metadata(code_dir)
    parameters = read_parameters(sayings, metadata, here)
    target, wrong_target = read_target(sayings, metadata, here)
    prefix, wrong_prefix = _url_prefix(sayings)
    backend, wrong_backend = _backend(parameters)
    defaults = ModelSettings(code_dir=code_dir, target=target)
    settings = ModelSettings(
        code_dir=code_dir,
        target=target,
        url_prefix=prefix,
        max_body=parameters.get(known.MAX_BODY, defaults.max_body),
        threads=parameters.get(known.THREADS, defaults.threads),
        queue=parameters.get(known.QUEUE, defaults.queue),
        request_timeout=parameters.get(known.REQUEST_TIMEOUT, defaults.request_timeout),
        backend=backend,
    )
    problems = [*metadata.problems, *wrong_target, *parameters.problems]
    return settings, [*problems, *wrong_prefix, *wrong_backend]


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
